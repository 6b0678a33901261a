"""A range of a topic in one order that is the same on every run."""

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import islice
from operator import attrgetter

from worker.broker.base import RangeReader
from worker.errors import UsageError
from worker.records import Partition, RawMessage

_BLOCK = 8192


def parse_time(text: str) -> int:
    """ISO 8601 (UTC where it names no zone) or milliseconds since the epoch, as milliseconds; UsageError else."""
    if text.lstrip("-").isdigit() and len(text) > 8:
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is no time: 2026-03-01, 2026-03-01T12:00:00Z or milliseconds") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)


def find_bounds(
    reader: RangeReader, topic: str, from_ms: int | None, to_ms: int | None
) -> Mapping[Partition, tuple[int, int]]:
    """First offset and the one after the last, per partition, for from_ms <= broker timestamp < to_ms."""
    starts = reader.start_offsets(topic) if from_ms is None else reader.offsets_for_times(topic, from_ms)
    ends = reader.end_offsets(topic) if to_ms is None else reader.offsets_for_times(topic, to_ms)
    return {partition: (starts[partition], ends[partition]) for partition in sorted(ends)}


def read_range(
    open_reader: Callable[[], RangeReader], bounds: Mapping[Partition, tuple[int, int]]
) -> Iterator[list[RawMessage]]:
    """The records of all partitions, merged by timestamp, then partition; offset order within a partition.

    Opens a reader for each partition: only so is the order free of how fetches happened to arrive.
    """
    with ExitStack() as stack:
        streams = []
        for partition, (start, end) in bounds.items():
            if start < end:
                reader = open_reader()
                stack.callback(reader.close, 5.0)
                streams.append(_flat(reader.read({partition: (start, end)})))
        merged = streams[0] if len(streams) == 1 else heapq.merge(*streams, key=attrgetter("timestamp"))
        while block := list(islice(merged, _BLOCK)):
            yield block


def _flat(batches: Iterable[Iterable[RawMessage]]) -> Iterator[RawMessage]:
    for batch in batches:
        yield from batch
