"""Propose a schema from sample rows, with the reason for each field's kind."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

import orjson

from worker.errors import DataError
from worker.features.columns import value_of
from worker.features.schema import Field, Kind, Schema
from worker.features.timestamps import parser
from worker.formats.base import Row
from worker.texts import did_you_mean

ENOUGH = 20  # rows; fewer prove neither a constant nor an id
NEAR_UNIQUE = 0.95  # share of distinct values among those present
UPWARDS = 0.9  # share of steps that go up in a counter; parallel writers swap neighbours
_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_EPOCHS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_YEAR_2000, _YEAR_2100 = 946_684_800, 4_102_444_800
_THIRTY_YEARS = 30 * 365 * 86_400

Verdict = tuple[Kind, str]


@dataclass(frozen=True)
class Proposal:
    """A schema, and for each of its fields why it has this kind, how often it is missing, how many values it has."""

    schema: Schema
    comments: Mapping[str, str]

    def to_toml(self) -> str:
        """The schema file's text with the comments above the fields."""
        return self.schema.to_toml(self.comments)


def infer_schema(rows: Iterable[Row], ignore: Collection[str] = (), *, limit: int = 20_000) -> Proposal:
    """Look at the first `limit` rows and propose a kind for every field; nested objects become dotted names.

    ignore: fields that must not reach the model, such as labels; they are listed with kind ignore.
    DataError where there are no rows, no field can be learned from, or no row has a field named in `ignore`.
    """
    sample = list(islice(rows, limit))
    if not sample:
        raise DataError("there are no rows to infer a schema from")
    found: dict[str, list[Any]] = {}
    for row in sample:
        for name, value in _flatten(row):
            if value_of(row, name) is value:
                found.setdefault(name, []).append(value)
    _check_ignored(ignore, found)
    prefixes = tuple(name + "." for name in ignore)
    ambiguous = _ambiguous(found)
    fields, comments = [], {}
    for name, values in found.items():
        present = [value for value in values if value is not None]
        if any(present) and set(map(type, present)) == {dict}:
            continue  # its fields stand for it
        distinct = _distinct(present)
        if name in ignore or name.startswith(prefixes):
            kind, why = _ignored("left out on request")
        elif name in ambiguous:
            kind, why = _ignored("sometimes an object, sometimes not")
        else:
            kind, why = _judge(present, distinct, len(sample))
        fields.append(Field(name, kind))
        comments[name] = _comment(why, present, distinct, len(sample))
    if not any(field.encoded for field in fields):
        reasons = "; ".join(f"{name}: {comment.split(';')[0]}" for name, comment in list(comments.items())[:10])
        raise DataError(f"no field that a model could learn from ({reasons or 'the rows are empty'})")
    return Proposal(Schema(tuple(fields)), comments)


def _flatten(row: Row, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names and values of all objects and leaves; a name may not lead back to its value, for keys can hold dots."""
    for key, value in row.items():
        yield prefix + key, value
        if type(value) is dict:
            yield from _flatten(value, f"{prefix}{key}.")


def _ambiguous(found: Mapping[str, Sequence[Any]]) -> set[str]:
    """Names that hold an object in some rows and a value in others, and names under one that ever holds a value."""
    leaves = {name for name, values in found.items() if set(map(type, values)) - {dict, type(None)}}
    mixed = {name for name in leaves if dict in set(map(type, found[name]))}
    below = {name for name in found if any(name[:at] in leaves for at, letter in enumerate(name) if letter == ".")}
    return mixed | below


def _check_ignored(ignore: Collection[str], found: Collection[str]) -> None:
    for name in ignore:
        if name not in found and not any(other.startswith(name + ".") for other in found):
            raise DataError(f"no row has a field {name!r}{did_you_mean(name, found)}")


def _distinct(present: Sequence[Any]) -> int:
    return len({(type(value), value) for value in present if not isinstance(value, list | dict)})


def _judge(present: Sequence[Any], distinct: int, total: int) -> Verdict:
    types = set(map(type, present))
    if not present:
        return _ignored("always null")
    if types & {list, dict}:
        return _ignored("holds arrays" if list in types else "holds empty objects")
    if distinct == 1 and len(present) == total >= ENOUGH:
        return _ignored("constant")
    if types == {bool}:
        return "boolean", "true or false"
    if types == {str}:
        return _judge_strings(present, distinct)
    if types <= {int, float}:
        return _judge_numbers(present, distinct)
    names = sorted({bool: "booleans", str: "strings"}.get(kind, "numbers") for kind in types)
    return _ignored(f"mixes {' and '.join(dict.fromkeys(names))}")


def _ignored(why: str) -> Verdict:
    return "ignore", why


def _judge_strings(present: Sequence[str], distinct: int) -> Verdict:
    if _all_iso_times(present):
        return "timestamp", "ISO 8601 times"
    many = len(present) >= ENOUGH and distinct > NEAR_UNIQUE * len(present)
    if many and all(map(_UUID.fullmatch, present)):
        return "id", "UUIDs that hardly repeat"
    words = sum(value.count(" ") for value in present) / len(present)
    letters = sum(map(len, present)) / len(present)
    if distinct >= ENOUGH and words >= 2 and letters >= 20:
        return "text", f"sentences, {letters:.0f} characters on average"
    if many:
        return "id", "strings that hardly repeat"
    return "categorical", "strings that repeat"


def _all_iso_times(present: Sequence[str]) -> bool:
    parse = parser("iso8601")
    try:
        for value in present:
            if value[4:5] != "-":  # 20180401 may be any number
                return False
            parse(value)
    except (ValueError, OverflowError):
        return False
    return True


def _judge_numbers(present: Sequence[float], distinct: int) -> Verdict:
    low, high = min(present), max(present)
    for unit, per_second in _EPOCHS.items():
        in_range = _YEAR_2000 * per_second <= low and high <= _YEAR_2100 * per_second
        if in_range and high - low <= _THIRTY_YEARS * per_second:
            return "timestamp", f"epoch times in {unit}, between 2000 and 2100"
    whole = all(type(value) is int for value in present)
    if whole and len(present) >= ENOUGH and distinct > NEAR_UNIQUE * len(present):
        upwards = sum(after > before for before, after in pairwise(present))
        if upwards >= UPWARDS * (len(present) - 1):
            return "id", "whole numbers that count up and hardly repeat"
        if low >= 10**12:
            return "id", "very large whole numbers that hardly repeat"
    return "numeric", "whole numbers" if whole else "numbers"


def _comment(why: str, present: Sequence[Any], distinct: int, total: int) -> str:
    parts = [why, f"{100 * (1 - len(present) / total):.3g}% missing", f"{distinct} distinct"]
    if present:
        example = orjson.dumps(present[0]).decode().replace("\x7f", "")
        parts.append("e.g. " + (example if len(example) <= 40 else example[:40] + "..."))
    return "; ".join(parts)
