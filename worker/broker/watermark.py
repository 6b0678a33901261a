"""What a member knows to be committed, and when it does not believe the broker."""

from collections.abc import Collection, Mapping

from worker.errors import BrokerUnavailable
from worker.records import Partition

# Why a member remembers what it has committed, though the broker stores it.
#
# Invariant: while a group has members, its committed offsets do not go back.
#
# Apache Kafka 4.3.1 can say otherwise. A node that comes back after a crash loads a group twice, once for the
# leadership that it had before and once for the new one, and answers meanwhile: for a moment a group has no offsets, or
# those of minutes ago, or a member is not one of its own. A member that believed it would read again what it has
# committed, publish it twice, and with exactly_once take a transaction that was committed for lost.
#
# So an answer below the watermark is not an answer: BrokerUnavailable, and the caller asks again. It is forgotten with
# the partition: a new owner has none, and is protected by the offset in the checkpoint (worker.stream.checkpoints). An
# operator who moves offsets back has to stop the group first, which Kafka's own tools demand, too.


class CommittedWatermark:
    """The offsets that this member knows to be committed. Any thread may call any method."""

    def __init__(self) -> None:
        self._offsets: dict[Partition, int] = {}

    def note(self, offsets: Mapping[Partition, int | None]) -> None:
        """These are committed; None = nothing is."""
        self._offsets.update({partition: offset for partition, offset in offsets.items() if offset is not None})

    def forget(self, partitions: Collection[Partition]) -> None:
        """They belong to others now."""
        for partition in partitions:
            self._offsets.pop(partition, None)

    def require_not_below(self, offsets: Mapping[Partition, int | None]) -> None:
        """Raises BrokerUnavailable when one of these answers is older than what is known."""
        for partition, offset in offsets.items():
            known = self._offsets.get(partition)
            if known is not None and (offset is None or offset < known):
                raise BrokerUnavailable(
                    f"the broker says that offset {offset} of {partition.topic}[{partition.partition}] is committed, "
                    f"though {known} is: it may not have loaded all of them yet"
                )
