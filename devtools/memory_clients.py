"""A group member, producers and a range reader on the in-memory broker."""

import heapq
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import Literal

from typing_extensions import override

from devtools.memory_broker import Membership, MemoryBroker
from worker.broker.assignments import CommittedWatermark
from worker.broker.base import (
    AssignmentChanges,
    Bounds,
    Consumer,
    Polled,
    Producer,
    RangeReader,
    TransactionalProducer,
    Unreadable,
)
from worker.broker.ranges import share_out
from worker.broker.topic_names import fitting_topics, topic_names
from worker.errors import DeliveryError, MissingTopic, OffsetOutOfRange, RecordTooLarge
from worker.records import Message, Outgoing, Partition, RawMessage

_BATCH = 500


class MemoryConsumer(Consumer):
    """A Consumer on a MemoryBroker. Joins at its first poll."""

    def __init__(
        self,
        broker: MemoryBroker,
        topics: Sequence[str],
        group_id: str,
        *,
        out_of_range: Literal["stop", "earliest", "latest"] = "stop",
    ) -> None:
        broker.injected("build")
        self.topics = tuple(topics)
        self.group_id = group_id
        self._broker = broker
        self._topic_ids: dict[str, str | None] = {}
        self._out_of_range = out_of_range
        self._generation = -1
        self._positions: dict[Partition, int] = {}
        self._paused: set[Partition] = set()
        self._assigned: set[Partition] = set()
        self._revoked: set[Partition] = set()
        self._closed = False
        self._committed = CommittedWatermark()
        self._max_bytes, self._polled_bytes = sys.maxsize, 0

    @override
    def poll(self, timeout_ms: int, max_records: int, max_bytes: int | None = None) -> Polled:
        self._max_bytes, self._polled_bytes = sys.maxsize if max_bytes is None else max_bytes, 0
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
        self._committed.forget(old)
        self._paused.clear()
        for topic in self.topics:
            topic_id, known = self._broker.topic_id(topic), self._topic_ids.get(topic)
            if None not in (topic_id, known) and topic_id != known:
                self.note_later([partition for partition in new if partition.topic == topic])
            self._topic_ids[topic] = topic_id or known
        self._positions = {p: self._broker.position(self.group_id, p) for p in sorted(new)}

    def _edge(self, partition: Partition, where: Literal["earliest", "latest"]) -> int:
        start, end = self._broker.bounds(partition)
        return start if where == "earliest" else end

    def _take(self, max_records: int) -> Polled:
        polled: dict[Partition, Sequence[Message]] = {}
        for partition in sorted(self._positions):
            if partition in self._paused or max_records <= 0:
                continue
            self._require_in_range(partition)
            records = self._within_bytes(self._broker.slice(partition, self._positions[partition], max_records))
            if records:
                polled[partition] = records
                self._positions[partition] = records[-1].offset + 1
                max_records -= len(records)
        return polled

    def _within_bytes(self, records: list[Message]) -> list[Message]:
        taken = 0
        for taken, record in enumerate(records, 1):  # how many fit
            if self._polled_bytes >= self._max_bytes:
                return records[: taken - 1]
            self._polled_bytes += len(record.value or b"") + len(record.key or b"")
        return records[:taken]

    @override
    def polled_bytes(self) -> int:
        return self._polled_bytes

    @override
    def unreadable(self) -> Sequence[Unreadable]:
        return ()

    def _require_in_range(self, partition: Partition) -> None:
        start, end = self._broker.bounds(partition)
        if start <= self._positions[partition] <= end:
            return
        if self._out_of_range == "stop":
            raise OffsetOutOfRange(f"{partition} at {self._positions[partition]}: the log has {start} to {end}")
        self._positions[partition] = self._edge(partition, self._out_of_range)

    @override
    def assignment_changes(self) -> AssignmentChanges:
        changes = AssignmentChanges(frozenset(self._assigned), frozenset(self._revoked))
        self._assigned, self._revoked = set(), set()
        return changes

    @override
    def commit(self, offsets: Mapping[Partition, int]) -> None:
        self._broker.injected("commit", lambda: self._broker.store_offsets(self.membership(), offsets))
        self.note_committed(offsets)

    @override
    def committed(self, partitions: Collection[Partition]) -> Mapping[Partition, int | None]:
        self._broker.injected("committed")
        offsets = {partition: self._broker.answered_offsets(self.group_id).get(partition) for partition in partitions}
        self._committed.require_not_below(offsets)
        self._committed.note(offsets)
        return offsets

    @override
    def begin(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        oldest = {partition: self._broker.bounds(partition)[0] for partition in partitions}
        return self._broker.begin(self.group_id, oldest)

    @override
    def topic_id(self, topic: str) -> str | None:
        return self._topic_ids.get(topic)

    @override
    def note_later(self, partitions: Collection[Partition]) -> None:
        self._broker.later[self.group_id] |= set(partitions)

    @override
    def is_later(self, partition: Partition) -> bool:
        return partition in self._broker.later[self.group_id]

    @override
    def missing_topics(self) -> Sequence[str]:
        return [topic for topic in self.topics if self._broker.topic_id(topic) is None]

    @override
    def partition_count(self, topic: str) -> int:
        return len(self._broker.partitions(topic)) if self._broker.topic_id(topic) else 0

    @override
    def note_committed(self, offsets: Mapping[Partition, int]) -> None:
        self._committed.note(offsets)

    @override
    def seek(self, offsets: Mapping[Partition, int]) -> None:
        self._positions.update({p: offset for p, offset in offsets.items() if p in self._positions})

    @override
    def membership(self) -> Membership:
        return Membership(self.group_id, id(self), self._generation)

    @override
    def assignment(self) -> frozenset[Partition]:
        return frozenset(self._positions)

    @override
    def is_member(self) -> bool:
        current = self._generation == self._broker.generation(self.group_id)
        return not self._closed and self._broker.has_member(self) and current

    @override
    def pause(self, partitions: Collection[Partition]) -> None:
        self._paused |= set(partitions) & set(self._positions)

    @override
    def resume(self, partitions: Collection[Partition]) -> None:
        self._paused -= set(partitions)

    @override
    def positions(self) -> Mapping[Partition, int]:
        return dict(self._positions)

    @override
    def lag(self) -> Mapping[Partition, int]:
        return {p: max(0, self._broker.bounds(p)[1] - offset) for p, offset in self._positions.items()}

    @override
    def close(self, timeout_s: float) -> None:  # nothing to wait for
        self._closed = True
        self._broker.leave(self)


class MemoryProducer(Producer):
    """A Producer on a MemoryBroker; records are written when they are flushed."""

    def __init__(self, broker: MemoryBroker) -> None:
        broker.injected("build")
        self._broker = broker
        self._pending: list[Outgoing] = []
        self._acknowledged: Sequence[Outgoing] = ()
        self._dead = False

    @override
    def fits(self, outgoing: Outgoing) -> bool:  # the broker decides
        return True

    @override
    def send(self, outgoing: Outgoing) -> None:
        self._require_alive()
        self._dead = True
        self._broker.injected("send", lambda: self._pending.append(outgoing))
        self._dead = False

    @override
    def flush(self, timeout_s: float) -> None:  # nothing to wait for
        self._require_alive()
        pending, self._pending = self._pending, []
        self._dead = True

        def write() -> None:
            self._acknowledged = [record for record in pending if not self._broker.is_too_large(record)]
            self._broker.append(self._acknowledged)
            self._broker.refuse_too_large(pending)

        self._acknowledged = ()
        try:
            self._broker.injected("flush", write)
        except BaseException as error:
            if not isinstance(error, RecordTooLarge):
                self._acknowledged = ()  # written, perhaps; the producer doesn't know
            raise
        self._acknowledged = ()
        self._dead = False

    @override
    def acknowledged(self) -> Sequence[Outgoing]:
        return self._acknowledged

    def _require_alive(self) -> None:
        if self._dead:
            raise DeliveryError("this producer is dead; build another")

    @override
    def close(self, timeout_s: float) -> None:  # nothing to wait for
        self._dead = True


class MemoryTransactionalProducer(TransactionalProducer):
    """A TransactionalProducer on a MemoryBroker; outdates older ones with the same id."""

    def __init__(self, broker: MemoryBroker, transactional_id: str) -> None:
        broker.injected("build")
        self._broker = broker
        self._id = transactional_id
        self._epoch = broker.new_epoch(transactional_id)

    @override
    def fits(self, outgoing: Outgoing) -> bool:  # the broker decides
        return True

    @override
    def transact(self, outgoing: Sequence[Outgoing], offsets: Mapping[Partition, int], membership: object) -> None:
        assert isinstance(membership, Membership)  # clients of one broker only

        def both() -> None:
            self._broker.require_epoch(self._id, self._epoch)
            self._broker.refuse_too_large(outgoing)
            for topic in {record.topic for record in outgoing}:
                self._broker.partitions(topic)
            self._broker.store_offsets(membership, offsets)
            self._broker.append(outgoing)

        self._broker.injected("transact", both)

    @override
    def close(self, timeout_s: float) -> None:
        """Nothing to close."""


class MemoryReader(RangeReader):
    """A RangeReader on a MemoryBroker."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    @override
    def partitions(self, topic: str) -> Sequence[Partition]:
        names = topic_names(topic) or fitting_topics(topic, self._broker.topics())
        if not names:
            raise MissingTopic(f"no topic fits {topic}")
        return sorted(chain.from_iterable(map(self._broker.partitions, names)))

    @override
    def start_offsets(self, topic: str) -> Mapping[Partition, int]:
        return {partition: self._broker.bounds(partition)[0] for partition in self.partitions(topic)}

    @override
    def end_offsets(self, topic: str) -> Mapping[Partition, int]:
        return {partition: self._broker.bounds(partition)[1] for partition in self.partitions(topic)}

    @override
    def offsets_for_times(self, topic: str, timestamp_ms: int) -> Mapping[Partition, int]:
        first: dict[Partition, int] = {}
        for partition, end in self.end_offsets(topic).items():
            records = self._broker.slice(partition, self._broker.bounds(partition)[0], end)
            first[partition] = next((r.offset for r in records if r.timestamp >= timestamp_ms), end)
        return first

    @override
    def read(self, bounds: Bounds) -> Iterator[Sequence[RawMessage]]:
        for partition, (first, last) in bounds.items():
            start, end = self._broker.bounds(partition)
            position, end = max(first, start), min(last, end)
            while position < end:
                batch = self._broker.slice(partition, position, min(_BATCH, end - position))
                position += len(batch)
                yield batch

    @override
    def unreadable(self) -> Sequence[Unreadable]:
        return ()

    @override
    def latest(self, topic: str, count: int) -> Sequence[RawMessage]:
        bounds = {partition: self._broker.bounds(partition) for partition in self.partitions(topic)}
        shares = share_out(count, {partition: end - start for partition, (start, end) in bounds.items()})
        newest = [self._broker.slice(p, bounds[p][1] - share, share) for p, share in shares.items()]
        return list(heapq.merge(*newest, key=attrgetter("timestamp")))

    @override
    def close(self, timeout_s: float) -> None:
        """Nothing to close."""
