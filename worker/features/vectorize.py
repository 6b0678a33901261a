"""Rows to the model's input, float32 numbers and int32 category ids, column by column: learned, then applied."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.errors import DataError
from worker.features.fitted import Fitted, covered
from worker.features.kinds.base import Column
from worker.features.learned import (
    PATTERN_KIND,
    UNKNOWN_ID,
    CategoryColumn,
    FieldStats,
    Lexicon,
    NumericColumn,
    coarse,
    pattern_name,
)
from worker.features.patterns import fit_patterns
from worker.features.schema import Schema, read_columns
from worker.formats.base import Decoded, Row
from worker.records import NO_TIME, BoolArray, DeadLetter, RawMessage, TimeArray
from worker.redaction import MASK, NOTHING, Redaction
from worker.texts import MAX_TIME_MS, MIN_TIME_MS


def conceal(fitted: Fitted, redaction: Redaction, rows: Sequence[Row]) -> list[Row | None]:
    """Rows as they may be kept for later fits, with nothing of a redacted value: None for those that don't fit the
    schema. Doing it twice changes nothing.
    """
    if not redaction:
        return list(rows)
    columns, failures = read_columns(fitted.reading, rows)
    kept = [redaction.record(row) for index, row in enumerate(rows) if index not in failures]
    for field in fitted.reading.fields:
        if redaction.touches(field.name) and field.required:
            for row in kept:
                row[field.name] = MASK  # what it lies in may be masked as a whole
    for column in columns:
        field = column.field
        if redaction.touches(field.name) and (field.encoded or field.is_time):
            learned = tuple(entry for entry in fitted.numeric if entry.field == field.name)
            for row, value in zip(kept, field.conceal(column, learned, redaction.token), strict=True):
                row[field.name] = value
            if column.unexpected is not None and dict in field.refused({dict}):
                for at in np.flatnonzero(column.unexpected).tolist():
                    kept[at][field.name] = {}  # can't be read either
    following = iter(kept)
    return [None if index in failures else next(following) for index in range(len(rows))]


def _categories(column: Column, redaction: Redaction | None) -> Sequence[Any]:
    """What is looked up in the vocabulary; redaction: None where the field is not redacted."""
    field = column.field
    return field.categories(column) if redaction is None else field.tokens(column, redaction.token)


def fit_vectorizer(
    schema: Schema, rows: Sequence[Row], preprocessing: str = "robust", redaction: Redaction = NOTHING
) -> Fitted:
    """Learn from these rows; rows that can't be used are left out, unexpected values are missing. The order of the rows
    doesn't matter.

    preprocessing   how numbers are scaled, one of worker.features.scaling.PREPROCESSING
    redaction       of its fields no value is kept, and no time learned

    DataError where no row is left.
    """
    columns, failures = read_columns(schema, rows)
    count = len(rows) - len(failures)
    if not count:
        first = next(iter(failures.values()), None)
        none_fits = f"none of the {len(failures)} rows fits the schema; the first: {first}"
        raise DataError("there are no rows to learn from" if first is None else none_fits)
    numeric: list[NumericColumn] = []
    categorical: list[CategoryColumn] = []
    stats: list[FieldStats] = []
    lexicons: list[Lexicon] = []
    redacted = covered(schema, redaction)
    for unread in columns:
        if not unread.field.encoded:
            continue
        hidden = redaction if unread.field.name in redacted else None
        column, lexicon = _learned(unread) if hidden is None else (unread, None)  # a lexicon would hold values
        field = column.field
        lexicons += [] if lexicon is None else [lexicon]
        vocabulary = field.fit_categories(_categories(column, hidden) if field.has_categories else ())
        categorical += [] if vocabulary is None else [vocabulary]
        learned = [] if hidden is not None and field.is_time else field.fit_numbers(column, preprocessing)
        if hidden is None:
            numeric += learned
            stats.append(field.statistics(column, vocabulary))
        else:
            values = dict(zip(field.part_names(), column.present(field.numbers(column)), strict=True))
            numeric += [coarse(entry, values[entry.part], preprocessing) for entry in learned]
            stats.append(FieldStats(field.name))
    name = pattern_name([field.name for field in schema.fields])
    categorical.append(CategoryColumn(name, PATTERN_KIND, fit_patterns(columns, count)))
    check = redaction.check if redacted else ""
    return Fitted(schema, count, tuple(numeric), tuple(categorical), tuple(stats), redacted, check, tuple(lexicons))


def _learned(column: Column) -> tuple[Column, Lexicon | None]:
    """The column as its field reads it by what it learns of it."""
    lexicon = column.field.learn(column)
    return (column, None) if lexicon is None else (column.field.knowing(lexicon).read(column.values)[0], lexicon)


@dataclass(frozen=True, slots=True)
class Vectors:
    """The records that can be scored, in input order, and the dead letters of this stage.

    messages, rows   length B
    numeric          float32 (B, N), finite
    category_ids     int32 (B, C), 0 <= id < width
    event_time_ms    int64 (B,), UTC; the message's own timestamp where the record has no event time
    rejects          those that don't fit the schema, without the decoder's
    unexpected       by field, bool (B,): where its value can't be read; fields without such values are not there
    """

    messages: list[RawMessage]
    rows: list[Row]
    numeric: NDArray[np.float32]
    category_ids: NDArray[np.int32]
    event_time_ms: TimeArray
    rejects: list[DeadLetter]
    unexpected: Mapping[str, BoolArray]


class Vectorizer:
    """Encodes batches by what fitting learned. Stateless: a record's vector depends on that record only.

    redaction   knows the tokens of redacted fields; BundleError where it has another secret than the fit had
    """

    def __init__(self, fitted: Fitted, redaction: Redaction = NOTHING) -> None:
        self.schema = fitted.reading
        self.fitted = fitted = fitted.concealed(redaction.also(fitted.redacted))
        self._scaled = frozenset(fitted.numeric_fields)
        self._hidden = dict.fromkeys(fitted.redacted, redaction)
        clock = self.schema.event_time_field
        self._clock = None if clock is not None and redaction.covers(clock) else clock

    def transform(self, decoded: Decoded) -> Vectors:
        """Vectors of all rows that fit the schema; the others become rejects and leave no trace in their neighbours."""
        messages, rows = decoded.messages, decoded.rows
        rejects: list[DeadLetter] = []
        columns, failures = read_columns(self.schema, rows)
        if failures:
            rejects = [DeadLetter(messages[i], failures[i].error_code, failures[i].detail) for i in sorted(failures)]
            messages = [message for i, message in enumerate(messages) if i not in failures]
            rows = [row for i, row in enumerate(rows) if i not in failures]
        numeric = np.empty((len(rows), len(self.fitted.numeric)), np.float32)
        category_ids = np.empty((len(rows), len(self.fitted.categorical)), np.int32)
        column_of = {column.field.name: column for column in columns}
        for at, vocabulary in enumerate(self.fitted.categorical[:-1]):
            column = column_of[vocabulary.field]
            values = _categories(column, self._hidden.get(vocabulary.field))
            types = column.types if values is column.values else set(map(type, values)) - {type(None)}
            category_ids[:, at] = vocabulary.ids(values, types)
            if column.unexpected is not None:
                category_ids[column.unexpected, at] = UNKNOWN_ID
        parts = {
            name: dict(zip(column.field.part_names(), column.field.numbers(column), strict=True))
            for name, column in column_of.items()
            if name in self._scaled
        }
        for at, learned in enumerate(self.fitted.numeric):
            scaled = learned.scaling.apply(parts[learned.field][learned.part])
            missing = column_of[learned.field].missing
            if missing is not None:
                scaled[missing] = learned.imputed
            numeric[:, at] = scaled
        category_ids[:, -1] = self.fitted.patterns.find(columns, len(rows)) + self.fitted.categorical[-1].first
        unexpected = {column.field.name: column.unexpected for column in columns if column.unexpected is not None}
        return Vectors(messages, rows, numeric, category_ids, self._event_times(columns, messages), rejects, unexpected)

    def _event_times(self, columns: Sequence[Column], messages: Sequence[RawMessage]) -> TimeArray:
        def near() -> TimeArray:
            timestamps = np.fromiter((message.timestamp for message in messages), np.int64, len(messages))
            # A producer can send any 64 bits: outside of the calendar they are no time.
            timestamps[(timestamps < MIN_TIME_MS) | (timestamps > MAX_TIME_MS)] = NO_TIME
            return timestamps

        column = next((column for column in columns if column.field.name == self._clock), None)
        if column is None:
            return near()
        times = column.field.moments(column, near)
        return times if column.missing is None else np.where(column.missing, near(), times)
