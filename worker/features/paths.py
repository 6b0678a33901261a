"""Where a field stands in a record: names with dots, the look-up of one, the walk that lists all of them.

    country                         a key of the record
    merchant.country                a key of the object at `merchant`
    labels.app.kubernetes.io/name   the key "app.kubernetes.io/name" of the object at `labels`
    containers[].image              that key of each object in the array at `containers`, as an array

A key may hold dots itself, so a name can be read in several ways. The literal key of the record comes first, then the
longest key at each level; what leads nowhere is taken back. A single value counts as an array of one. This is the only
place that knows how names are read.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from operator import contains, itemgetter
from types import MappingProxyType, NoneType
from typing import Any, Final

from worker.formats.base import Row

MAX_NAME = 1_000  # characters of a field's name with the names of the objects around it; longer ones are no names
MAX_MEMBERS = 1_000  # of an array that are looked at
SAMPLED_MEMBERS = 20  # of an array, where it is to be found out what arrays hold


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
    value = _descend(row, name) if _is_path(name) else None
    return None if value is _ABSENT else value


def column_of(rows: Sequence[Row], name: str) -> list[Any]:
    """The values of a field in all of these records, as `read_field` has them."""
    try:  # in most topics every record has every field, at the top: no Python code runs for each then
        return list(map(itemgetter(name), rows))
    except KeyError:
        if not _is_path(name):
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
    for key, after, in_array in _splits(name):
        values = list(map(dict.get, rows, repeat(key)))
        types = set(map(type, values))
        if types == {NoneType}:
            continue
        if inner is not None or in_array or not types <= {dict, NoneType}:
            return None
        inner, rest = values if NoneType not in types else [value or _NO_FIELDS for value in values], after
    return [None] * len(rows) if inner is None else column_of(inner, rest)


def holder_of(row: Row, name: str) -> tuple[Row, str] | None:
    """The object that holds a field, and the field's key in it; None where the record has no such field, and for one
    that is in an array.
    """
    if name in row:
        return row, name
    for key, rest, in_array in _splits(name):
        inner = row.get(key)
        if not in_array and type(inner) is dict and (holder := holder_of(inner, rest)) is not None:
            return holder
    return None


def _descend(row: Row, name: str) -> Any:
    """What stands below the keys of an object; `_ABSENT` where nothing does."""
    result: Any = _ABSENT
    for key, rest, in_array in _splits(name):
        if (inner := row.get(key)) is None:
            continue
        value: Any
        if in_array:
            value = _members(inner, rest)
        elif type(inner) is not dict:
            value = _NOT_AN_OBJECT
        elif rest in inner:
            return inner[rest]
        else:
            value = _descend(inner, rest) if _is_path(rest) else _ABSENT
        if value is not _ABSENT and value is not _NOT_AN_OBJECT:
            return value
        result = value if result is _ABSENT else result
    return result


def _members(value: Any, rest: str) -> list[Any]:
    """What stands at a path in each member of an array, arrays in one with the others; at most MAX_MEMBERS values. A
    member that has nothing there is passed over, whatever it is.
    """
    values: list[Any] = []
    items = value[:MAX_MEMBERS] if type(value) is list else [value]
    for item in items:
        inner = item if not rest else read_field(item, rest) if type(item) is dict else _NOT_AN_OBJECT
        if type(inner) is list and rest:
            values += inner
        elif inner is not None and inner is not _NOT_AN_OBJECT:
            values.append(inner)
        if len(values) >= MAX_MEMBERS:
            return values[:MAX_MEMBERS]
    return values


def members_of(values: Sequence[Any]) -> list[Any]:
    """The members of arrays in one list, without null: a sample, some of each, and what is no array as it is."""
    members: list[Any] = []
    for value in values:
        if type(value) is list:
            members += [member for member in value[:SAMPLED_MEMBERS] if member is not None]
        elif value is not None:
            members.append(value)
    return members


def _is_path(name: str) -> bool:
    return "." in name or "[]" in name


@lru_cache(maxsize=1 << 14)
def _splits(name: str) -> tuple[tuple[str, str, bool], ...]:
    """A name as a key, what is left of it below that key, and whether that is in an array; the longest key first."""
    ends = [*dots(name), *([len(name)] if name.endswith("[]") else [])]
    splits: list[tuple[str, str, bool]] = []
    for at in reversed(ends):
        key, rest = name[:at], name[at + 1 :]
        splits += [(key, rest, False)] if at < len(name) else []
        splits += [(key[:-2], rest, True)] if key.endswith("[]") else []
    return tuple(splits)


def inside(name: str, outer: str) -> str | None:
    """What is left of a name below that of an object or array that it lies in; None where it lies in another one."""
    if not name.startswith((outer + ".", outer + "[].")):
        return None
    return name[len(outer) :].removeprefix("[]")[1:]


def dots(name: str) -> list[int]:
    """Where a name can end as that of an object around it."""
    return [at for at, letter in enumerate(name) if letter == "."]


def walk(row: Row, only: Mapping[str, Iterable[str]] = MappingProxyType({})) -> tuple[dict[str, Any], int]:
    """Every field of a record with its value, also of nested ones, by the name under which `read_field` finds it.

    With it comes the number of names that are too long to be looked at.

    only   the keys of some objects that are fields, by the objects' names; all keys of the others are
    """
    values: dict[str, Any] = {}
    too_long = 0
    unclear = set[str]()  # in arrays, and where keys with dots spell one name in several ways: the look-up decides
    for name, value in _named_values(row, "", only):
        if len(name) > MAX_NAME:
            too_long += 1
        else:
            if name in values or value is _ABSENT:
                unclear.add(name)
            values.setdefault(name, value)
    values.update((name, value_of(row, name)) for name in unclear)
    return values, too_long


def _named_values(row: Row, prefix: str, only: Mapping[str, Iterable[str]]) -> Iterator[tuple[str, Any]]:
    """Names with their values; with `_ABSENT` for a value that lies in an array."""
    for key, value in row.items():
        name = prefix + key
        yield name, value
        if len(name) > MAX_NAME:
            continue
        if type(value) is dict:
            kept = value if name not in only else {key: value[key] for key in only[name] if key in value}
            yield from _named_values(kept, name + ".", only)
        elif type(value) is list:
            objects = [member for member in value[:MAX_MEMBERS] if type(member) is dict]
            named = (inner for member in objects for inner, _ in _named_values(member, name + "[].", only))
            yield from zip(dict.fromkeys(named), repeat(_ABSENT))
