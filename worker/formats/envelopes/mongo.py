"""MongoDB's extended JSON, canonical and relaxed: `{"$numberDecimal": "12.5"}` and its like become plain values."""

from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from typing_extensions import override

from worker.formats.base import Row
from worker.formats.envelopes.base import Envelope
from worker.formats.plain_values import plain_number, time_reader

_MILLISECONDS = time_reader(1_000)
_SECONDS = time_reader(1)


class ExtendedJson(Envelope):
    """Numbers, ids, times and bytes, wherever they stand; an infinite number and NaN are null."""

    names: tuple[str, ...] = ()
    mark = b"$"

    @override
    def open(self, row: Row) -> Row:
        return {key: _plain(value) for key, value in row.items()}


def _plain(value: Any) -> Any:
    # A row is no deeper than 200 levels.
    if isinstance(value, dict):
        if len(value) <= 2 and (key := next(iter(value), "")) in _READERS and key in value:
            return _READERS[key](value[key])
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _number(value: Any) -> Any:
    try:
        return plain_number(Decimal(value)) if isinstance(value, str) and len(value) <= 64 else value
    except InvalidOperation:
        return value


def _whole(value: Any) -> Any:
    try:
        number = int(value) if isinstance(value, str) and len(value) <= 20 else value
    except ValueError:
        return value
    return number if not isinstance(number, int) or -(1 << 63) <= number < 1 << 63 else value


def _date(value: Any) -> Any:
    number = _plain(value)
    return number if isinstance(number, str) else _MILLISECONDS(number)


def _timestamp(value: Any) -> Any:
    return _SECONDS(value.get("t")) if isinstance(value, dict) else value


def _binary(value: Any) -> Any:
    return value.get("base64") if isinstance(value, dict) else value


def _pattern(value: Any) -> Any:
    return value.get("pattern") if isinstance(value, dict) else value


_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "$numberInt": _whole,
    "$numberLong": _whole,
    "$numberDouble": _number,
    "$numberDecimal": _number,
    "$oid": lambda value: value,
    "$uuid": lambda value: value,
    "$symbol": lambda value: value,
    "$code": lambda value: value,
    "$date": _date,
    "$timestamp": _timestamp,
    "$binary": _binary,
    "$regularExpression": _pattern,
    "$undefined": lambda _: None,
    "$minKey": lambda _: None,
    "$maxKey": lambda _: None,
}
