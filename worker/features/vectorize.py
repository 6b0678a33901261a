"""JSON objects to the model's input: float32 numbers and int32 category ids, column by column."""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from hashlib import blake2b
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.features.columns import read_columns
from worker.features.fitted import Fitted, missing_patterns
from worker.features.kinds.base import Column
from worker.features.learned import MISSING_ID, UNKNOWN_ID, CategoryColumn
from worker.features.scaling import apply_scaling
from worker.formats.base import Decoded, Row
from worker.records import DeadLetter, RawMessage


@dataclass(frozen=True, slots=True)
class Vectors:
    """The records that can be scored, in input order, and the dead letters of this stage.

    messages, rows   length B
    numeric          float32 (B, N), finite
    category_ids     int32 (B, C), 0 <= id < width
    event_time_ms    int64 (B,), UTC; the message's own timestamp where the record has no event time
    rejects          those that don't fit the schema, without the decoder's
    """

    messages: list[RawMessage]
    rows: list[Row]
    numeric: NDArray[np.float32]
    category_ids: NDArray[np.int32]
    event_time_ms: NDArray[np.int64]
    rejects: list[DeadLetter]


class Vectorizer:
    """Encodes batches by what fitting learned. Stateless: a record's vector depends on that record only."""

    def __init__(self, fitted: Fitted) -> None:
        self.schema = fitted.schema
        self.fitted = fitted
        self._numeric_at = {(column.field, column.part): index for index, column in enumerate(fitted.numeric)}
        self._category_at = {name: index for index, name in enumerate(fitted.category_fields)}
        self._tables = [_tables(column) for column in fitted.categorical[:-1]]
        patterns = fitted.categorical[-1]
        self._patterns = _Table({frozenset(names): patterns.first + i for i, names in enumerate(patterns.values)})

    def transform(self, decoded: Decoded) -> Vectors:
        """Vectors of all rows that fit the schema; the others become rejects and leave no trace in their neighbours."""
        messages, rows = decoded.messages, decoded.rows
        rejects: list[DeadLetter] = []
        columns, failures = read_columns(self.schema, rows)
        if failures:
            rejects = [DeadLetter(messages[i], failures[i].error_code, failures[i].detail) for i in sorted(failures)]
            messages = [message for i, message in enumerate(messages) if i not in failures]
            rows = [row for i, row in enumerate(rows) if i not in failures]
            columns, _ = read_columns(self.schema, rows)
        numeric = np.empty((len(rows), len(self.fitted.numeric)), np.float32)
        category_ids = np.empty((len(rows), len(self.fitted.categorical)), np.int32)
        for column in columns:
            self._encode(column, numeric, category_ids)
        keys, names = missing_patterns(columns, len(rows))
        id_of = {key: self._patterns[absent] for key, absent in names.items()}
        category_ids[:, -1] = np.fromiter(map(id_of.__getitem__, keys), np.int32, len(rows))
        return Vectors(messages, rows, numeric, category_ids, self._event_times(columns, messages), rejects)

    def _encode(self, column: Column, numeric: NDArray[np.float32], category_ids: NDArray[np.int32]) -> None:
        field = column.field
        if not field.encoded:
            return
        if field.name in self._category_at:
            at = self._category_at[field.name]
            values = field.categories(column)
            types = column.types if values is column.values else set(map(type, values)) - {type(None)}
            category_ids[:, at] = _ids_of(self._tables[at], values, types)
        for part, numbers in zip(field.part_names(), field.numbers(column), strict=True):
            if (field.name, part) not in self._numeric_at:  # a cycle that the fit rows did not cover
                continue
            at = self._numeric_at[field.name, part]
            scaled = apply_scaling(numbers, self.fitted.numeric[at].scaling)
            if column.missing is not None:
                scaled[column.missing] = self.fitted.numeric[at].imputed
            numeric[:, at] = scaled

    def _event_times(self, columns: Sequence[Column], messages: Sequence[RawMessage]) -> NDArray[np.int64]:
        clock = next((c for c in columns if c.field.name == self.schema.event_time_field), None)
        if clock is not None and clock.numbers is not None and clock.missing is None:
            return clock.numbers
        times = np.fromiter((message.timestamp for message in messages), np.int64, len(messages))
        if clock is None or clock.numbers is None or clock.missing is None:
            return times
        return np.where(clock.missing, times, clock.numbers)


class _Table:
    """Value to id. What is not listed gets `unlisted`, or its hash bucket where there are several."""

    def __init__(self, category_ids: Mapping[Any, int], unlisted: int = UNKNOWN_ID, buckets: int = 1) -> None:
        self._ids = dict(category_ids)
        self._unlisted = unlisted
        self._buckets = buckets

    def __getitem__(self, value: Any) -> int:
        known = self._ids.get(value)
        return known if known is not None else self._unlisted + _bucket(value, self._buckets)

    def all_of(self, values: Sequence[Any]) -> Iterator[int]:
        """The ids of values that this table is for; no Python code runs for each unless it has to be hashed."""
        if self._buckets == 1:
            return map(self._ids.get, values, repeat(self._unlisted))
        return map(self.__getitem__, values)


def _tables(column: CategoryColumn) -> dict[type, _Table]:
    # One table per JSON type, for in Python 1, 1.0 and True are the same key.
    unlisted = MISSING_ID + 1 if column.spare else UNKNOWN_ID
    category_ids: dict[type, dict[Any, int]] = {kind: {None: MISSING_ID} for kind in (str, int, bool)}
    for index, value in enumerate(column.values):
        category_ids[type(value)][value] = column.first + index
    return {kind: _Table(known, unlisted, max(column.spare, 1)) for kind, known in category_ids.items()}


def _bucket(value: Any, buckets: int) -> int:
    if buckets == 1:
        return 0
    text = f"{type(value).__name__}:{value}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big") % buckets


def _ids_of(tables: Mapping[type, _Table], values: Sequence[Any], types: Set[type]) -> NDArray[np.int32]:
    if len(types) <= 1:
        table = tables[next(iter(types), str)]
        return np.fromiter(table.all_of(values), np.int32, len(values))
    category_ids = (MISSING_ID if value is None else tables[type(value)][value] for value in values)
    return np.fromiter(category_ids, np.int32, len(values))
