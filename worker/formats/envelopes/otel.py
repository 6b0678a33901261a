"""OpenTelemetry's JSON: typed values, and lists of keys and values, as plain fields.

`"attributes": [{"key": "http.status", "value": {"intValue": "200"}}]` becomes `"attributes": {"http.status": 200}`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from typing_extensions import override

from worker.formats.base import Row
from worker.formats.envelopes.base import Envelope

_PAIR: Final = frozenset({"key", "value"})


class TypedValues(Envelope):
    """Lists of keys with typed values, and typed values, wherever they stand, with names as JSON or Protobuf has them.

    Of a key that comes twice the last one counts.
    """

    names: tuple[str, ...] = ()
    mark = b'Value"'

    @override
    def open(self, row: Row) -> Row:
        return {key: _plain(value) for key, value in row.items()}


def _plain(value: Any) -> Any:
    # A row is no deeper than 200 levels.
    if isinstance(value, dict):
        if len(value) == 1 and (key := next(iter(value))) in _READERS:
            return _READERS[key](value[key])
        return {key: _plain(item) for key, item in value.items()}
    if not isinstance(value, list):
        return value
    if value and all(map(_is_pair, value)) and any(pair.get("value") for pair in value):
        return {pair["key"]: _plain(pair.get("value")) for pair in value}
    return [_plain(item) for item in value]


def _is_pair(item: Any) -> bool:
    """A key with a typed value, or with none."""
    if not isinstance(item, dict) or not isinstance(item.get("key"), str) or not item.keys() <= _PAIR:
        return False
    value = item.get("value")
    return value is None or (
        isinstance(value, dict) and (not value or (len(value) == 1 and next(iter(value)) in _READERS))
    )


def _whole(value: Any) -> Any:
    try:
        return int(value) if isinstance(value, str) and len(value) <= 20 else value
    except ValueError:
        return value


def _double(value: Any) -> Any:
    return None if isinstance(value, str) and value in {"NaN", "Infinity", "-Infinity"} else value


def _array(value: Any) -> Any:
    items = value.get("values") if isinstance(value, dict) else value
    return [_plain(item) for item in items] if isinstance(items, list) else []


def _pairs(value: Any) -> Any:
    items = value.get("values") if isinstance(value, dict) else value
    return _plain(items) if items else {}


_SORTS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "string": lambda value: value,
    "bool": lambda value: value,
    "int": _whole,
    "double": _double,
    "bytes": lambda value: value,
    "array": _array,
    "kvlist": _pairs,
}
_READERS: Final = {f"{sort}{end}": read for sort, read in _SORTS.items() for end in ("Value", "_value")}
