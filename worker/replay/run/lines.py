"""Records of files or topics as batches of messages, in input order, as the live worker would get them."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import count, islice, repeat
from typing import Any, NamedTuple

import orjson

from worker.errors import DataError
from worker.formats.base import Decoder
from worker.formats.json_objects import JsonDecoder
from worker.records import Headers, RawMessage
from worker.replay.run.labels import Label, Labels, pick
from worker.sources.partitioner import partition_of

NO_TIMESTAMP = -1


class Line(NamedTuple):
    """A RawMessage with what replay knows besides: its place in the input and its label. The pipeline sees neither.

    row: 0-based line or row, counted over all inputs. label: "" normal, else the kind of anomaly, None unknown.
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


class Reader:
    """Makes messages of values: keys, simulated partitions, offsets, labels.

    Without `key_field` messages have no key. With several partitions a record goes where Kafka's default partitioner
    puts its key; records without a key go round. Offsets count from 0 in each partition, as in a new topic.
    """

    def __init__(
        self,
        *,
        topic: str = "replay",
        partitions: int = 1,
        key_field: str | None = None,
        labels: Labels | None = None,
        batch_size: int = 8192,
        decoder: Decoder = JsonDecoder(),  # noqa: B008  # immutable
    ) -> None:
        self.records = 0
        self.blank_lines = 0
        self._topic = topic
        self._partitions = partitions
        self._key_field = key_field
        self._labels = labels
        self._batch_size = batch_size
        self._decoder = decoder
        self._index = 0
        self._next_offsets = [0] * partitions

    def from_values(self, blocks: Iterable[list[bytes]]) -> Iterator[list[Line]]:
        """Batches of the values of files. A DataError of the input comes after all that was read before it."""
        return rebatch((self._block(block) for block in blocks), self._batch_size)

    def from_messages(self, blocks: Iterable[Iterable[RawMessage]]) -> Iterator[list[Line]]:
        """Batches of the messages of a topic, which keep their partitions, offsets, keys and timestamps."""
        return rebatch((self._wrap(block) for block in blocks), self._batch_size)

    def _block(self, values: list[bytes]) -> list[Line]:
        indices: Iterable[int] = range(self._index, self._index + len(values))
        self._index += len(values)
        if b"" in values:
            places = [(index, value) for index, value in zip(indices, values, strict=True) if value.strip()]
            self.blank_lines += len(values) - len(places)
            indices, values = [index for index, _ in places], [value for _, value in places]
        self.records += len(values)
        keys, labels = self._look_inside(values)
        partitions, offsets = self._place(keys, len(values))
        topics, times, headers = repeat(self._topic), repeat(NO_TIMESTAMP), repeat(())
        columns = zip(topics, partitions, offsets, times, keys, values, headers, indices, labels)  # noqa: B905  repeat() has no end
        return list(map(_line_of, columns))

    def _look_inside(self, values: list[bytes]) -> tuple[Iterable[bytes | None], Iterable[Label]]:
        if self._labels is None and self._key_field is None:
            return repeat(None), repeat(None)
        rows, key_field = self._decoder.rows(values), self._key_field
        labels: Iterable[Label] = repeat(None) if self._labels is None else self._labels.of(rows)
        keys: Iterable[bytes | None] = repeat(None)
        if key_field is not None:
            keys = [key_bytes(pick(row, key_field)) for row in rows]
        return keys, labels

    def _place(self, keys: Iterable[bytes | None], size: int) -> tuple[Iterable[int], Iterable[int]]:
        following = self._next_offsets
        if self._partitions == 1:
            first = following[0]
            following[0] += size
            return repeat(0), range(first, first + size)
        places, offsets = [], []
        turn = count(sum(following))
        for key in islice(keys, size):
            place = partition_of(key, self._partitions) if key is not None else next(turn) % self._partitions
            places.append(place)
            offsets.append(following[place])
            following[place] += 1
        return places, offsets

    def _wrap(self, block: Iterable[RawMessage]) -> list[Line]:
        messages = list(block)
        labels: Iterable[Label] = repeat(None)
        if self._labels is not None:
            labels = self._labels.of(self._decoder.rows([raw.value for raw in messages]))
        lines = [
            Line(raw.topic, raw.partition, raw.offset, raw.timestamp, raw.key, raw.value, raw.headers, row, label)
            for row, raw, label in zip(count(self._index), messages, labels, strict=False)
        ]
        self._index += len(lines)
        self.records += len(lines)
        return lines


def rebatch(blocks: Iterable[list[Line]], size: int) -> Iterator[list[Line]]:
    """The same lines in batches of `size`, the last one smaller. A DataError comes after all that came before it."""
    source, pending = iter(blocks), list[Line]()
    fault: DataError | None = None
    while fault is None:
        try:
            pending += next(source)
        except StopIteration:
            break
        except DataError as error:
            fault = error
        while len(pending) >= size:
            yield pending[:size]
            pending = pending[size:]
    if pending:
        yield pending
    if fault is not None:
        raise fault


def key_bytes(value: object) -> bytes | None:
    """A key field's value as Kafka key: text as UTF-8, null as no key, anything else as its JSON."""
    if value is None:
        return None
    return value.encode() if isinstance(value, str) else orjson.dumps(value)
