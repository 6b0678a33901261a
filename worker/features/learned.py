"""What a fit has learned about single fields: plain data, and the ids that stand for no value."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from worker.features.scaling import Scaling

MISSING_PATTERN = "(missing fields)"
"""The name under which the categorical column of the missing patterns appears, as if it were a field."""

UNKNOWN_ID = 0
MISSING_ID = 1


class Special(StrEnum):
    """Category ids that stand for no value of the data, in words."""

    UNKNOWN = "never seen before"
    MISSING = "missing"
    OTHER = "a rare value"


@dataclass(frozen=True)
class NumericColumn:
    """One column of the model's numeric input.

    field       name of the field that it belongs to
    part        which of the field's numbers: "value", "length" of a text, "hour_sin", "hour_cos", "weekday_sin", …
    transform, center, scale, knee   see worker.features.scaling.Scaling
    whole       all values at fit were whole numbers
    imputed     stands for a missing value, scaled
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
    """One column of the model's categorical input. Its ids: 0 for a value never seen before, 1 for a missing one, then
    the spare ones, then the vocabulary.

    field    name of the field, or MISSING_PATTERN
    kind     the field's kind; "presence" for missing patterns, which have no id for missing
    values   the vocabulary, most frequent first; a missing pattern is the tuple of the missing fields' names
    spare    ids for values beyond the vocabulary's limit: one for all of them, or as many as there are hash buckets
    """

    field: str
    kind: str
    values: tuple[Any, ...]
    spare: int = 0

    @property
    def first(self) -> int:
        """The id of values[0]."""
        return 1 if self.kind == "presence" else 2 + self.spare

    @property
    def width(self) -> int:
        """How many ids there are: 0 <= id < width."""
        return self.first + len(self.values)


@dataclass(frozen=True)
class FieldStats:
    """What is usual for a field, in the record's own units.

    low, median, high   values at 1%, 50% and 99%, of a text its length; None for a field without numbers
    top                 the most frequent category, of a text its template; None for a field without categories
    """

    field: str
    low: float | None = None
    high: float | None = None
    median: float | None = None
    top: Any = None
