"""A group member, producers and a range reader on the in-memory broker."""

import heapq
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Literal

from devtools.memory_broker import Membership, MemoryBroker
from worker.broker.base import AssignmentChanges, Bounds, Polled
from worker.broker.ranges import share_out
from worker.broker.watermark import CommittedWatermark
from worker.errors import DeliveryError, OffsetOutOfRange
from worker.records import Message, Outgoing, Partition, RawMessage

_BATCH = 500


class MemoryConsumer:
    """worker.broker.base.Consumer on a MemoryBroker. Joins at its first poll."""

    def __init__(
        self,
        broker: MemoryBroker,
        topics: Sequence[str],
        group_id: str,
        *,
        start: Literal["earliest", "latest"] = "earliest",
        out_of_range: Literal["stop", "earliest", "latest"] = "stop",
    ) -> None:
        broker.injected("build")
        self.topics = tuple(topics)
        self.group_id = group_id
        self._broker = broker
        self._start = start
        self._out_of_range = out_of_range
        self._generation = -1
        self._positions: dict[Partition, int] = {}
        self._paused: set[Partition] = set()
        self._assigned: set[Partition] = set()
        self._revoked: set[Partition] = set()
        self._closed = False
        self._floor = CommittedWatermark()

    def poll(self, timeout_ms: int, max_records: int) -> Polled:
        """See Consumer.poll."""
        deadline = time.monotonic() + timeout_ms / 1000
        with self._broker.changed:
            self._broker.injected("poll")
            while True:
                self._rejoin()
                polled = self._take(max_records)
                left_s = deadline - time.monotonic()
                if polled or left_s <= 0 or not self._broker.changed.wait(left_s):
                    return polled

    def _rejoin(self) -> None:
        if not self._broker.has_member(self):
            self._broker.join(self)
        generation = self._broker.generation(self.group_id)
        if generation == self._generation:
            return
        old, new = set(self._positions), self._broker.share_of(self)
        self._generation = generation
        self._assigned = set(new)
        self._revoked |= old
        self._floor.forget(old)
        self._paused.clear()
        committed = self._broker.offsets(self.group_id)
        self._positions = {p: committed.get(p, self._edge(p, self._start)) for p in sorted(new)}

    def _edge(self, partition: Partition, where: Literal["earliest", "latest"]) -> int:
        start, end = self._broker.bounds(partition)
        return start if where == "earliest" else end

    def _take(self, max_records: int) -> Polled:
        polled: dict[Partition, Sequence[Message]] = {}
        for partition in sorted(self._positions):
            if partition in self._paused or max_records <= 0:
                continue
            self._require_in_range(partition)
            records = self._broker.slice(partition, self._positions[partition], max_records)
            if records:
                polled[partition] = records
                self._positions[partition] = records[-1].offset + 1
                max_records -= len(records)
        return polled

    def _require_in_range(self, partition: Partition) -> None:
        start, end = self._broker.bounds(partition)
        if start <= self._positions[partition] <= end:
            return
        if self._out_of_range == "stop":
            raise OffsetOutOfRange(f"{partition} at {self._positions[partition]}: the log has {start} to {end}")
        self._positions[partition] = self._edge(partition, self._out_of_range)

    def assignment_changes(self) -> AssignmentChanges:
        """See Consumer.assignment_changes."""
        changes = AssignmentChanges(frozenset(self._assigned), frozenset(self._revoked))
        self._assigned, self._revoked = set(), set()
        return changes

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """See Consumer.commit."""
        self._broker.injected("commit", lambda: self._broker.store_offsets(self.membership(), offsets))
        self.note_committed(offsets)

    def committed(self, partitions: Collection[Partition]) -> Mapping[Partition, int | None]:
        """See Consumer.committed."""
        self._broker.injected("committed")
        found = {partition: self._broker.answered_offsets(self.group_id).get(partition) for partition in partitions}
        self._floor.require_not_below(found)
        self._floor.note(found)
        return found

    def note_committed(self, offsets: Mapping[Partition, int]) -> None:
        """See Consumer.note_committed."""
        self._floor.note(offsets)

    def seek(self, offsets: Mapping[Partition, int]) -> None:
        """See Consumer.seek."""
        self._positions.update({p: offset for p, offset in offsets.items() if p in self._positions})

    def membership(self) -> Membership:
        """See Consumer.membership."""
        return Membership(self.group_id, id(self), self._generation)

    def assignment(self) -> frozenset[Partition]:
        """See Consumer.assignment."""
        return frozenset(self._positions)

    def is_member(self) -> bool:
        """See Consumer.is_member."""
        current = self._generation == self._broker.generation(self.group_id)
        return not self._closed and self._broker.has_member(self) and current

    def pause(self, partitions: Collection[Partition]) -> None:
        """See Consumer.pause."""
        self._paused |= set(partitions) & set(self._positions)

    def resume(self, partitions: Collection[Partition]) -> None:
        """See Consumer.resume."""
        self._paused -= set(partitions)

    def positions(self) -> Mapping[Partition, int]:
        """See Consumer.positions."""
        return dict(self._positions)

    def lag(self) -> Mapping[Partition, int]:
        """See Consumer.lag."""
        return {p: max(0, self._broker.bounds(p)[1] - offset) for p, offset in self._positions.items()}

    def close(self, timeout_s: float) -> None:  # nothing to wait for
        """See Consumer.close."""
        self._closed = True
        self._broker.leave(self)


class MemoryProducer:
    """worker.broker.base.Producer on a MemoryBroker; records are written when they are flushed."""

    def __init__(self, broker: MemoryBroker) -> None:
        broker.injected("build")
        self._broker = broker
        self._pending: list[Outgoing] = []
        self._dead = False

    def fits(self, outgoing: Outgoing) -> bool:  # the broker decides
        """See Producer.fits."""
        return True

    def send(self, outgoing: Outgoing) -> None:
        """See Producer.send."""
        self._require_alive()
        self._dead = True
        self._broker.injected("send", lambda: self._pending.append(outgoing))
        self._dead = False

    def flush(self, timeout_s: float) -> None:  # nothing to wait for
        """See Producer.flush."""
        self._require_alive()
        pending, self._pending = self._pending, []
        self._dead = True
        self._broker.refuse_too_large(pending)
        self._broker.injected("flush", lambda: self._broker.append(pending))
        self._dead = False

    def _require_alive(self) -> None:
        if self._dead:
            raise DeliveryError("this producer is dead; build another")

    def close(self, timeout_s: float) -> None:  # nothing to wait for
        """See Producer.close."""
        self._dead = True


class MemoryTransactionalProducer:
    """worker.broker.base.TransactionalProducer on a MemoryBroker; outdates older ones with the same id."""

    def __init__(self, broker: MemoryBroker, transactional_id: str) -> None:
        broker.injected("build")
        self._broker = broker
        self._id = transactional_id
        self._epoch = broker.new_epoch(transactional_id)

    def fits(self, outgoing: Outgoing) -> bool:  # the broker decides
        """See TransactionalProducer.fits."""
        return True

    def transact(self, outgoing: Sequence[Outgoing], offsets: Mapping[Partition, int], membership: object) -> None:
        """See TransactionalProducer.transact."""
        assert isinstance(membership, Membership)  # clients of one broker only

        def both() -> None:
            self._broker.require_epoch(self._id, self._epoch)
            self._broker.refuse_too_large(outgoing)
            for topic in {record.topic for record in outgoing}:
                self._broker.partitions(topic)
            self._broker.store_offsets(membership, offsets)
            self._broker.append(outgoing)

        self._broker.injected("transact", both)

    def close(self, timeout_s: float) -> None:
        """See TransactionalProducer.close."""


class MemoryReader:
    """worker.broker.base.RangeReader on a MemoryBroker."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    def partitions(self, topic: str) -> Sequence[Partition]:
        """See RangeReader.partitions."""
        return self._broker.partitions(topic)

    def start_offsets(self, topic: str) -> Mapping[Partition, int]:
        """See RangeReader.start_offsets."""
        return {partition: self._broker.bounds(partition)[0] for partition in self.partitions(topic)}

    def end_offsets(self, topic: str) -> Mapping[Partition, int]:
        """See RangeReader.end_offsets."""
        return {partition: self._broker.bounds(partition)[1] for partition in self.partitions(topic)}

    def offsets_for_times(self, topic: str, timestamp_ms: int) -> Mapping[Partition, int]:
        """See RangeReader.offsets_for_times."""
        found: dict[Partition, int] = {}
        for partition, end in self.end_offsets(topic).items():
            records = self._broker.slice(partition, self._broker.bounds(partition)[0], end)
            found[partition] = next((r.offset for r in records if r.timestamp >= timestamp_ms), end)
        return found

    def read(self, bounds: Bounds) -> Iterator[Sequence[RawMessage]]:
        """See RangeReader.read."""
        for partition, (wanted_start, wanted_end) in bounds.items():
            start, end = self._broker.bounds(partition)
            position, end = max(wanted_start, start), min(wanted_end, end)
            while position < end:
                batch = self._broker.slice(partition, position, min(_BATCH, end - position))
                position += len(batch)
                yield batch

    def latest(self, topic: str, count: int) -> Sequence[RawMessage]:
        """See RangeReader.latest."""
        bounds = {partition: self._broker.bounds(partition) for partition in self.partitions(topic)}
        shares = share_out(count, {partition: end - start for partition, (start, end) in bounds.items()})
        newest = [self._broker.slice(p, bounds[p][1] - share, share) for p, share in shares.items()]
        return list(heapq.merge(*newest, key=attrgetter("timestamp")))

    def close(self, timeout_s: float) -> None:
        """See RangeReader.close."""
