"""Reading parts of a topic outside of any group."""

import contextlib
import heapq
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, Final

from kafka import TopicPartition
from kafka import errors as kafka_errors
from typing_extensions import override

from worker.broker.base import Bounds, Offsets, RangeReader, Unreadable
from worker.broker.client import Connection, asked, build_consumer, quietly, translated
from worker.broker.fetching import BoundedFetcher
from worker.broker.topic_names import fitting_topics, topic_names
from worker.errors import BrokerUnavailable, MissingTopic
from worker.records import Partition, RawMessage

_POLL_MS: Final = 500
_BATCH: Final = 8192
_FETCH_WAIT_MS: Final = 100
_CONFIRM_S: Final = 2.0


class TopicReader(RangeReader):
    """A RangeReader on Kafka.

    read_committed  leave out what open and aborted transactions wrote; ends are then the last stable offsets
    timeout_s       for each question to the broker, and for silence while reading

    Raises (on creation) BrokerUnavailable, SettingsError, FatalError.
    """

    def __init__(self, connection: Connection, *, read_committed: bool = False, timeout_s: float = 30.0) -> None:
        self._timeout_s = timeout_s
        self._read_committed = read_committed
        isolation = "read_committed" if read_committed else "read_uncommitted"
        own = {"group_id": None, "auto_offset_reset": "earliest", "fetch_max_wait_ms": _FETCH_WAIT_MS}
        self._client = build_consumer(connection, isolation_level=isolation, **own)
        self._fetcher: BoundedFetcher = self._client._fetcher  # noqa: SLF001  # build_consumer put it there
        self._fetcher.max_bytes = connection.max_batch_bytes
        self._closed = False

    @override
    def partitions(self, topic: str) -> Sequence[Partition]:
        names = topic_names(topic) or fitting_topics(
            topic, asked(self._client.topics, self._timeout_s, "listing topics")
        )
        partitions: list[Partition] = []
        for name in names:
            numbers = asked(partial(self._client.partitions_for_topic, name), self._timeout_s, f"looking up {name}")
            if not numbers:
                raise MissingTopic(f"no such topic: {name}")
            partitions += [Partition(name, number) for number in numbers]
        if not partitions:
            raise MissingTopic(f"no topic fits {topic}")
        return sorted(partitions)

    @override
    def start_offsets(self, topic: str) -> Offsets:
        return self._offsets(self._client.beginning_offsets, self.partitions(topic))

    @override
    def end_offsets(self, topic: str) -> Offsets:
        return self._ends(self.partitions(topic))

    @override
    def offsets_for_times(self, topic: str, timestamp_ms: int) -> Offsets:
        ends = self.end_offsets(topic)
        times = {TopicPartition(*partition): timestamp_ms for partition in ends}
        answers = asked(lambda: self._client.offsets_for_times(times), self._timeout_s, f"looking up a time in {topic}")
        # "No record" is None from Kafka, and offset 0 with timestamp -1 from the embedded broker.
        first = {p: answers[p].offset for p in ends if answers.get(p) is not None and answers[p].timestamp >= 0}
        return {partition: min(first.get(partition, end), end) for partition, end in ends.items()}

    @override
    def read(self, bounds: Bounds) -> Iterator[Sequence[RawMessage]]:
        ends = self._begin(bounds)
        heard = time.monotonic()
        while ends:
            with translated("reading a range"):
                polled = self._client.poll(timeout_ms=_POLL_MS, max_records=_BATCH)
            for partition, records in polled.items():
                within = records[: bisect_left(records, ends.get(partition, 0), key=attrgetter("offset"))]
                if within:
                    yield within
                heard = time.monotonic()  # the time that the caller took is no silence
            finished = [partition for partition, end in ends.items() if self._position(partition) >= end]
            for partition in finished:
                del ends[partition]
                self._client.pause(TopicPartition(*partition))
                heard = time.monotonic()
            if time.monotonic() - heard > self._timeout_s:
                raise BrokerUnavailable(f"reading a range: no records within {self._timeout_s:g} s")

    def _begin(self, bounds: Bounds) -> dict[Partition, int]:
        """Assigns and seeks; the ends that are still to be reached, never beyond the end of the log."""
        partitions = [partition for partition, (start, end) in bounds.items() if start < end]
        if not partitions:
            return {}
        log_starts, log_ends = self._offsets(self._client.beginning_offsets, partitions), self._ends(partitions)
        starts = {partition: max(bounds[partition][0], log_starts[partition]) for partition in partitions}
        ends = {partition: min(bounds[partition][1], log_ends[partition]) for partition in partitions}
        ends = {partition: end for partition, end in ends.items() if starts[partition] < end}
        with translated("reading a range"):
            self._assign({partition: starts[partition] for partition in ends})
        return ends

    def _position(self, partition: Partition) -> int:
        with contextlib.suppress(kafka_errors.KafkaError):
            offset = self._client.position(TopicPartition(*partition), timeout_ms=0)
            return -1 if offset is None else int(offset)
        return -1

    @override
    def unreadable(self) -> Sequence[Unreadable]:
        return self._fetcher.take_unreadable()

    @override
    def latest(self, topic: str, count: int) -> Sequence[RawMessage]:
        starts, ends = self.start_offsets(topic), self.end_offsets(topic)
        shares = share_out(count, {partition: ends[partition] - starts[partition] for partition in ends})
        read: dict[Partition, list[RawMessage]] = {partition: [] for partition in ends}
        for batch in self.read({p: (ends[p] - share, ends[p]) for p, share in shares.items()}):
            read[Partition(batch[0].topic, batch[0].partition)].extend(batch)
        return list(heapq.merge(*read.values(), key=attrgetter("timestamp")))

    def _offsets(self, question: Callable[[list[Any]], Any], partitions: Sequence[Partition]) -> dict[Partition, int]:
        theirs = [TopicPartition(*partition) for partition in partitions]
        offsets = asked(lambda: question(theirs), self._timeout_s, "looking up offsets")
        return {Partition(*partition): int(offset) for partition, offset in offsets.items()}

    def _ends(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """The ends of the log, checked with a fetch: the embedded broker lists them short of its last batch."""
        ends = self._offsets(self._client.end_offsets, partitions)
        with translated("looking up offsets"):
            self._assign(ends)
            deadline = time.monotonic() + _CONFIRM_S
            while time.monotonic() < deadline:
                polled = self._client.poll(timeout_ms=_FETCH_WAIT_MS, max_records=_BATCH)
                for partition, records in polled.items():
                    ends[Partition(*partition)] = records[-1].offset + 1
                marks = {partition: self._client.highwater(TopicPartition(*partition)) for partition in ends}
                # Beyond the last stable offset there is nothing to read, and the high watermark says nothing.
                if None not in marks.values() and not polled:
                    break
        if self._read_committed:
            return ends
        return {partition: max(end, marks[partition] or 0) for partition, end in ends.items()}

    def _assign(self, positions: Offsets) -> None:
        self._client.assign([TopicPartition(*partition) for partition in positions])
        for partition, offset in positions.items():
            self._client.seek(TopicPartition(*partition), offset)
            self._client.resume(TopicPartition(*partition))

    @override
    def close(self, timeout_s: float) -> None:
        if not self._closed:
            self._closed = True
            quietly(lambda: self._client.close(autocommit=False), timeout_s, "closing a reader")


def share_out(count: int, available: Offsets) -> Offsets:
    """`count` records split over partitions as evenly as what they have allows.

    Each gets an equal share; what a partition can't give goes to those that have more, in equal parts again (max-min
    fairness: Bertsekas and Gallager, Data Networks, 2nd edition, 6.5.2). The shares add up to `count`, or to all there
    is; they differ by at most one between partitions that have more than their share.

    It counts offsets: on a compacted topic, or one with transactions, a share holds fewer records than it says. Of a
    busy partition it reaches back for a shorter time than of a quiet one: no fair sample where their traffic differs.

    count      how many, over all partitions
    available  how many each has

    >>> busy, quiet, other = (Partition("in", number) for number in range(3))
    >>> shares = share_out(10, {busy: 100, quiet: 2, other: 50})
    >>> shares[busy], shares[quiet], shares[other]
    (4, 2, 4)
    """
    shares: dict[Partition, int] = {}
    left = count
    # In ascending order: what one can't give is spread over all that follow.
    for position, partition in enumerate(sorted(available, key=lambda p: (available[p], p))):
        shares[partition] = min(available[partition], -(-left // (len(available) - position)))
        left -= shares[partition]
    return shares
