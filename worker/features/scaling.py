"""How one numeric column is brought to a common scale, and back to its own units.

    robust     see `fit_scaling`; what every preset uses whose source prescribes nothing else
    standard   z = (y - mean) / (standard deviation + 1e-8), as PyOD has it, without a knee
    minmax     z = (y - low) / (high - low), from the schema's range of a field, else from the fit data

The last two take the logarithm only of fields that the schema says `log1p` of. A constant column has no spread: there
its scale is 1 in its own units.
"""

from typing import NamedTuple

import numpy as np

from worker.records import FloatArray

PREPROCESSING = ("robust", "standard", "minmax")
LINEAR, LOG1P, CYCLE = "linear", "log1p", "cycle"
FLOOR = 0.3

# A score sums squared errors over all fields. Without a knee, one number at a thousand times its scale has an error of
# a million: every threshold, every explanation and, where such records are fitted on, every gradient would be about
# that number. Beyond 10 scales a number therefore counts by its logarithm. It still grows, so that the wilder of two
# values has the higher score and `invert_scaling` finds the way back, which a clip would not allow.
KNEE = 10.0

FARTHEST = 1e6
"""Largest |z| of a scaling without a knee: its square still fits into a float32, summed over thousands of columns."""

EPSILON = 1e-8
_MAX = float(np.finfo(np.float64).max)
_MIN = float(np.finfo(np.float64).tiny)
_MAX_LOG = 709.0  # expm1 of more is beyond a double


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


def fit_standard(x: FloatArray, transform: str) -> Scaling:
    """The `standard` scaling for these finite values, float64 (n,); n = 0 is allowed."""
    transform = LOG1P if transform == LOG1P else LINEAR
    y = _signed_log1p(x) if transform == LOG1P else x
    if len(y) == 0 or (y == y[0]).all():
        return Scaling(transform, float(y[0]) if len(y) else 0.0, 1.0, knee=False)
    peak = float(np.abs(y).max())
    u = y / peak  # in [-1, 1]: squares can't overflow
    return Scaling(transform, float(u.mean()) * peak, min(float(u.std()) * peak + EPSILON, _MAX), knee=False)


def fit_range(x: FloatArray, transform: str, known: tuple[float, float] | None) -> Scaling:
    """The `minmax` scaling of a known range, else of these finite values, float64 (n,); n = 0 is allowed."""
    transform = LOG1P if transform == LOG1P else LINEAR
    ends = np.array(known) if known is not None else x
    y = _signed_log1p(ends) if transform == LOG1P else ends
    if len(y) == 0:
        return Scaling(transform, 0.0, 1.0)
    low, high = float(y.min()), float(y.max())
    return Scaling(transform, low, min(high - low, _MAX) or 1.0)


def fit_preprocessing(
    x: FloatArray, preprocessing: str, transform: str = "auto", known: tuple[float, float] | None = None
) -> Scaling:
    """The scaling of one of PREPROCESSING for these finite values, float64 (n,); known: smallest and largest value."""
    if preprocessing == "standard":
        return fit_standard(x, transform)
    return fit_range(x, transform, known) if preprocessing == "minmax" else fit_scaling(x, transform)


def apply_scaling(x: FloatArray, scaling: Scaling) -> FloatArray:
    """z, float64 (B,), finite for every finite x."""
    y = _signed_log1p(x) if scaling.transform == LOG1P else x
    with np.errstate(over="ignore"):
        z = (y - scaling.center) / scaling.scale
    if not scaling.knee:
        return np.clip(z, -FARTHEST, FARTHEST)
    size = np.abs(z)
    if not (size > KNEE).any():
        return z
    beyond = np.minimum(size, _MAX) - KNEE
    return np.where(size > KNEE, np.copysign(KNEE + np.log1p(np.maximum(beyond, 0.0)), z), z)


def invert_scaling(z: float, scaling: Scaling) -> float:
    """The x, in its own units, that has this z; finite for every finite z."""
    size = abs(z)
    if scaling.knee and size > KNEE:
        size = KNEE + float(np.expm1(min(size - KNEE, _MAX_LOG)))
    y = min(size, _MAX / max(scaling.scale, 1.0) / 2) * scaling.scale * (1.0 if z >= 0 else -1.0) + scaling.center
    if scaling.transform == LOG1P:
        y = float(np.copysign(np.expm1(min(abs(y), _MAX_LOG)), y))
    return max(-_MAX, min(_MAX, y))


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
