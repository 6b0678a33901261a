"""Which partitions came and went, told by the client on a thread of its own."""

import threading
from collections.abc import Collection
from typing import Any

from kafka import ConsumerRebalanceListener

from worker.broker.base import AssignmentChanges
from worker.broker.watermark import CommittedWatermark
from worker.records import Partition


class Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python ships no types
    """Notes what changed. It runs on the client's IO thread, where every blocking call of the client fails.

    misplaced: partitions that were taken away and given back. The client keeps their old position, which is beyond
    records that were polled and never committed, or behind what another member has committed meanwhile.
    floor: what is known to be committed of the partitions that are held.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._assigned: set[Partition] = set()
        self._revoked: set[Partition] = set()
        self._held: set[Partition] = set()
        self.misplaced: frozenset[Partition] = frozenset()
        self.floor = CommittedWatermark()

    def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        """Before they are taken away."""
        partitions = {Partition(*partition) for partition in revoked}
        with self._lock:
            self._assigned -= partitions
            self._revoked |= partitions
            self._held |= partitions
            self.misplaced -= partitions
        self.floor.forget(partitions)

    def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        """After a rebalance."""
        partitions = {Partition(*partition) for partition in assigned}
        with self._lock:
            self._assigned |= partitions
            self.misplaced |= partitions & self._held
            self._held.clear()

    def placed(self, partitions: Collection[Partition]) -> None:
        """These have a position that can be trusted."""
        with self._lock:
            self.misplaced -= frozenset(partitions)

    def take(self) -> AssignmentChanges:
        """What changed since it was last asked."""
        with self._lock:
            changes = AssignmentChanges(frozenset(self._assigned), frozenset(self._revoked))
            self._assigned.clear()
            self._revoked.clear()
        return changes
