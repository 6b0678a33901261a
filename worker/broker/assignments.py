"""What a member of a group knows between two polls: partitions that came and went, and the offsets it has committed."""

import threading
from collections.abc import Collection, Mapping
from typing import Any

from kafka import ConsumerRebalanceListener
from typing_extensions import override

from worker.broker.base import AssignmentChanges
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
        self._offsets |= {partition: offset for partition, offset in offsets.items() if offset is not None}

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


# Where a partition goes on that was assigned.
#
# Invariant: the first record that poll returns of a partition after an assignment is the one at its committed offset,
# or the oldest one if it has none.
#
# The client's own idea of it can't be trusted. With the eager assignors (range, roundrobin) a rebalance takes all
# partitions away and gives most of them back within one poll, and of those the client keeps its old position. That lies
# beyond records that were polled and never committed (their batch was dropped: they would be lost), or behind what
# another member has committed meanwhile (they would be published twice). And of a topic that was deleted and created
# again it takes the offset that was committed of the one before.
#
# What was taken away stays in the client's assignment, with its position, until the group has agreed on the next one.
# Here it is gone from the moment at which the client says so.
#
# So whatever is assigned needs a seek. The listener only takes notes, for on the client's IO thread every blocking call
# of the client fails. The next poll asks for offsets and seeks before it reads; the poll in which the rebalance
# happened drops what the client returned of these partitions.


class AssignmentListener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Notes what changed, on the client's IO thread.

    needs_seek   partitions whose position there can't be trusted
    gone         those that were taken away, and have not come back
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._assigned: set[Partition] = set()
        self._revoked: set[Partition] = set()
        self.needs_seek: frozenset[Partition] = frozenset()
        self.gone: frozenset[Partition] = frozenset()
        self.committed = CommittedWatermark()

    @override
    def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        partitions = {Partition(*partition) for partition in revoked}
        with self._lock:
            self._assigned -= partitions
            self._revoked |= partitions
            self.needs_seek -= partitions
            self.gone |= partitions
        self.committed.forget(partitions)

    @override
    def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        partitions = {Partition(*partition) for partition in assigned}
        with self._lock:
            self._assigned |= partitions
            self.needs_seek |= partitions
            self.gone -= partitions

    def recreated(self, partitions: Collection[Partition]) -> None:
        """Their topic is another one of the same name: as if they had been taken away and given back."""
        with self._lock:
            self._assigned |= set(partitions)
            self._revoked |= set(partitions)
            self.needs_seek |= set(partitions)
        self.committed.forget(partitions)

    def positioned(self, partition: Partition) -> None:
        """It has a position that can be trusted."""
        with self._lock:
            self.needs_seek -= {partition}

    def take(self) -> AssignmentChanges:
        """What changed since it was last asked."""
        with self._lock:
            changes = AssignmentChanges(frozenset(self._assigned), frozenset(self._revoked))
            self._assigned, self._revoked = set(), set()
        return changes
