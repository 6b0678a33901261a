"""What a record format is. A new one is a class and a line, in one file:

    class Pairs(Decoder):
        def parse(self, value): ...

    DECODERS.register("pairs", Pairs)

Whatever needs the fields of a record is given a decoder; nothing else knows how they stand in its bytes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self

from typing_extensions import override

from worker.errors import ErrorCode, RecordError, UsageError
from worker.formats.packed import MAX_RATIO, is_packed, unpacked
from worker.records import DeadLetter, Message, RawMessage, UnreadableValue
from worker.registry import Registry

VALUE_BYTES = 64  # of an object in memory, with its place in another one

Row = dict[str, Any]
"""The fields of one record: None, booleans, numbers, strings, lists and further rows by name, as JSON has them."""


class WriterSchema(NamedTuple):
    """A schema that a producer has registered; it never changes.

    sort         AVRO, PROTOBUF or JSON
    text         as it was registered
    references   the schemas that it imports, by the names it uses for them, each after those it needs itself
    """

    sort: str
    text: str
    references: Mapping[str, str]


class Schemas(Protocol):
    """Where the schemas of records are looked up, by the id that a record begins with. Used from any thread."""

    def schema(self, schema_id: int) -> WriterSchema:
        """The schema of an id; asked for once, and kept.

        May block for seconds. Raises RecordError where there is none, TransientError where there is no answer,
        SettingsError where the answer is a refusal.
        """


@dataclass(frozen=True, slots=True)
class FormatOptions:
    """What the settings say of how records are read; each format takes what concerns it.

    nan         of JSON: NaN and infinite numbers, which JSON has no words for, refuse their record, or are null
    columns     of delimited values: their names; none: a value's own first line has them, or they are numbered
    array       name of the array that a JSON value is read as which is one itself, or is several values one after the
                other; None: such a value is refused
    delimiter   of delimited values: what stands between two; None: whichever of , ; | and tab a value has more of
    schemas     where a registry's formats look schemas up; None: no registry is known
    """

    nan: Literal["refuse", "null"] = "refuse"
    array: str | None = None
    columns: tuple[str, ...] = ()
    delimiter: str | None = None
    schemas: Schemas | None = None


@dataclass(frozen=True, slots=True)
class Decoded:
    """A batch of messages, decoded. Each is in `messages`, in `rejects`, or counted in `skipped`, exactly once; of one
    that wraps others, each of those is, and a message of its own.

    messages   those that have fields, in input order
    rows       the fields of messages[i]
    rejects    dead letters, in input order
    skipped    number of tombstones
    """

    messages: list[RawMessage]
    rows: list[Row]
    rejects: list[DeadLetter]
    skipped: int

    @classmethod
    def of_rows(cls, rows: Iterable[Row]) -> Self:
        """Rows that come from no topic; their places are the offsets of their messages."""
        every = list(rows)
        return cls([Message("", 0, place, -1, None, b"") for place in range(len(every))], every, [], 0)


class Decoder(ABC):
    """Turns the bytes of records into fields. Keeps nothing of a stream: one object serves any number of threads.

    Override `parse`. `parse_batch` only makes it faster, `encode` only lets a replay plant anomalies, and
    masked records be published and kept. `configured` takes what the settings say of the format.

    Values that are packed with gzip or zstd are unpacked before `parse` sees them.

    max_record_bytes   a larger value is refused unread, as `too_large`; None = no value is too large
    """

    unfolds: ClassVar[bool] = False  # whether a value may wrap several records
    is_flat: ClassVar[bool] = False  # whether its fields are texts alone, which no envelope can wrap

    def __init__(self, max_record_bytes: int | None = None) -> None:
        self.max_record_bytes = max_record_bytes
        self._max_bytes = float("inf") if max_record_bytes is None else max_record_bytes

    def configured(self, options: FormatOptions) -> Self:
        """The decoder for these options; SettingsError where it can't do with them."""
        del options
        return self

    @abstractmethod
    def parse(self, value: bytes) -> Row:
        """The fields in these bytes; RecordError says why there are none. Any other exception stops the worker, and
        stops it again after a restart, for the record stays where it is.
        """

    def parse_batch(self, values: Sequence[bytes], size: int) -> list[Row] | None:
        """The same rows as `parse`, for many values at once, the largest of which has `size` bytes; None where `parse`
        has to go through them one by one.
        """
        del values, size
        return None

    def members(self, value: bytes | None) -> list[bytes] | None:
        """The values of the records that this one wraps, none of them empty; None where it is a record itself. Only
        asked where the decoder `unfolds`; `decode` does so by itself.
        """
        del value
        return None

    def encode(self, row: Row) -> bytes:
        """Bytes from which `parse` reads these fields; UsageError where a format can only be read."""
        del row
        raise UsageError(f"{type(self).__name__} can't write records, so no anomalies can be planted in them")

    def decode(self, messages: Sequence[RawMessage]) -> Decoded:
        """Parse all values. Never raises for what a message contains: it becomes a dead letter, the others go on."""
        values = [message.value for message in messages]
        rows = self._all_at_once(values)
        if rows is not None:
            return Decoded(list(messages), rows, [], 0)
        pairs = list(zip(messages, map(self._one, values), strict=True))
        return Decoded(
            [message for message, row in pairs if isinstance(row, dict)],
            [row for _, row in pairs if isinstance(row, dict)],
            [DeadLetter(message, e.error_code, e.detail) for message, e in pairs if isinstance(e, RecordError)],
            values.count(None),
        )

    def rows(self, values: Sequence[bytes | None]) -> Sequence[Row | None]:
        """The fields of each value, None where there are none: for labels and keys, which need no reason."""
        rows = self._all_at_once(values)
        return [row if isinstance(row, dict) else None for row in map(self._one, values)] if rows is None else rows

    # One bad record must not cost its neighbours anything, and nearly every batch has none. So all values are parsed in
    # C first; where that fails for whatever reason, the whole batch is read again, one by one, to learn which is bad.
    def _all_at_once(self, values: Sequence[bytes | None]) -> list[Row] | None:
        if UnreadableValue in (types := set(map(type, values))) or NoneType in types:
            return None
        size = max(map(len, values), default=0)  # type: ignore[arg-type]
        return self.parse_batch(values, size) if size <= self._max_bytes else None  # type: ignore[arg-type]

    def _one(self, value: bytes | None) -> Row | RecordError | None:
        if value is None:
            return None
        if isinstance(value, UnreadableValue):
            return RecordError(ErrorCode.UNREADABLE, value.detail)
        if len(value) > self._max_bytes:
            return RecordError(ErrorCode.TOO_LARGE, f"{len(value)} bytes, the limit is {self._max_bytes}")
        try:
            return self.parse(unpacked(value, self._max_bytes) if is_packed(value) else value)
        except RecordError as error:
            return error


class WrappingDecoder(Decoder):
    """What another decoder reads and writes. A base for what is done to its rows afterwards."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__(decoder.max_record_bytes)
        self._decoder = decoder

    @override
    def configured(self, options: FormatOptions) -> Self:
        self._decoder = self._decoder.configured(options)
        return self

    @override
    def parse(self, value: bytes) -> Row:
        return self._decoder.parse(value)

    @override
    def parse_batch(self, values: Sequence[bytes], size: int) -> list[Row] | None:
        return self._decoder.parse_batch(values, size)

    @override
    def encode(self, row: Row) -> bytes:
        return self._decoder.encode(row)


DECODERS: Registry[Callable[[int | None], Decoder]] = Registry("record format")
"""By the name in the settings: a function from max_record_bytes to a decoder, mostly the class itself."""


def decoded_bytes(value: bytes | None) -> int:
    """About how many bytes a record takes in memory once it is decoded, at the worst: in JSON, where each value has its
    comma or bracket. An array of empty arrays takes 20 times what it takes as text; a packed value, 64 times.
    """
    if value is None:
        return 0
    if is_packed(value):
        return len(value) * MAX_RATIO
    return len(value) + VALUE_BYTES * sum(map(value.count, (b",", b"[", b"{")))


def type_name(value: Any) -> str:
    """What a message calls the type of a field's value, with its article."""
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "an array"}
    return "null" if value is None else names.get(type(value), "an object")
