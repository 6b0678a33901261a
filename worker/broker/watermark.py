"""A group's committed offsets do not go back while it has members; a broker that says so answers from the past.

Seen on Apache Kafka 4.3.1: a node that comes back after a crash loads a group once for the leadership that it had
before and once for the new one, and answers meanwhile. For a moment it says that a group has no offsets, or those of
minutes ago, or that a member is not one of its own. A member that believed it would read again what it has committed.
"""

from collections.abc import Collection, Mapping

from worker.errors import BrokerUnavailable
from worker.records import Partition


class CommittedWatermark:
    """The offsets that this member knows to be committed. Any thread may call any method."""

    def __init__(self) -> None:
        self._offsets: dict[Partition, int] = {}

    def note(self, offsets: Mapping[Partition, int | None]) -> None:
        """These are committed."""
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
