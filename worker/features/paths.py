"""Where a field stands in a record: names with dots, the look-up of one, the walk that lists all of them.

    country                         a key of the record
    merchant.country                a key of the object at `merchant`
    labels.app.kubernetes.io/name   the key "app.kubernetes.io/name" of the object at `labels`

A key may hold dots itself, so a name can be read in several ways. The literal key of the record comes first, then the
longest key at each level; what leads nowhere is taken back. This is the only place that knows how names are read.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import repeat
from operator import contains, itemgetter
from types import NoneType
from typing import Any, Final

from worker.formats.base import Row

MAX_NAME = 1_000  # characters of a field's name with the names of the objects around it; longer ones are no names


class NotAnObject:
    """Stands where a dotted path runs into something that holds no fields."""


_NOT_AN_OBJECT: Final = NotAnObject()
_ABSENT: Final = object()
_NO_FIELDS: Final[Row] = {}


def value_of(row: Row, name: str) -> Any:
    """The value of a field in one record, None where it has none."""
    value = read_field(row, name)
    return None if value is _NOT_AN_OBJECT else value


def read_field(row: Row, name: str) -> Any:
    """The same, and `NotAnObject` where the path runs into a value that holds no fields.

    >>> read_field({"labels": {"app.kubernetes.io/name": "web"}}, "labels.app.kubernetes.io/name")
    'web'
    """
    if name in row:
        return row[name]
    value = _descend(row, name) if "." in name else None
    return None if value is _ABSENT else value


def column_of(rows: Sequence[Row], name: str) -> list[Any]:
    """The values of a field in all of these records, as `read_field` has them."""
    try:  # in most topics every record has every field, at the top: no Python code runs for each then
        return list(map(itemgetter(name), rows))
    except KeyError:
        if "." not in name:
            return [row.get(name) for row in rows]
        nested = _nested_column(rows, name)
        return [read_field(row, name) for row in rows] if nested is None else nested


def _nested_column(rows: Sequence[Row], name: str) -> list[Any] | None:
    """The same where all records spell the name in one way, as they mostly do: level by level, without Python code for
    each record. None where they do not.
    """
    if any(map(contains, rows, repeat(name))):
        return None
    inner: list[Any] | None = None
    rest = ""
    for key, after in _splits(name):
        values = list(map(dict.get, rows, repeat(key)))
        types = set(map(type, values))
        if types == {NoneType}:
            continue
        if inner is not None or not types <= {dict, NoneType}:
            return None
        inner, rest = values if NoneType not in types else [value or _NO_FIELDS for value in values], after
    return [None] * len(rows) if inner is None else column_of(inner, rest)


def holder_of(row: Row, name: str) -> tuple[Row, str] | None:
    """The object that holds a field, and the field's key in it; None where the record has no such field."""
    if name in row:
        return row, name
    for key, rest in _splits(name):
        inner = row.get(key)
        if type(inner) is dict and (holder := holder_of(inner, rest)) is not None:
            return holder
    return None


def _descend(row: Row, name: str) -> Any:
    """What stands below the keys of an object; `_ABSENT` where nothing does."""
    result: Any = _ABSENT
    for key, rest in _splits(name):
        if (inner := row.get(key)) is None:
            continue
        if type(inner) is not dict:
            result = _NOT_AN_OBJECT
        elif rest in inner:
            return inner[rest]
        elif "." in rest:
            value = _descend(inner, rest)
            if value is not _ABSENT and value is not _NOT_AN_OBJECT:
                return value
            result = value if result is _ABSENT else result
    return result


@lru_cache(maxsize=1 << 14)
def _splits(name: str) -> tuple[tuple[str, str], ...]:
    """A name as a key and what is left of it below that key, the longest key first."""
    return tuple((name[:at], name[at + 1 :]) for at in reversed(dots(name)))


def dots(name: str) -> list[int]:
    """Where a name can end as that of an object around it."""
    return [at for at, letter in enumerate(name) if letter == "."]


def walk(row: Row) -> tuple[dict[str, Any], int]:
    """Every field of a record with its value, also of nested ones, by the name under which `read_field` finds it.

    With it comes the number of names that are too long to be looked at.
    """
    values: dict[str, Any] = {}
    too_long = 0
    twice = set[str]()
    for name, value in _leaves(row, ""):
        if len(name) > MAX_NAME:
            too_long += 1
        elif name in values:
            twice.add(name)
        else:
            values[name] = value
    for name in twice:  # keys with dots spell one name in several ways: the look-up decides
        values[name] = value_of(row, name)
    return values, too_long


def _leaves(row: Row, prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in row.items():
        name = prefix + key
        yield name, value
        if type(value) is dict and len(name) <= MAX_NAME:
            yield from _leaves(value, name + ".")
