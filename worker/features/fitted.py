"""What fitting learned about all fields, from rows: it turns rows into model input, and model output into words."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.errors import BundleError, DataError
from worker.features.columns import read_columns
from worker.features.kinds.base import Column, Field
from worker.features.learned import (
    MISSING_ID,
    MISSING_PATTERN,
    UNKNOWN_ID,
    CategoryColumn,
    FieldStats,
    NumericColumn,
    Special,
)
from worker.features.schema import Schema
from worker.formats.base import Row

# F optional fields have 2^F missing patterns. Each that is kept is a row of the model's embedding and of its output and
# learns from the records that have it: without a bound, a topic of sparse records would give most of the network to
# patterns that were seen once. The rarer ones share id 0 with those that were never seen, and are as strange.
MAX_PATTERNS = 64


@dataclass(frozen=True)
class Fitted:
    """All that `Vectorizer` needs, and the way back.

    rows          how many rows it was learned from
    numeric       N columns, none for a cycle of time that the rows did not cover
    categorical   C columns, the last one is that of the missing patterns
    stats         one per encoded field
    """

    schema: Schema
    rows: int
    numeric: tuple[NumericColumn, ...]
    categorical: tuple[CategoryColumn, ...]
    stats: tuple[FieldStats, ...]

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Number of ids of each categorical column, length C."""
        return tuple(column.width for column in self.categorical)

    @cached_property
    def numeric_fields(self) -> tuple[str, ...]:
        """The field that each numeric column belongs to, length N."""
        return tuple(column.field for column in self.numeric)

    @cached_property
    def category_fields(self) -> tuple[str, ...]:
        """The field that each categorical column belongs to, length C; the last is MISSING_PATTERN."""
        return tuple(column.field for column in self.categorical)

    @cached_property
    def stats_of(self) -> Mapping[str, FieldStats]:
        """The statistics by field name."""
        return {stats.field: stats for stats in self.stats}

    @cached_property
    def _numeric_of(self) -> Mapping[str, tuple[NumericColumn, ...]]:
        return {name: tuple(c for c in self.numeric if c.field == name) for name in self.numeric_fields}

    @cached_property
    def _category_index(self) -> Mapping[str, int]:
        return {name: index for index, name in enumerate(self.category_fields)}

    @cached_property
    def _field(self) -> Mapping[str, Field]:
        return {field.name: field for field in self.schema.fields}

    def category(self, column: int, category_id: int) -> Any:
        """The value that an id stands for in a categorical column, or a `Special`; for MISSING_PATTERN a phrase."""
        known = self.categorical[column]
        if category_id == UNKNOWN_ID:
            return Special.UNKNOWN
        if known.field == MISSING_PATTERN:
            absent = known.values[category_id - known.first]
            return f"without {', '.join(absent)}" if absent else "all fields present"
        if category_id == MISSING_ID:
            return Special.MISSING
        return Special.OTHER if category_id < known.first else known.values[category_id - known.first]

    def expected(self, field: str, z: Sequence[float], category_id: int | None = None) -> Any:
        """What a reconstruction says that `field` should have been, in the record's own units.

        z             the reconstructed values of the field's numeric columns, in column order
        category_id   its most probable id, where the field has categories
        """
        index = self._category_index.get(field)
        if index is not None and category_id is not None:
            return self.category(index, category_id)
        columns = self._numeric_of.get(field, ())
        if not columns or len(z) != len(columns):
            raise ValueError(f"{field!r} has {len(columns)} numeric columns, got {len(z)} values")
        return self._field[field].read_back(columns, [float(value) for value in z])

    def describe(self, field: str) -> str:
        """What is usual for an encoded field, in words."""
        index = self._category_index.get(field)
        return self._field[field].describe(self.stats_of[field], None if index is None else self.categorical[index])

    def to_json(self) -> dict[str, Any]:
        """Plain data: dicts, lists, strings, numbers; equal objects give equal data. Of the schema the fingerprint."""
        parts = {name: [asdict(entry) for entry in getattr(self, name)] for name in ("numeric", "categorical", "stats")}
        return {"schema_fingerprint": self.schema.fingerprint, "rows": self.rows, **parts}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], schema: Schema) -> "Fitted":
        """The inverse of `to_json`, also after a round trip through JSON text; BundleError where parts are missing, or
        belong to another schema.
        """
        try:
            if schema.fingerprint != (learned := data["schema_fingerprint"]):
                raise BundleError(f"the schema's fingerprint is {schema.fingerprint}, the model's is {learned}")
            values = [tuple(map(_hashable, column["values"])) for column in data["categorical"]]
            return cls(
                schema,
                data["rows"],
                tuple(NumericColumn(**column) for column in data["numeric"]),
                tuple(CategoryColumn(**{**c, "values": v}) for c, v in zip(data["categorical"], values, strict=True)),
                tuple(FieldStats(**stats) for stats in data["stats"]),
            )
        except (KeyError, TypeError) as error:
            raise BundleError(f"the fitted fields are incomplete or of another version: {error!r}") from error


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def fit_vectorizer(schema: Schema, rows: Sequence[Row], preprocessing: str = "robust") -> Fitted:
    """Learn from these rows; rows that don't fit the schema are left out. The order of the rows doesn't matter.

    preprocessing   how numbers are scaled, one of worker.features.scaling.PREPROCESSING

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
        numeric += column.field.fit_numbers(column, preprocessing)
        vocabulary = column.field.fit_categories(column)
        if vocabulary is not None:
            categorical.append(vocabulary)
        stats.append(column.field.statistics(column, vocabulary))
    keys, names = missing_patterns(columns, len(rows))
    counts = {tuple(sorted(names[key])): count for key, count in Counter(keys).items()}
    patterns = sorted(counts, key=lambda pattern: (-counts[pattern], pattern))[:MAX_PATTERNS]
    categorical.append(CategoryColumn(MISSING_PATTERN, "presence", tuple(patterns)))
    return Fitted(schema, len(rows), tuple(numeric), tuple(categorical), tuple(stats))


def missing_patterns(
    columns: Sequence[Column], count: int
) -> tuple[Sequence[Hashable], Mapping[Hashable, frozenset[str]]]:
    """For each of `count` rows a key of its missing pattern, and for each key the names of the missing fields.

    Only encoded fields count.
    """
    gaps = [(column.field.name, column.missing) for column in columns if column.field.encoded]
    partial = [(name, missing) for name, missing in gaps if missing is not None]
    if not partial:
        return [b""] * count, {b"": frozenset()}
    packed = np.packbits(np.stack([missing for _, missing in partial], axis=1), axis=1)  # (B, bytes)
    keys: NDArray[Any] = packed.view(f"V{packed.shape[1]}").ravel()
    names: dict[Hashable, frozenset[str]] = {}
    for key in set(keys.tolist()):
        bits = np.unpackbits(np.frombuffer(key, np.uint8), count=len(partial)).tolist()
        names[key] = frozenset(name for (name, _), bit in zip(partial, bits, strict=True) if bit)
    return keys.tolist(), names
