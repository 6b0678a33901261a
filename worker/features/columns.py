"""Rows to columns, one field at a time; a row with an impossible value is named, not raised."""

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from worker.features.kinds.base import Column, Failures, NotAnObject
from worker.features.schema import Schema
from worker.formats.base import Row


def value_of(row: Row, name: str) -> Any:
    """The value of a field in one record, None where it has none; the literal key wins over the nested path."""
    value = _lookup(row, name)
    return None if isinstance(value, NotAnObject) else value


def read_columns(schema: Schema, rows: Sequence[Row]) -> tuple[list[Column], Failures]:
    """All fields that are read as columns, and for each row that can't be used the first reason why.

    The columns of failing rows hold anything: drop those rows and read again.
    """
    columns: list[Column] = []
    failures: Failures = {}
    for field in schema.fields:
        if not (field.encoded or field.required or field.is_time):
            continue
        column, failed = field.read(_values(rows, field.name))
        columns.append(column)
        for index, error in failed.items():
            failures.setdefault(index, error)
    return columns, failures


def _values(rows: Sequence[Row], name: str) -> list[Any]:
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
            return NotAnObject()
        value = value.get(key)
        if value is None:
            return None
    return value
