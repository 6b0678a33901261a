"""A range of a topic in one order that is the same on every run."""

import heapq
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from operator import attrgetter

from worker.broker.base import RangeReader
from worker.errors import UsageError
from worker.records import Partition, RawMessage
from worker.texts import parse_iso_time

_BLOCK = 8192
_WINDOW = 32_768


def parse_time(text: str) -> int:
    """ISO 8601 (UTC where it names no zone) or milliseconds since the epoch, as milliseconds; UsageError else."""
    if text.lstrip("-").isdigit() and len(text) > 8:
        return int(text)
    try:
        return parse_iso_time(text)
    except ValueError:
        raise UsageError(f"{text!r} is no time: 2026-03-01, 2026-03-01T12:00:00Z or milliseconds") from None


def find_bounds(
    reader: RangeReader, topic: str, from_ms: int | None, to_ms: int | None
) -> Mapping[Partition, tuple[int, int]]:
    """First offset and the one after the last, per partition, for from_ms <= broker timestamp < to_ms."""
    starts = reader.start_offsets(topic) if from_ms is None else reader.offsets_for_times(topic, from_ms)
    ends = reader.end_offsets(topic) if to_ms is None else reader.offsets_for_times(topic, to_ms)
    return {partition: (starts[partition], ends[partition]) for partition in sorted(ends)}


def read_range(reader: RangeReader, bounds: Mapping[Partition, tuple[int, int]]) -> Iterator[list[RawMessage]]:
    """The records of all partitions, merged by timestamp, then partition; offset order within a partition.

    Memory holds up to 32,768 records of each partition: only so is the order free of how fetches happen to arrive.
    """
    streams = [_partition(reader, partition, start, end) for partition, (start, end) in bounds.items()]
    merged = streams[0] if len(streams) == 1 else heapq.merge(*streams, key=attrgetter("timestamp"))
    while block := list(islice(merged, _BLOCK)):
        yield block


def _partition(reader: RangeReader, partition: Partition, start: int, end: int) -> Iterator[RawMessage]:
    for first in range(start, end, _WINDOW):
        # Read to its end at once: one reader serves all partitions, in turn.
        batches = list(reader.read({partition: (first, min(first + _WINDOW, end))}))
        yield from chain.from_iterable(batches)
