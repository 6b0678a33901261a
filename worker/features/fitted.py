"""What fitting learned about the fields: plain data that turns rows into model input and model output into words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

from worker.errors import BundleError
from worker.features.scaling import Scaling, invert_scaling
from worker.texts import significant

MISSING_PATTERN = "(missing fields)"  # the name under which the code column of the missing-field pattern appears
UNKNOWN_ID = 0
MISSING_ID = 1
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


class Special(StrEnum):
    """Codes that stand for no value of the data."""

    UNKNOWN = "never seen before"
    MISSING = "missing"
    OTHER = "a rare value"


@dataclass(frozen=True)
class NumericColumn:
    """One column of `numeric`.

    part: "value", "length" (of a text), or "hour_sin", "hour_cos", "weekday_sin", "weekday_cos".
    transform, center, scale, knee: see worker.features.scaling. whole: all values at fit were whole numbers.
    imputed: what stands for a missing value, scaled.
    """

    field: str
    part: str
    transform: str
    center: float
    scale: float
    whole: bool = False
    knee: bool = True
    imputed: float = 0.0

    @property
    def scaling(self) -> Scaling:
        """What `apply_scaling` takes."""
        return Scaling(self.transform, self.center, self.scale, self.knee)


@dataclass(frozen=True)
class CategoryColumn:
    """One column of `categorical`: 0 = never seen, 1 = missing, then `spare` ids for values beyond the limit
    (one for all, or hash buckets), then the vocabulary, most frequent first.

    kind: categorical, boolean, text (values are templates), or presence (values are tuples of missing fields' names;
    no code for missing, none spare).
    """

    field: str
    kind: str
    values: tuple[Any, ...]
    spare: int = 0

    @property
    def first(self) -> int:
        """The code of values[0]."""
        return 1 if self.kind == "presence" else 2 + self.spare

    @property
    def width(self) -> int:
        """How many categorical there are: 0 <= code < width."""
        return self.first + len(self.values)


@dataclass(frozen=True)
class FieldStats:
    """What is ordinary for a field, in the record's own units.

    low, high: values at 1% and 99% (of a text: its length), median; None for fields that aren't numbers.
    top: the most frequent value (of a text: template), None for numbers and times.
    """

    field: str
    low: float | None = None
    high: float | None = None
    median: float | None = None
    top: Any = None


@dataclass(frozen=True)
class Fitted:
    """Everything that `Vectorizer` needs besides the schema, and the way back.

    numeric: N columns, none for a cycle of time that the rows did not cover.
    categorical: C columns, the last one is the missing-field pattern; stats: one per encoded field;
    rows: how many rows it was learned from.
    """

    schema_fingerprint: str
    rows: int
    numeric: tuple[NumericColumn, ...]
    categorical: tuple[CategoryColumn, ...]
    stats: tuple[FieldStats, ...]

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Number of categorical of each code column, length C."""
        return tuple(column.width for column in self.categorical)

    @cached_property
    def numeric_fields(self) -> tuple[str, ...]:
        """The field that each numeric column belongs to, length N."""
        return tuple(column.field for column in self.numeric)

    @cached_property
    def category_fields(self) -> tuple[str, ...]:
        """The field that each code column belongs to, length C; the last is MISSING_PATTERN."""
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

    def inverse_numeric(self, column: int, z: float) -> float:
        """The value in the record's own units that numeric column `column` would encode as `z`."""
        value = invert_scaling(z, self.numeric[column].scaling)
        return _readable(value, self.numeric[column].whole)

    def category(self, column: int, code: int) -> Any:
        """The value that `code` stands for in code column `column`, or a `Special`; for MISSING_PATTERN a phrase."""
        known = self.categorical[column]
        if known.kind == "presence":
            if code == UNKNOWN_ID:
                return Special.UNKNOWN
            absent = known.values[code - known.first]
            return f"without {', '.join(absent)}" if absent else "all fields present"
        if code == UNKNOWN_ID:
            return Special.UNKNOWN
        if code == MISSING_ID:
            return Special.MISSING
        return Special.OTHER if code < known.first else known.values[code - known.first]

    def expected(self, field: str, z: Sequence[float], code: int | None = None) -> Any:
        """What a reconstruction says that `field` should have been, in the record's own units.

        z: the reconstructed values of the field's numeric columns, in column order; code: its most probable code.
        A number for a numeric field, a value for categories, a template for text, "Tue 14:30" (UTC) for a time.
        """
        index = self._category_index.get(field)
        if index is not None and code is not None:
            return self.category(index, code)
        columns = self._numeric_of.get(field, ())
        if not columns or len(z) != len(columns):
            raise ValueError(f"{field!r} has {len(columns)} numeric columns, got {len(z)} values")
        if columns[0].transform == "cycle":
            pairs = zip(columns, z, strict=True)
            return _moment({column.part: invert_scaling(float(value), column.scaling) for column, value in pairs})
        return _readable(invert_scaling(float(z[0]), columns[0].scaling), columns[0].whole)

    def to_json(self) -> dict[str, Any]:
        """Plain data: dicts, lists, strings, numbers; equal objects give equal data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Fitted":
        """The inverse of `to_json`, also after a round trip through JSON text; BundleError where parts are missing."""
        try:
            return cls(
                schema_fingerprint=data["schema_fingerprint"],
                rows=data["rows"],
                numeric=tuple(NumericColumn(**column) for column in data["numeric"]),
                categorical=tuple(
                    CategoryColumn(**{**column, "values": _values(column)}) for column in data["categorical"]
                ),
                stats=tuple(FieldStats(**stats) for stats in data["stats"]),
            )
        except (KeyError, TypeError) as error:
            raise BundleError(f"the fitted fields are incomplete or of another version: {error!r}") from error


def _values(column: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(tuple(value) if isinstance(value, list) else value for value in column["values"])


def _readable(value: float, whole: bool) -> float:
    # Four digits: a reconstruction is no more exact than that.
    return round(value) if whole else significant(value, 4)


def _moment(parts: Mapping[str, float]) -> str:
    words = []
    if "weekday_sin" in parts:
        words.append(_WEEKDAYS[int(_turn(parts["weekday_sin"], parts["weekday_cos"]) * 7) % 7])
    if "hour_sin" in parts:
        minutes = round(_turn(parts["hour_sin"], parts["hour_cos"]) * 1440) % 1440
        words.append(f"{minutes // 60:02d}:{minutes % 60:02d}")
    return " ".join(words)


def _turn(sine: float, cosine: float) -> float:
    """The part of a full circle in [0, 1)."""
    return (math.atan2(sine, cosine) / math.tau) % 1.0
