"""Plain data from outside, checked where it enters: JSON within bounds, then dataclasses with the types they declare.

What a file or an answer holds may come from another release, a broken disk or a stranger. Whoever reads it asks here,
and makes one domain error of the ValueError: no KeyError, TypeError or RecursionError of a later stage tells of it.
"""

import json
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import orjson

from worker.texts import quoted

MAX_DEPTH = 64
MAX_VALUES = 4_000_000
"""Of one JSON text. An empty list is three bytes of it and 64 of memory: a bound on the bytes alone is none."""

_MAX_FLOAT = 1.7976931348623157e308
_NAMES = {str: "a text", int: "a whole number", float: "a finite number", bool: "true or false"}

T = TypeVar("T")


def read_json(content: bytes, max_bytes: int) -> Any:
    """The value of a JSON text; ValueError, in a few words, where it is none, too large or nested too deeply.

    >>> read_json(b"[" * 100 + b"]" * 100, 1_000)
    Traceback (most recent call last):
    ValueError: nested deeper than 64 levels
    """
    if len(content) > max_bytes:
        raise ValueError(f"larger than {max_bytes:,} bytes")
    if sum(map(content.count, (b",", b"[", b"{"))) > MAX_VALUES:  # before the parser makes objects of them
        raise ValueError(f"more than {MAX_VALUES:,} values")
    value = orjson.loads(content)
    level = [value]
    for _ in range(MAX_DEPTH):
        parts = (part.values() if isinstance(part, dict) else part for part in level if isinstance(part, dict | list))
        level = [item for part in parts for item in part if isinstance(item, dict | list)]
        if not level:
            return value
    raise ValueError(f"nested deeper than {MAX_DEPTH} levels")


def read_plain(kind: type[T], data: Any, name: str = "") -> T:
    """A dataclass from what `asdict` and JSON have made of one.

    ValueError, naming the place, where a value is missing, unknown or of another type; what its constructor raises.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Point:
    ...     x: float
    ...     names: tuple[str, ...] = ()
    >>> read_plain(Point, {"x": 1, "names": ["a", "b"]})
    Point(x=1, names=('a', 'b'))
    >>> read_plain(Point, {"x": 1, "names": ["a", 2]}, "corner")
    Traceback (most recent call last):
    ValueError: corner.names[1] is 2: expected a text
    """
    if not isinstance(data, dict):
        raise _unexpected(name, data, "an object")
    hints = _hints(kind)  # type: ignore[arg-type]  # a type has a hash
    at = f"{name}." if name else ""
    for key in data:
        if key not in hints:
            raise ValueError(f"{at}{quoted(key)} is unknown")
    for field in fields(kind):  # type: ignore[arg-type]  # a TypeVar can't say that it is a dataclass
        if field.name not in data and field.default is field.default_factory is MISSING:
            raise ValueError(f"{at}{field.name} is missing")
    return kind(**{key: read_value(hints[key], value, f"{at}{key}") for key, value in data.items()})


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def read_value(hint: Any, value: Any, name: str) -> Any:
    """A value of a type as annotations write it: lists become tuples, objects the dataclasses that stand there."""
    arguments = get_args(hint)
    if hint is Any:
        return value
    if isinstance(hint, UnionType):
        (other,) = (kind for kind in arguments if kind is not NoneType)
        return None if value is None else read_value(other, value, name)
    if get_origin(hint) in (tuple, list):
        return _read_list(hint, value, name)
    if get_origin(hint) is not None:  # a mapping
        if not isinstance(value, dict):
            raise _unexpected(name, value, "an object")
        return {key: read_value(arguments[1], item, f"{name}.{quoted(key)}") for key, item in value.items()}
    if isinstance(hint, type) and is_dataclass(hint):
        return read_plain(hint, value, name)
    return _read_scalar(hint, value, name)


def _read_scalar(hint: Any, value: Any, name: str) -> Any:
    if issubclass(hint, StrEnum):
        if value not in list(hint):
            raise _unexpected(name, value, "one of " + ", ".join(hint))
        return hint(value)
    fits = type(value) is hint
    if hint is float:
        fits = type(value) in (int, float) and -_MAX_FLOAT <= value <= _MAX_FLOAT
    if not fits:
        raise _unexpected(name, value, _NAMES[hint])
    return value


def _read_list(hint: Any, value: Any, name: str) -> Any:
    arguments = get_args(hint)
    if not isinstance(value, list | tuple):
        raise _unexpected(name, value, "a list")
    kinds = arguments if get_origin(hint) is tuple and arguments[-1] is not ... else [arguments[0]] * len(value)
    if len(kinds) != len(value):
        raise _unexpected(name, value, f"a list of {len(kinds)}")
    items = [read_value(kind, item, f"{name}[{at}]") for at, (kind, item) in enumerate(zip(kinds, value, strict=True))]
    return tuple(items) if get_origin(hint) is tuple else items


def _unexpected(name: str, value: Any, expected: str) -> ValueError:
    if isinstance(value, dict | list):
        shown = f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value):,}"
    else:
        shown = quoted(value if isinstance(value, int | float) and not isinstance(value, bool) else json.dumps(value))
    return ValueError(f"{name or 'it'} is {shown}: expected {expected}")
