"""Rows to typed columns, one field at a time; a row with an impossible value is named, not raised."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.errors import ErrorCode, RecordError
from worker.features.schema import Field, Schema
from worker.features.timestamps import accepted_types, parse_column, parser
from worker.formats.base import Row, type_name
from worker.records import BoolArray

_EXPECTED: Mapping[str, tuple[str, frozenset[type]]] = {
    "numeric": ("a number", frozenset({int, float})),
    "categorical": ("a string, a whole number or a boolean", frozenset({str, int, bool})),
    "boolean": ("a boolean", frozenset({bool})),
    "text": ("a string", frozenset({str})),
}


@dataclass(frozen=True, slots=True)
class Column:
    """One field of all rows.

    values: what the rows hold, None where missing; types: the types of those that aren't.
    numbers: float64 (B,) for a numeric field, int64 (B,) milliseconds for a timestamp; anything where missing.
    missing: bool (B,), or None where nothing is missing.
    """

    field: Field
    values: Sequence[Any]
    types: Set[type]
    numbers: NDArray[Any] | None
    missing: BoolArray | None


class _NotAnObject:
    """Stands where a dotted path runs into something that holds no fields."""


Failures = dict[int, RecordError]


def value_of(row: Row, name: str) -> Any:
    """The value of a field in one record, None where it has none; the literal key wins over the nested path."""
    value = _lookup(row, name)
    return None if isinstance(value, _NotAnObject) else value


def read_columns(schema: Schema, rows: Sequence[Row]) -> tuple[list[Column], Failures]:
    """All fields but the ignored ones as columns, and for each row that can't be used the first reason why.

    The columns of failing rows hold anything: drop those rows and read again.
    """
    columns: list[Column] = []
    failures: Failures = {}
    for field in schema.fields:
        if field.kind == "ignore" or (field.kind == "id" and not field.required):
            continue
        column, failed = _read(field, rows)
        columns.append(column)
        for index, error in failed.items():
            failures.setdefault(index, error)
    return columns, failures


def _read(field: Field, rows: Sequence[Row]) -> tuple[Column, Failures]:
    values = _raw(rows, field.name)
    types = set(map(type, values))
    failures: Failures = {}
    if field.kind == "timestamp":
        expected, accepted = "a time", accepted_types(field.format)
    elif field.kind == "id":
        expected, accepted = "an id", frozenset(types) - {_NotAnObject}
    else:
        expected, accepted = _EXPECTED[field.kind]
    wrong = types - accepted - {type(None)}
    if wrong or (field.required and type(None) in types):
        failures = _failures(field, values, expected, wrong)
        values = [None if index in failures else value for index, value in enumerate(values)]
        types = set(map(type, values))
    missing = np.array([value is None for value in values]) if type(None) in types else None
    types.discard(type(None))
    numbers: NDArray[Any] | None = None
    if field.kind == "numeric":
        numbers = _numbers(field, values, missing, failures)
    elif field.kind == "timestamp":
        numbers = _times(field, values, types, missing, failures)
    return Column(field, values, types, numbers, missing), failures


def _raw(rows: Sequence[Row], name: str) -> list[Any]:
    try:
        return list(map(itemgetter(name), rows))
    except KeyError:
        if "." not in name:
            return [row.get(name) for row in rows]
    return [row[name] if name in row else _lookup(row, name) for row in rows]


def _lookup(row: Row, name: str) -> Any:
    if name in row:
        return row[name]
    value: Any = row
    for key in name.split("."):
        if type(value) is not dict:
            return _NotAnObject()
        value = value.get(key)
        if value is None:
            return None
    return value


def _failures(field: Field, values: Sequence[Any], expected: str, wrong: set[type]) -> Failures:
    failures: Failures = {}
    for index, value in enumerate(values):
        if value is None and field.required:
            failures[index] = RecordError(ErrorCode.MISSING_FIELD, f"{field.name}: required, but absent or null")
        elif type(value) in wrong:
            seen = "a path through a value that is no object" if type(value) is _NotAnObject else type_name(value)
            if field.kind == "categorical" and type(value) is float:
                seen = "a fraction"
            detail = f"{field.name}: expected {expected}, got {seen}"
            failures[index] = RecordError(ErrorCode.WRONG_TYPE, detail)
    return failures


def _numbers(field: Field, values: Sequence[Any], missing: BoolArray | None, failures: Failures) -> NDArray[np.float64]:
    try:
        numbers = np.fromiter(values, np.float64, len(values)) if missing is None else np.array(values, np.float64)
    except OverflowError:  # an integer beyond the range of a double, from a source that isn't JSON
        numbers = np.array([_float(value) for value in values], np.float64)
    if missing is not None:
        numbers[missing] = 0.0
    broken = ~np.isfinite(numbers)
    if broken.any():
        for index in np.flatnonzero(broken).tolist():
            detail = f"{field.name}: expected a finite number, got one that a double can't hold"
            failures[index] = RecordError(ErrorCode.NOT_FINITE, detail)
    return numbers


def _float(value: Any) -> float:
    try:
        return float("nan") if value is None else float(value)
    except OverflowError:
        return float("inf")


def _times(
    field: Field, values: Sequence[Any], types: Set[type], missing: BoolArray | None, failures: Failures
) -> NDArray[np.int64]:
    present = values if missing is None else [value for value in values if value is not None]
    fast = parse_column(present, types, field.format)
    if fast is not None and missing is None:
        return fast
    result = np.zeros(len(values), np.int64)
    if fast is not None:
        result[~missing] = fast  # type: ignore[operator]
        return result
    parse: Callable[[Any], int] = parser(field.format)
    for index, value in enumerate(values):
        if value is None:
            continue
        try:
            result[index] = parse(value)
        except (ValueError, OverflowError):
            wanted = "an ISO 8601 time or an epoch" if field.format == "auto" else field.format
            detail = f"{field.name}: expected {wanted}, got {type_name(value)} that is none"
            failures[index] = RecordError(ErrorCode.BAD_TIMESTAMP, detail)
    return result
