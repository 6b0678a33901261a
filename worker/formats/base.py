"""What a record format is, and what a batch of decoded records looks like.

A new format is one class and one line:

    class Pairs(Decoder):
        def parse(self, value: bytes) -> Row: ...

    DECODERS.register("pairs", Pairs)

Whatever needs the fields of a record is given a decoder. Nothing else knows how they stand in its bytes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from worker.errors import ErrorCode, RecordError, UsageError
from worker.records import DeadLetter, RawMessage
from worker.registry import Registry

Row = dict[str, Any]
"""The fields of one record: None, booleans, numbers, strings, lists and further rows by name, as JSON has them."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A batch of messages, decoded. Each is in `messages`, in `rejects`, or counted in `skipped`, exactly once.

    messages   those that have fields, in input order
    rows       the fields of messages[i]
    rejects    dead letters, in input order
    skipped    number of tombstones
    """

    messages: list[RawMessage]
    rows: list[Row]
    rejects: list[DeadLetter]
    skipped: int


class Decoder(ABC):
    """Turns the bytes of records into fields. Holds no state of a stream: one object serves any number of threads.

    Override `parse`. `parse_batch` only makes it faster, and `encode` only lets a replay plant anomalies.

    max_record_bytes   a larger value is refused unread, as `too_large`; None = no value is too large
    """

    def __init__(self, max_record_bytes: int | None = None) -> None:
        self.max_record_bytes = max_record_bytes

    @abstractmethod
    def parse(self, value: bytes) -> Row:
        """The fields in these bytes, which are not too large; RecordError says why there are none.

        Any other exception stops the worker, and stops it again after a restart: the record stays where it is.
        """

    def parse_batch(self, values: Sequence[bytes]) -> list[Row] | None:
        """The fields of each value, or None where `parse` has to go through them one by one.

        The rows must equal those of `parse`. Called with values none of which is too large or missing.
        """
        del values
        return None

    def encode(self, row: Row) -> bytes:
        """Bytes with these fields, which `parse` reads back. UsageError where a format can only be read."""
        del row
        raise UsageError(f"{type(self).__name__} can't write records, so no anomalies can be planted in them")

    def decode(self, messages: Sequence[RawMessage]) -> Decoded:
        """Parse all values. Never raises for what a message contains: a record without fields becomes a dead letter
        and its neighbours go on.
        """
        rows = self._parse_at_once([message.value for message in messages])
        if rows is not None:
            return Decoded(list(messages), rows, [], 0)
        kept, rows, rejects, skipped = list[RawMessage](), list[Row](), list[DeadLetter](), 0
        for message in messages:
            if message.value is None:
                skipped += 1
                continue
            try:
                row = self.decode_one(message.value)
            except RecordError as error:
                rejects.append(DeadLetter(message, error.error_code, error.detail))
            else:
                kept.append(message)
                rows.append(row)
        return Decoded(kept, rows, rejects, skipped)

    def decode_one(self, value: bytes) -> Row:
        """The fields in these bytes; RecordError says why there are none."""
        if self.max_record_bytes is not None and len(value) > self.max_record_bytes:
            raise RecordError(ErrorCode.TOO_LARGE, f"{len(value)} bytes, the limit is {self.max_record_bytes}")
        return self.parse(value)

    def rows(self, values: Sequence[bytes | None]) -> list[Row | None]:
        """The fields of each value, None where there are none: for labels and keys, which need no reason."""
        parsed = self._parse_at_once(values)
        return [self._row_or_none(value) for value in values] if parsed is None else list[Row | None](parsed)

    def _row_or_none(self, value: bytes | None) -> Row | None:
        try:
            return None if value is None else self.decode_one(value)
        except RecordError:
            return None

    def _parse_at_once(self, values: Sequence[bytes | None]) -> list[Row] | None:
        try:
            size = max(map(len, values), default=0)  # type: ignore[arg-type]
        except TypeError:  # a tombstone
            return None
        if self.max_record_bytes is not None and size > self.max_record_bytes:
            return None
        return self.parse_batch(values)  # type: ignore[arg-type]


DECODERS: Registry[Callable[[int | None], Decoder]] = Registry("record format")
"""By the name in the settings: a function from max_record_bytes to a decoder, mostly the class itself."""


def type_name(value: Any) -> str:
    """What a message calls the type of a field's value, with its article."""
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "an array"}
    return "null" if value is None else names.get(type(value), "an object")
