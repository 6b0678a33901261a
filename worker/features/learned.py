"""What a fit learns about single fields: how numbers come to a common scale and back, vocabularies, what is usual.

    robust     see `fit_scaling`; what every preset uses whose source prescribes nothing else
    standard   z = (y - mean) / (standard deviation + 1e-8), as PyOD has it, without a knee
    minmax     z = (y - low) / (high - low), from the schema's range of a field, else from the fit data

The last two take the logarithm only of fields that the schema says `log1p` of. A constant column has no spread: there
its scale is 1 in its own units.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np

from worker.records import FloatArray

PREPROCESSING = ("robust", "standard", "minmax")
LINEAR, LOG1P, CYCLE = "linear", "log1p", "cycle"
FLOOR = 0.3

# A score sums squared errors over all fields. Without a knee, one number at a thousand times its scale has an error of
# a million: every threshold, every explanation and, where such records are fitted on, every gradient would be about
# that number. Beyond 10 scales a number therefore counts by its logarithm. It still grows, so that the wilder of two
# values has the higher score and `Scaling.invert` finds the way back, which a clip would not allow.
KNEE = 10.0

FARTHEST = 1e6
"""Largest |z| of a scaling without a knee: its square still fits into a float32, summed over thousands of columns."""

EPSILON = 1e-8
_MAX, _MIN = float(np.finfo(np.float64).max), float(np.finfo(np.float64).tiny)
_MAX_LOG = 709.0  # expm1 of more is beyond a double

MISSING_PATTERN = "(missing fields)"
"""The name under which the categorical column of the missing patterns appears, as if it were a field."""

UNKNOWN_ID, MISSING_ID = 0, 1


class Scaling(NamedTuple):
    """How a column is scaled.

    transform       "linear", "log1p" or "cycle" (already bounded)
    center, scale   in transformed units
    knee            whether values beyond 10 scales are drawn in
    """

    transform: str
    center: float
    scale: float
    knee: bool = True

    def apply(self, x: FloatArray) -> FloatArray:
        """z, float64 (B,), finite for every finite x."""
        y = _signed_log1p(x) if self.transform == LOG1P else x
        with np.errstate(over="ignore"):
            z = (y - self.center) / self.scale
        if not self.knee:
            return np.clip(z, -FARTHEST, FARTHEST)
        size = np.abs(z)
        if not (size > KNEE).any():
            return z
        beyond = np.minimum(size, _MAX) - KNEE
        return np.where(size > KNEE, np.copysign(KNEE + np.log1p(np.maximum(beyond, 0.0)), z), z)

    def invert(self, z: float) -> float:
        """The x, in its own units, that has this z; finite for every finite z."""
        size = abs(z)
        if self.knee and size > KNEE:
            size = KNEE + float(np.expm1(min(size - KNEE, _MAX_LOG)))
        y = min(size, _MAX / max(self.scale, 1.0) / 2) * self.scale * (1.0 if z >= 0 else -1.0) + self.center
        if self.transform == LOG1P:
            y = float(np.copysign(np.expm1(min(abs(y), _MAX_LOG)), y))
        return max(-_MAX, min(_MAX, y))


def fit_scaling(x: FloatArray, transform: str = "auto") -> Scaling:
    """Robust scaling: the bulk of a column comes to lie around 0 with a spread of about 1, whatever its tails.

        y = x, or sign(x) log(1 + |x|) where the values are heavy-tailed (max |x| > 10 and |skewness| > 1.5)
        z = (y - median) / max(IQR / 1.349, standard deviation, floor)
        z = sign(z) (10 + log(1 + |z| - 10))     where |z| > 10, the knee

    IQR / 1.349 is the standard deviation of a normal distribution (Huber, "Robust Statistics", 1981). The floor keeps a
    nearly constant column from exploding. In log units it is 0.3. In linear units it is 0.3 of the distance that the
    values ever leave their median by, at most 0.3: a rate that covers [0, 1] gets 0.3, an amount of a few millionths
    keeps its spread. It is at least a ten-thousandth of the median, so that rounding noise on a large constant stays
    noise; for an exact constant c it is 0.3 min(1, |c|), or 0.3 where c is 0.

    It works badly for two populations that lie far apart (all of either is at the same z, its own spread is lost), for
    whole numbers that are names, and where the standard deviation is that of a few wild values in a short tail, which
    the skewness does not give away.

    x           finite values, float64 (n,); n = 0 is allowed
    transform   "linear", "log1p", or "auto" to decide by the values

    >>> fit_scaling(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    Scaling(transform='linear', center=3.0, scale=1.482..., knee=True)
    >>> fit_scaling(np.array([1.0] * 9 + [5000.0])).transform
    'log1p'
    """
    if transform == "auto":
        transform = LOG1P if _heavy_tailed(x) else LINEAR
    if len(x) == 0:
        return Scaling(transform, 0.0, 1.0)
    y = _signed_log1p(x) if transform == LOG1P else x
    peak = float(np.abs(y).max()) or 1.0
    u = y / peak  # in [-1, 1]: sums and differences can't overflow
    center = float(np.median(u))
    low, high = np.quantile(u, [0.25, 0.75])
    spread = max(float(high - low) / 1.349, float(u.std())) * peak
    floor = FLOOR
    if transform == LINEAR:
        reach = float(np.abs(u - center).max()) * peak or abs(center) * peak or 1.0
        floor = max(FLOOR * min(1.0, reach), 1e-4 * abs(center) * peak)
    center = float(y[0]) if (y == y[0]).all() else center * peak
    return Scaling(transform, center, min(max(spread, floor, _MIN), _MAX))


def fit_preprocessing(
    x: FloatArray, preprocessing: str, transform: str = "auto", known: tuple[float, float] | None = None
) -> Scaling:
    """The scaling of one of PREPROCESSING for these finite values, float64 (n,); n = 0 is allowed.

    known   smallest and largest value that can occur, for "minmax"; None = those of x
    """
    if preprocessing == "robust":
        return fit_scaling(x, transform)
    transform, knee = LOG1P if transform == LOG1P else LINEAR, preprocessing == "minmax"
    ends = np.array(known) if knee and known is not None else x
    y = _signed_log1p(ends) if transform == LOG1P else ends
    if len(y) == 0:
        return Scaling(transform, 0.0, 1.0, knee)
    if preprocessing == "minmax":
        return Scaling(transform, float(y.min()), min(float(y.max()) - float(y.min()), _MAX) or 1.0)
    if (y == y[0]).all():
        return Scaling(transform, float(y[0]), 1.0, knee)
    peak = float(np.abs(y).max())
    u = y / peak  # in [-1, 1]: squares can't overflow
    return Scaling(transform, float(u.mean()) * peak, min(float(u.std()) * peak + EPSILON, _MAX), knee)


def _signed_log1p(x: FloatArray) -> FloatArray:
    return np.copysign(np.log1p(np.abs(x)), x)


def _heavy_tailed(x: FloatArray) -> bool:
    peak = float(np.abs(x).max()) if len(x) else 0.0
    if peak <= 10:
        return False
    u = x / peak
    u = u - u.mean()
    deviation = float(u.std())
    return deviation > 0 and abs(float((u**3).mean())) > 1.5 * deviation**3


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
    transform, center, scale, knee   see Scaling
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
        """How it was scaled."""
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

    def value(self, category_id: int) -> Any:
        """The value that an id stands for, or a `Special`; for a missing pattern a phrase."""
        if category_id == UNKNOWN_ID:
            return Special.UNKNOWN
        if self.field == MISSING_PATTERN:
            absent = self.values[category_id - self.first]
            return f"without {', '.join(absent)}" if absent else "all fields present"
        if category_id == MISSING_ID:
            return Special.MISSING
        return Special.OTHER if category_id < self.first else self.values[category_id - self.first]


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
