"""Learn scales, vocabularies and missing-field patterns from rows."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from worker.errors import DataError
from worker.features.columns import Column, read_columns
from worker.features.fitted import MISSING_PATTERN, CategoryColumn, FieldStats, Fitted, NumericColumn
from worker.features.parts import categories, coverable_parts, missing_patterns, numeric_parts, part_names
from worker.features.scaling import CYCLE, Scaling, apply_scaling, fit_range, fit_scaling, fit_standard
from worker.features.schema import Field, Schema
from worker.formats.base import Row
from worker.records import FloatArray

MAX_PATTERNS = 64


def fit_vectorizer(schema: Schema, rows: Sequence[Row], preprocessing: str = "robust") -> Fitted:
    """Learn from these rows; rows that don't fit the schema are left out. The order of the rows doesn't matter.

    preprocessing: how numbers are scaled, one of worker.features.scaling.PREPROCESSING.
    DataError where no row is left.
    """
    columns, failures = read_columns(schema, rows)
    if failures:
        first = next(iter(failures.values()))
        rows = [row for index, row in enumerate(rows) if index not in failures]
        if not rows:
            raise DataError(f"none of the {len(failures)} rows fits the schema; the first: {first}")
        columns, _ = read_columns(schema, rows)
    if not rows:
        raise DataError("there are no rows to learn from")
    numeric: list[NumericColumn] = []
    categorical: list[CategoryColumn] = []
    stats: list[FieldStats] = []
    for column in columns:
        if not column.field.encoded:
            continue
        numbers = _present(column)
        named = zip(part_names(column.field), numbers, strict=True)
        taught = coverable_parts(column)
        numeric += [_numeric(column.field, part, x, len(taught), preprocessing) for part, x in named if part in taught]
        vocabulary = None
        if column.field.kind in ("categorical", "boolean", "text"):
            vocabulary = _vocabulary(column)
            categorical.append(vocabulary)
        stats.append(_stats(column.field, numbers, vocabulary))
    categorical.append(CategoryColumn(MISSING_PATTERN, "presence", _patterns(columns, len(rows))))
    return Fitted(schema.fingerprint, len(rows), tuple(numeric), tuple(categorical), tuple(stats))


def _present(column: Column) -> list[FloatArray]:
    numbers = numeric_parts(column)
    return numbers if column.missing is None else [x[~column.missing] for x in numbers]


def _numeric(field: Field, part: str, x: FloatArray, parts: int, preprocessing: str) -> NumericColumn:
    scaling, imputed, whole = _scaling(field, part, x, parts, preprocessing), 0.0, False
    if field.kind != "timestamp":
        whole = _whole(x)
        if preprocessing == "minmax" and len(x):  # 0 is an end of the range, so the median stands for a missing value
            imputed = float(apply_scaling(np.median(x, keepdims=True), scaling)[0])
    return NumericColumn(
        field.name, part, scaling.transform, scaling.center, scaling.scale, whole, scaling.knee, imputed
    )


def _scaling(field: Field, part: str, x: FloatArray, parts: int, preprocessing: str) -> Scaling:
    if field.kind == "timestamp":
        # A sine and its cosine together vary by at most 1, as one numeric field does; so do all cycles of one field.
        spread = float(np.sqrt(parts / 2))
        return Scaling(CYCLE, -1.0, 2.0) if preprocessing == "minmax" else Scaling(CYCLE, 0.0, spread)
    if preprocessing == "standard":
        return fit_standard(x, field.transform)
    if preprocessing == "minmax":
        return fit_range(x, field.transform, field.range if part == "value" else None)
    return fit_scaling(x, field.transform)


def _whole(x: FloatArray) -> bool:
    return bool((x == np.floor(x)).all()) and bool((np.abs(x) < 2**53).all())


def _vocabulary(column: Column) -> CategoryColumn:
    field = column.field
    counts = Counter((type(value).__name__, value) for value in categories(column) if value is not None)
    ranked = sorted(counts, key=lambda key: (-counts[key], key))
    limit = len(ranked) if field.kind == "boolean" else field.max_values
    spare = max(field.hash_buckets, 1) if len(ranked) > limit else 0
    return CategoryColumn(field.name, field.kind, tuple(value for _, value in ranked[:limit]), spare)


def _patterns(columns: Sequence[Column], count: int) -> tuple[tuple[str, ...], ...]:
    keys, names = missing_patterns(columns, count)
    counts: Mapping[tuple[str, ...], int] = {tuple(sorted(names[key])): n for key, n in Counter(keys).items()}
    return tuple(sorted(counts, key=lambda pattern: (-counts[pattern], pattern))[:MAX_PATTERNS])


def _stats(field: Field, numbers: Sequence[FloatArray], vocabulary: CategoryColumn | None) -> FieldStats:
    top: Any = vocabulary.values[0] if vocabulary and vocabulary.values else None
    if field.kind not in ("numeric", "text") or len(numbers[0]) == 0:
        return FieldStats(field.name, top=top)
    # Values that did occur, not interpolated ones.
    low, median, high = np.quantile(numbers[0], [0.01, 0.5, 0.99], method="inverted_cdf").tolist()
    if _whole(numbers[0]):
        low, median, high = int(low), int(median), int(high)
    return FieldStats(field.name, low=low, high=high, median=median, top=top)
