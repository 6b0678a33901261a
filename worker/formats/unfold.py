"""Records that wrap others in an array, such as {"Records": [...]}, read as those others."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Final

from typing_extensions import override

from worker.errors import ErrorCode, RecordError, SettingsError, UsageError
from worker.formats.base import Decoded, Decoder, Row, WrappingDecoder, type_name
from worker.records import DeadLetter, Message, RawMessage, UnreadableValue, member_of

MAX_UNFOLDED: Final = 10_000  # records in one
MAX_GROWTH: Final = 64  # bytes of all of them, to one of the record: what stands around the array comes along in each
FREE_BYTES: Final = 1 << 20  # to which they may grow whatever the record's size


class UnfoldingDecoder(WrappingDecoder):
    """What another decoder reads, with each member of an array as a record of its own.

    A member has what stands around the array as well, its own keys first. A record without the array is a record
    itself; one whose array is empty is skipped. What a member is read from is its own text, so that it can be published
    and kept without the others.

    decoder   reads the bytes
    path      of the array: `Records`, or through arrays to one in them, `resourceLogs[].scopeLogs[].logRecords`

    SettingsError where the format can't write a member.

    >>> from worker.formats.json_objects import JsonDecoder
    >>> decoder = UnfoldingDecoder(JsonDecoder(), "logs[].events")
    >>> decoder.members(b'{"host": "a", "logs": [{"n": 1, "events": [{"e": 1}, {"e": 2}]}, {"n": 2, "events": []}]}')
    [b'{"host":"a","n":1,"e":1}', b'{"host":"a","n":1,"e":2}']
    """

    unfolds: ClassVar[bool] = True

    def __init__(self, decoder: Decoder, path: str) -> None:
        super().__init__(decoder)
        self._path = path
        self._arrays = path.removesuffix("[]").split("[].")
        try:
            decoder.encode({})
        except UsageError as error:
            raise SettingsError(f"[input.unfold] = {path!r}: {error}") from error

    @override
    def decode(self, messages: Sequence[RawMessage]) -> Decoded:
        outer = self._decoder.decode(messages)
        unfolded = Decoded([], [], [*outer.rejects], outer.skipped)
        skipped = 0
        for message, row in zip(outer.messages, outer.rows, strict=True):
            if member_of(message) is not None or (members := self._members(row)) is None:
                unfolded.messages.append(message)
                unfolded.rows.append(row)
                continue
            skipped += not members
            try:
                values = self._encoded(members, message.value)
            except RecordError as error:
                unfolded.rejects.append(DeadLetter(message, error.error_code, error.detail))
                continue
            for member, (inner, value) in enumerate(zip(members, values, strict=True)):
                place = (message.topic, message.partition, message.offset, message.timestamp, message.key)
                part = Message(*place, value, message.headers, member)
                if isinstance(inner, dict):
                    unfolded.messages.append(part)
                    unfolded.rows.append(inner)
                else:
                    detail = f"member {member} of {self._path}: expected a JSON object, got {type_name(inner)}"
                    unfolded.rejects.append(DeadLetter(part, ErrorCode.NOT_AN_OBJECT, detail))
        return Decoded(unfolded.messages, unfolded.rows, unfolded.rejects, unfolded.skipped + skipped)

    @override
    def members(self, value: bytes | None) -> list[bytes] | None:
        """None also for what can't be read, or holds too many: `decode` says why."""
        if value is None or isinstance(value, UnreadableValue):
            return None
        (row,) = self._decoder.rows([value])
        members = None if row is None else self._members(row)
        try:
            return None if not members else self._encoded(members, value)
        except RecordError:
            return None

    def _members(self, row: Row) -> list[Any] | None:
        """The records in this one; None where it has no such array. One too many tells that there are too many."""
        if _array_at(row, self._arrays[0]) is None:
            return None
        return [member for member, _ in zip(_unfolded(row, self._arrays), range(MAX_UNFOLDED + 1), strict=False)]

    def _encoded(self, members: Sequence[Any], value: bytes | None) -> list[bytes]:
        if len(members) > MAX_UNFOLDED:
            raise RecordError(ErrorCode.TOO_LARGE, f"more than {MAX_UNFOLDED:,} records in {self._path}")
        room = FREE_BYTES + MAX_GROWTH * len(value or b"")
        values: list[bytes] = []
        for member in members:
            values.append(self._decoder.encode(member))
            room -= len(values[-1])
            if room < 0:
                grown = f"more than {MAX_GROWTH} times the record's bytes"
                raise RecordError(ErrorCode.TOO_LARGE, f"with what stands around it, {self._path} has {grown}")
        return values


def _unfolded(row: Row, arrays: Sequence[str]) -> Iterator[Any]:
    """The members of the last of these arrays, each within the one before it, with what stands around them."""
    array = _array_at(row, arrays[0])
    if array is None:
        yield row
        return
    around = _without(row, arrays[0])
    for member in array:
        if not isinstance(member, dict):
            yield member
        elif len(arrays) == 1:
            yield {**around, **member}
        else:
            yield from _unfolded({**around, **member}, arrays[1:])


def _array_at(row: Row, path: str) -> list[Any] | None:
    value: Any = row
    for key in [path] if path in row else path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, list) else None


def _without(row: Row, path: str) -> Row:
    """A copy without what stands at a path."""
    key, _, rest = (path, "", "") if path in row else path.partition(".")
    around = {name: value for name, value in row.items() if name != key}
    return {**around, key: _without(row[key], rest)} if rest else around
