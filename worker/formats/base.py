"""What a record format is. A new one is a class and a line, in one file:

    class Pairs(Decoder):
        def parse(self, value): ...

    DECODERS.register("pairs", Pairs)

Whatever needs the fields of a record is given a decoder; nothing else knows how they stand in its bytes.
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
    """Turns the bytes of records into fields. Keeps nothing of a stream: one object serves any number of threads.

    Override `parse`. `parse_batch` only makes it faster, `encode` only lets a replay plant anomalies.

    max_record_bytes   a larger value is refused unread, as `too_large`; None = no value is too large
    """

    def __init__(self, max_record_bytes: int | None = None) -> None:
        self.max_record_bytes = max_record_bytes

    @abstractmethod
    def parse(self, value: bytes) -> Row:
        """The fields in these bytes; RecordError says why there are none. Any other exception stops the worker, and
        stops it again after a restart, for the record stays where it is.
        """

    def parse_batch(self, values: Sequence[bytes]) -> list[Row] | None:
        """The same rows as `parse`, for many values at once; None where `parse` has to go through them one by one."""
        del values
        return None

    def encode(self, row: Row) -> bytes:
        """Bytes from which `parse` reads these fields; UsageError where a format can only be read."""
        del row
        raise UsageError(f"{type(self).__name__} can't write records, so no anomalies can be planted in them")

    def decode(self, messages: Sequence[RawMessage]) -> Decoded:
        """Parse all values. Never raises for what a message contains: it becomes a dead letter, the others go on."""
        at_once = self._at_once([message.value for message in messages])
        if at_once is not None:
            return Decoded(list(messages), at_once, [], 0)
        kept, rows, rejects = list[RawMessage](), list[Row](), list[DeadLetter]()
        for message in messages:
            if message.value is None:
                continue
            try:
                rows.append(self.decode_one(message.value))
            except RecordError as error:
                rejects.append(DeadLetter(message, error.error_code, error.detail))
            else:
                kept.append(message)
        return Decoded(kept, rows, rejects, len(messages) - len(kept) - len(rejects))

    def decode_one(self, value: bytes) -> Row:
        """The fields in these bytes; RecordError says why there are none."""
        if self.max_record_bytes is not None and len(value) > self.max_record_bytes:
            raise RecordError(ErrorCode.TOO_LARGE, f"{len(value)} bytes, the limit is {self.max_record_bytes}")
        return self.parse(value)

    def rows(self, values: Sequence[bytes | None]) -> list[Row | None]:
        """The fields of each value, None where there are none: for labels and keys, which need no reason."""
        at_once = self._at_once(values)
        return [self._row_or_none(value) for value in values] if at_once is None else list[Row | None](at_once)

    def _row_or_none(self, value: bytes | None) -> Row | None:
        try:
            return None if value is None else self.decode_one(value)
        except RecordError:
            return None

    def _at_once(self, values: Sequence[bytes | None]) -> list[Row] | None:
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
