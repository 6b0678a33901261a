"""What a replay reads: records as lines in batches, in input order, each with its label.

A label is a short text: "" for a normal record, else the kind of anomaly; None where nothing is known.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import chain, count, repeat, starmap
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import orjson
from typing_extensions import override

from worker.errors import DataError
from worker.features.inject import inject
from worker.features.paths import value_of
from worker.features.schema import Schema
from worker.formats.base import Decoder, Row, decoded_bytes
from worker.formats.json_objects import JsonDecoder
from worker.records import Headers
from worker.sources.base import BATCH_BYTES, Block, pieces
from worker.texts import quoted

Label = str | None
NORMAL = ""
ANOMALY = "anomaly"  # the kind of those whose label names none
NO_TIMESTAMP = -1
MAX_LABEL = 200  # characters
# Anomalies are planted among this many records at once, whatever the size of batches: it would change which ones.
PLANT_RECORDS = 4096
PEEK_BYTES = 128 * 1024 * 1024  # as they stand in the input
FIT_BYTES = 384 * 1024 * 1024  # decoded

_NORMAL_WORDS = {"", "0", "0.0", "false", "no", "n", "f", "normal", "normal.", "benign", "ok", "none", "legit"}
_UNNAMED = dict.fromkeys(("1", "1.0", "true", "yes", "y", "t"), ANOMALY)


class Line(NamedTuple):
    """A RawMessage with what replay knows besides. The pipeline sees neither.

    row      0-based line or row, counted over the whole input
    label    "" for a normal record, else the kind of anomaly; None where it is unknown
    member   its place among the records that its line wraps, where that was unfolded
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
    member: int | None = None


Batches = Iterable[list[Line]]
_line_of: Callable[[Iterable[Any]], Line] = partial(tuple.__new__, Line)  # Line._make is Python code for each record


class Labels(Protocol):
    """Where labels come from.

    field   the field to look at; dots reach into nested objects
    """

    field: str

    def of(self, rows: Sequence[Row | None]) -> list[Label]:
        """The labels of parsed records; a row is None where the record has no fields."""


def read_label(value: Any) -> Label:
    """A label value as text: None for null, "" for 0, false, "normal", "benign" and the like, else the kind."""
    if value is None:
        return None
    word = str(value).strip()
    return NORMAL if word.lower() in _NORMAL_WORDS else _UNNAMED.get(word.lower(), word[:MAX_LABEL])


# A label has few values, and there is one in each record. They are kept whole, whatever field is taken for the label.
_read_known_label = lru_cache(maxsize=100)(read_label)


class FieldLabels(Labels):
    """Labels that stand in the records themselves. hidden: their kinds are not told apart, nor shown."""

    def __init__(self, field: str, *, hidden: bool = False) -> None:
        self.field = field
        self._hidden = hidden

    @override
    def of(self, rows: Sequence[Row | None]) -> list[Label]:
        values = _values_of(rows, self.field)
        if self._hidden:
            return [ANOMALY if (label := read_label(value)) else label for value in values]
        try:
            return list(map(_read_known_label, values))
        except TypeError:  # an array or an object: no label, but readable as one
            return list(map(read_label, values))


class IdLabels(Labels):
    """Labels from a file: the ids of all anomalies, one a line, each with its kind after a comma where it has one.

    A record whose id isn't listed is normal; one without an id is unknown. DataError where the file lists no ids.
    """

    def __init__(self, path: str, field: str) -> None:
        self.field = field
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read as a list of ids: {error}") from error
        entries = [line.partition(",") for line in text.splitlines()]
        self._kinds = {name.strip(): kind.strip() or ANOMALY for name, _, kind in entries if name.strip()}
        if not self._kinds:
            raise DataError(f"{path}: lists no ids")

    @override
    def of(self, rows: Sequence[Row | None]) -> list[Label]:
        values = _values_of(rows, self.field)
        return [None if value is None else self._kinds.get(str(value), NORMAL) for value in values]


def _values_of(rows: Sequence[Row | None], field: str) -> list[Any]:
    """The values of a field that may be dotted; None where there is none."""
    try:
        return [row[field] for row in rows]  # type: ignore[index]  # None and a missing key go the slow way
    except (KeyError, TypeError):
        return [None if row is None else value_of(row, field) for row in rows]


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
    max_bytes    decoded bytes of a batch; a record that is larger is one of its own
    decoder      reads the fields of key and label; of any size, for a record that is too large has a label, too
    unfolding    takes records apart that wrap others, as the pipeline would; None: there are none
    """

    topic: str = "replay"
    partitions: int = 1
    key_field: str | None = None
    labels: Labels | None = None
    batch_size: int = 8192
    max_bytes: int = BATCH_BYTES
    decoder: Decoder = JsonDecoder()  # noqa: RUF009  immutable
    unfolding: Decoder | None = None
    blank_lines: int = field(default=0, init=False)
    _next_row: int = field(default=0, init=False)
    _next_offsets: Counter[int] = field(default_factory=Counter, init=False)

    def batches(self, blocks: Iterable[Block]) -> Iterator[list[Line]]:
        """All records, in order. A DataError of the source comes after all that was read before it."""
        return rebatch(map(self._lines, blocks), self.batch_size, self.max_bytes)

    def _lines(self, block: Block) -> list[Line]:
        lines = self._whole_lines(block)
        if self.unfolding is None:
            return lines
        parts = [part for line in lines for part in _members_of(line, self.unfolding)]
        if self.labels is None:
            return parts
        labels = self.labels.of(self.decoder.rows([line.value for line in parts]))
        return [line._replace(label=label) for line, label in zip(parts, labels, strict=True)]

    def _whole_lines(self, block: Block) -> list[Line]:
        values = block.values
        rows: Sequence[int] = range(self._next_row, self._next_row + len(values))
        self._next_row += len(values)
        if block.messages is None and not any(values):  # blank lines by the million, say: nothing is made of them
            self.blank_lines += len(values) - values.count(None)
            return []
        if block.messages is None and (b"" in values or None in values):
            kept = [(row, value) for row, value in zip(rows, values, strict=True) if value and value.strip()]
            self.blank_lines += len(values) - len(kept) - values.count(None)
            rows, values = [row for row, _ in kept], [value for _, value in kept]
        # The pipeline parses every record once more: here they are parsed only where a label or a key is asked for.
        parsed = self.decoder.rows(values) if self.labels is not None or self.key_field is not None else []
        labels: Iterable[Label] = repeat(None) if self.labels is None else self.labels.of(parsed)
        if block.messages is not None:
            return [
                Line(raw.topic, raw.partition, raw.offset, raw.timestamp, raw.key, raw.value, raw.headers, row, label)
                for row, raw, label in zip(rows, block.messages, labels, strict=False)
            ]
        keys: list[bytes | None] = [None] * len(values)
        if self.key_field is not None:
            # Text is its UTF-8, null is no key, anything else its JSON: what a producer of JSON records would send.
            keys = [
                value.encode() if isinstance(value, str) else None if value is None else orjson.dumps(value)
                for value in _values_of(parsed, self.key_field)
            ]
        following = self._next_offsets
        partitions: Iterable[int] = repeat(0)
        offsets: Iterable[int] = range(following[0], following[0] + len(values))
        if self.partitions == 1:
            following[0] += len(values)
        else:
            partitions, offsets, turn = [], [], count(following.total())
            for key in keys:
                partition = partition_of(key, self.partitions) if key is not None else next(turn) % self.partitions
                partitions.append(partition)
                offsets.append(following[partition])
                following[partition] += 1
        topics, times, headers = repeat(self.topic), repeat(NO_TIMESTAMP), repeat(())
        columns = zip(topics, partitions, offsets, times, keys, values, headers, rows, labels, repeat(None))
        return list(map(_line_of, columns))


def _members_of(line: Line, decoder: Decoder) -> list[Line]:
    values = decoder.members(line.value)
    if values is None:
        return [line]
    return [line._replace(value=value, member=member) for member, value in enumerate(values)]


@lru_cache(maxsize=1 << 16)
def partition_of(key: bytes, partitions: int) -> int:
    """The partition that Kafka's default partitioner gives a record with a key: murmur2, sign bit off, modulo.

    Tells nothing where the producer had a partitioner of its own, or where the topic has got more partitions since.
    librdkafka's default is another hash (CRC32); there it needs `partitioner=murmur2_random`.

        key          the record's key; a record without one goes where its producer likes
        partitions   partitions of the topic, at least 1
        result       from 0 to partitions - 1

    >>> partition_of(b"21", 10)
    0
    """
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """MurmurHash2 (Appleby, 2008), 32 bits, unsigned, with the seed of `org.apache.kafka.common.utils.Utils.murmur2`.

    >>> murmur2(b"foobar") - (1 << 32)  # Java's int is signed
    -790332482
    """
    mask, mix = 0xFFFFFFFF, 0x5BD1E995
    body = len(data) & ~3
    mixed = (0x9747B28C ^ len(data)) & mask
    for start in range(0, body, 4):
        word = int.from_bytes(data[start : start + 4], "little") * mix & mask
        word = (word ^ word >> 24) * mix & mask
        mixed = (mixed * mix & mask) ^ word
    if body < len(data):
        mixed = (mixed ^ int.from_bytes(data[body:], "little")) * mix & mask
    mixed = (mixed ^ mixed >> 13) * mix & mask
    return mixed ^ mixed >> 15


def rebatch(blocks: Batches, size: int, max_bytes: int = BATCH_BYTES) -> Iterator[list[Line]]:
    """The same lines in batches of `size`, fewer where they would take more than `max_bytes` when they are decoded, and
    in the last one. A DataError comes after all that came before it.
    """
    pending: list[Line] = []
    held = 0
    try:
        for piece, weight in chain.from_iterable(pieces(block, max_bytes) for block in blocks):
            if pending and held + weight > max_bytes:
                yield pending
                pending, held = [], 0
            pending.extend(piece)
            held += weight
            while len(pending) >= size:
                yield pending[:size]
                pending = pending[size:]
                held = held * len(pending) // (size + len(pending))
    except DataError:
        if pending:
            yield pending
        raise
    if pending:
        yield pending


def peek(batches: Batches, count: int, max_bytes: int = PEEK_BYTES) -> tuple[list[Line], Batches]:
    """About the first `count` lines (whole batches, fewer where they have more bytes or the input ends), and all
    batches from the start.

    An input that breaks off meanwhile raises its error where it belongs: after what came before it, at once where that
    is nothing.
    """
    source, head = iter(batches), list[list[Line]]()
    fault: DataError | None = None
    held = 0
    try:
        while sum(map(len, head)) < count and held < max_bytes and (batch := next(source, None)) is not None:
            head.append(batch)
            held += sum(len(line.value or b"") for line in batch)
    except DataError as error:
        if not head:
            raise
        fault = error

    def rest() -> Iterator[list[Line]]:
        while head:  # what was replayed is not kept
            yield head.pop(0)
        if fault is not None:
            raise fault
        yield from source

    return list(chain.from_iterable(head)), rest()


def check_labels(labels: Labels, head: Sequence[Line], decoder: Decoder) -> None:
    """DataError where none of the first lines has a label: the field's name is wrong, and so would be the report."""
    if not head or any(line.label is not None for line in head):
        return
    rows = (row for line in head for row in decoder.rows([line.value]))
    names = ", ".join(next((row for row in rows if row is not None), {}))
    raise DataError(
        f"the field {quoted(labels.field)!r} is in none of the first {len(head)} records; "
        f"their fields are {quoted(names, 2000)}"
    )


class FitSplit(NamedTuple):
    """The first records of an input to fit on, how many of them took too much memory, and everything after them."""

    usable: list[Line]
    left_out: int
    rest: Iterator[list[Line]]


def split_for_fit(batches: Batches, count: int, *, normal_only: bool, max_bytes: int = FIT_BYTES) -> FitSplit:
    """The first `count` records to fit on, and everything after them, in order.

    normal_only: those of them that are labelled anomalous are left out of the fit. They aren't replayed either, so that
    the replay has no gaps. DataError where the input has no more than `count` records.

    max_bytes: what the records may take when they are decoded; those after that are left out of the fit as well.
    """
    source, usable, left_out, taken, held = iter(batches), list[Line](), 0, 0, 0
    batch: list[Line] = []
    while taken <= count:
        following = next(source, None)
        if following is None:
            raise DataError(f"the input has {taken} records: nothing is left to replay after fitting on {count}")
        batch = following
        for line in batch[: count - taken]:
            if normal_only and line.label not in {None, NORMAL}:
                continue
            held += decoded_bytes(line.value)
            if held <= max_bytes:
                usable.append(line)
            else:
                left_out += 1
        taken += len(batch)
    return FitSplit(usable, left_out, chain([batch[len(batch) - (taken - count) :]], source))


def plant_into(
    batches: Batches,
    schema: Schema,
    *,
    share: float,
    seed: int,
    batch_size: int,
    max_bytes: int = BATCH_BYTES,
    decoder: Decoder = JsonDecoder(),  # noqa: B008  immutable
) -> Iterator[list[Line]]:
    """The same records with about `share` of them made anomalous, and labelled with what was done to them.

    Answers, without labels, whether the model would notice. A record that was not touched and has no label of its own
    counts as normal. Records without fields, and blocks where nothing can be planted, stay as they are.
    """

    def planted(block: int, lines: list[Line]) -> list[Line]:
        lines = [line._replace(label=NORMAL) if line.label is None else line for line in lines]
        parsed = [(at, row) for at, row in enumerate(decoder.rows([line.value for line in lines])) if row is not None]
        if round(len(parsed) * share) < 1:
            return lines
        try:
            # A prime apart: the blocks of one seed don't repeat those of the next one.
            rows, truth = inject([row for _, row in parsed], schema, share=share, seed=seed * 1_000_003 + block)
        except DataError:
            return lines
        for change in truth:
            at = parsed[change.index][0]
            lines[at] = lines[at]._replace(value=decoder.encode(rows[change.index]), label=change.kind)
        return lines

    return rebatch(starmap(planted, enumerate(rebatch(batches, PLANT_RECORDS))), batch_size, max_bytes)
