"""History from a topic: a range of time, or the newest records."""

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter

from typing_extensions import override

from worker.broker.base import RangeReader
from worker.errors import UsageError
from worker.records import Partition, RawMessage
from worker.sources.base import Block, Meter, Source, UnreadableItems
from worker.sources.history import History, OffsetRange
from worker.texts import parse_iso_time

BLOCK_RECORDS = 8192
MAX_BLOCK_BYTES = 16 << 20
WINDOW_RECORDS = 32_768
READ_WHOLE = 5  # times as many records as are to be spread: reading them all is no slower than jumping about
PIECES = 32  # of each partition
CLOSE_S = 5.0


def parse_time(text: str) -> int:
    """ISO 8601 (UTC where it names no zone) or milliseconds since the epoch, as milliseconds; UsageError otherwise."""
    if text.isascii() and text.removeprefix("-").isdigit() and len(text) > 8:
        return int(text)
    try:
        return parse_iso_time(text)
    except ValueError:
        raise UsageError(f"{text!r} is no time: 2026-03-01, 2026-03-01T12:00:00Z or milliseconds") from None


@dataclass
class TopicRange(Source):
    """The records of a topic with from_ms <= broker timestamp < to_ms, merged over its partitions; or its newest ones.

    topic         its name; several, or a pattern: as if they were one
    open_reader   connects to the broker when the first block is asked for; closed after the last one
    from_ms       milliseconds since the epoch; None: from the oldest record
    to_ms         milliseconds since the epoch; None: up to the records that are there when reading begins
    later_topic_ids   the topic's id for partitions whose group has read an earlier topic of this name; asked once
    newest        instead of a range: about so many of the newest records, as one block
    spread        of a range that is much longer: about so many records, in pieces that are spread over it
    window_bytes  of the records that are held of all partitions, about; each has at least one batch of its own
    """

    topic: str
    open_reader: Callable[[], RangeReader]
    from_ms: int | None = None
    to_ms: int | None = None
    newest: int | None = None
    spread: int | None = None
    window_bytes: int = 64 << 20
    later_topic_ids: Callable[[], Mapping[Partition, str]] = dict

    def __post_init__(self) -> None:
        self.topic_ids: Mapping[Partition, str] = {}
        self.partition_count = 0
        self.name = f"topic {self.topic}"
        self._first: dict[Partition, int] = {}
        self._last: dict[Partition, int] = {}
        self.meter, self.unreadable = Meter(total=self.newest or 0), UnreadableItems()

    @override
    def history(self) -> History:
        ranges = [OffsetRange(*part, self._first[part], last) for part, last in sorted(self._last.items())]
        return History(offsets=tuple(ranges))

    @override
    def blocks(self) -> Iterator[Block]:
        reader, topic, from_ms, to_ms = self.open_reader(), self.topic, self.from_ms, self.to_ms
        try:
            self.partition_count = len(reader.partitions(topic))
            self.topic_ids = self.later_topic_ids()
            if self.newest is not None:
                records: Iterator[Sequence[RawMessage]] = iter([reader.latest(topic, self.newest)])
            else:
                starts = reader.start_offsets(topic) if from_ms is None else reader.offsets_for_times(topic, from_ms)
                ends = reader.end_offsets(topic) if to_ms is None else reader.offsets_for_times(topic, to_ms)
                bounds = {partition: (starts[partition], ends[partition]) for partition in sorted(ends)}
                self.meter.total = sum(max(0, end - start) for start, end in bounds.values())
                if self.spread is not None and self.meter.total > READ_WHOLE * self.spread:
                    self.meter.total, records = self.spread, read_spread(reader, bounds, self.spread)
                else:
                    records = read_range(reader, bounds, self.window_bytes)
            for messages in records:
                self.meter.done += len(messages)
                places = [(Partition(message.topic, message.partition), message.offset) for message in messages]
                self._last.update(places)
                self._first = dict(reversed(places)) | self._first
                self._name_unreadable(reader)
                yield Block([message.value for message in messages], messages)
            self._name_unreadable(reader)
        finally:
            reader.close(CLOSE_S)

    def _name_unreadable(self, reader: RangeReader) -> None:
        for place in reader.unreadable():
            self.unreadable.add(place, place.records)


# Partitions are merged by timestamp. What has been fetched of each at any moment depends on the network, so the merge
# must never decide by it: it only compares the next record of each partition, and where none is at hand, it reads on
# until one is. Otherwise two replays of one topic could see two orders, and their thresholds and alerts would differ.
# It costs memory for a window of every partition; one reader serves all of them in turn.
def read_range(
    reader: RangeReader, bounds: Mapping[Partition, tuple[int, int]], window_bytes: int = 64 << 20
) -> Iterator[list[RawMessage]]:
    """The records of all partitions by timestamp, then partition; in offset order within a partition.

    Memory holds up to 32,768 records of each partition, and of all together about `window_bytes`.
    """
    share = window_bytes // max(1, len(bounds))

    def records(partition: Partition, start: int, end: int) -> Iterator[RawMessage]:
        while start < end:
            window, size = [], 0
            for batch in reader.read({partition: (start, min(start + WINDOW_RECORDS, end))}):
                window.append(batch)
                size += sum(len(message.value or b"") for message in batch)
                if size >= share:
                    start = batch[-1].offset + 1
                    break
            else:
                start += WINDOW_RECORDS
            yield from chain.from_iterable(window)

    streams = [records(partition, start, end) for partition, (start, end) in bounds.items()]
    merged = streams[0] if len(streams) == 1 else heapq.merge(*streams, key=attrgetter("timestamp"))
    block: list[RawMessage] = []
    size = 0
    for message in merged:
        block.append(message)
        size += len(message.value or b"")
        if len(block) == BLOCK_RECORDS or size >= MAX_BLOCK_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block


def read_spread(
    reader: RangeReader, bounds: Mapping[Partition, tuple[int, int]], count: int
) -> Iterator[Sequence[RawMessage]]:
    """About `count` records of all partitions, of a longer one more, in 32 pieces that are spread evenly over each from
    its first record to its last: a piece of every partition at a time, by timestamp.
    """
    total = sum(max(0, end - start) for start, end in bounds.values())
    for number in range(PIECES):
        piece: dict[Partition, tuple[int, int]] = {}
        for partition, (start, end) in bounds.items():
            length = max(0, end - start)
            size = min(length, -(-count * length // (total * PIECES)))
            first = start + (length - size) * number // (PIECES - 1)
            piece[partition] = (first, first + size)
        yield sorted(chain.from_iterable(reader.read(piece)), key=attrgetter("timestamp", "partition", "offset"))
