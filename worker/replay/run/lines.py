"""Records of a source as batches of messages, in input order, as the live worker would get them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, count, islice, repeat
from typing import Any, NamedTuple

import orjson

from worker.errors import DataError
from worker.formats.base import Decoder
from worker.formats.json_objects import JsonDecoder
from worker.records import Headers
from worker.replay.run.labels import Label, Labels, values_of
from worker.sources.base import Block
from worker.sources.partitioner import partition_of

NO_TIMESTAMP = -1


class Line(NamedTuple):
    """A RawMessage with what replay knows besides. The pipeline sees neither.

    row     0-based line or row, counted over the whole input
    label   "" for a normal record, else the kind of anomaly; None where it is unknown
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    row: int
    label: Label


_line_of: Callable[[Iterable[Any]], Line] = partial(tuple.__new__, Line)  # Line._make is Python code for each record


@dataclass(slots=True, kw_only=True)
class Reader:
    """Makes batches of lines of a source's blocks.

    Records of a topic keep their partitions, offsets, keys and timestamps. Records of files get what a new topic would
    give them: with several partitions each goes where Kafka's default partitioner puts its key, those without a key go
    round, and offsets count from 0 in each partition.

    topic        name of the topic that records of files seem to come from
    partitions   number of its partitions
    key_field    field with the key of such records; None: they have none
    labels       where labels come from; None: nothing is known of any record
    batch_size   lines of a batch
    decoder      reads the fields of key and label; of any size, for a record that is too large has a label, too
    """

    topic: str = "replay"
    partitions: int = 1
    key_field: str | None = None
    labels: Labels | None = None
    batch_size: int = 8192
    decoder: Decoder = JsonDecoder()  # noqa: RUF009  immutable
    blank_lines: int = field(default=0, init=False)
    _next_row: int = field(default=0, init=False)
    _next_offsets: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._next_offsets = [0] * self.partitions

    def batches(self, blocks: Iterable[Block]) -> Iterator[list[Line]]:
        """All records, in order. A DataError of the source comes after all that was read before it."""
        return rebatch(map(self._lines, blocks), self.batch_size)

    def _lines(self, block: Block) -> list[Line]:
        rows: Iterable[int] = range(self._next_row, self._next_row + len(block.values))
        self._next_row += len(block.values)
        if block.messages is not None:
            _, labels = self._keys_and_labels(block.values)
            return [
                Line(raw.topic, raw.partition, raw.offset, raw.timestamp, raw.key, raw.value, raw.headers, row, label)
                for row, raw, label in zip(rows, block.messages, labels, strict=False)
            ]
        values = block.values
        if b"" in values:
            kept = [(row, value) for row, value in zip(rows, values, strict=True) if value and value.strip()]
            self.blank_lines += len(values) - len(kept)
            rows, values = [row for row, _ in kept], [value for _, value in kept]
        keys, labels = self._keys_and_labels(values)
        partitions, offsets = self._positions(keys, len(values))
        topics, times, headers = repeat(self.topic), repeat(NO_TIMESTAMP), repeat(())
        columns = zip(topics, partitions, offsets, times, keys, values, headers, rows, labels)  # noqa: B905  repeat() has no end
        return list(map(_line_of, columns))

    def _keys_and_labels(self, values: Sequence[bytes | None]) -> tuple[Iterable[bytes | None], Iterable[Label]]:
        keys: Iterable[bytes | None] = repeat(None)
        labels: Iterable[Label] = repeat(None)
        if self.labels is not None or self.key_field is not None:
            rows = self.decoder.rows(values)
            if self.labels is not None:
                labels = self.labels.of(rows)
            if self.key_field is not None:
                keys = list(map(_key_bytes, values_of(rows, self.key_field)))
        return keys, labels

    def _positions(self, keys: Iterable[bytes | None], size: int) -> tuple[Iterable[int], Iterable[int]]:
        """Partitions and offsets of records with these keys."""
        following = self._next_offsets
        if self.partitions == 1:
            first = following[0]
            following[0] += size
            return repeat(0), range(first, first + size)
        partitions, offsets = [], []
        turn = count(sum(following))
        for key in islice(keys, size):
            partition = partition_of(key, self.partitions) if key is not None else next(turn) % self.partitions
            partitions.append(partition)
            offsets.append(following[partition])
            following[partition] += 1
        return partitions, offsets


def _key_bytes(value: object) -> bytes | None:
    """A key field's value as Kafka key: text as UTF-8, null as no key, anything else as its JSON."""
    if value is None:
        return None
    return value.encode() if isinstance(value, str) else orjson.dumps(value)


def rebatch(blocks: Iterable[list[Line]], size: int) -> Iterator[list[Line]]:
    """The same lines in batches of `size`, the last one smaller. A DataError comes after all that came before it."""
    pending: list[Line] = []
    try:
        for block in blocks:
            pending += block
            while len(pending) >= size:
                yield pending[:size]
                pending = pending[size:]
    except DataError:
        if pending:
            yield pending
        raise
    if pending:
        yield pending


def peek(batches: Iterable[list[Line]], count: int) -> tuple[list[Line], Iterator[list[Line]]]:
    """About the first `count` lines (whole batches, fewer where the input ends), and all batches from the start.

    An input that breaks off meanwhile raises its error where it belongs: after what came before it.
    """
    source, head = iter(batches), list[list[Line]]()
    fault: DataError | None = None
    try:
        while sum(map(len, head)) < count and (batch := next(source, None)) is not None:
            head.append(batch)
    except DataError as error:
        fault = error

    def rest() -> Iterator[list[Line]]:
        yield from head
        if fault is not None:
            raise fault
        yield from source

    return list(chain.from_iterable(head)), rest()


def check_labels(labels: Labels, head: Sequence[Line], decoder: Decoder) -> None:
    """DataError where none of the first lines has a label: the field's name is wrong, and so would be the report."""
    if not head or any(line.label is not None for line in head):
        return
    row = next((row for row in decoder.rows([line.value for line in head]) if row is not None), {})
    raise DataError(
        f"the field {labels.field!r} is in none of the first {len(head)} records; their fields are {', '.join(row)}"
    )
