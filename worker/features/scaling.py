"""How one numeric column is brought to a common scale, and back to its own units.

    y = x, or sign(x) log(1 + |x|) where the values are heavy-tailed
    z = (y - center) / scale                     center = median; scale = max(IQR / 1.349, standard deviation, floor)
    z = sign(z) (10 + log(1 + |z| - 10))         where |z| > 10, so that one wild value can't drown the rest

Heavy-tailed ("auto"): max |x| > 10 and |skewness| > 1.5.

The floor keeps a nearly constant column from exploding. In log units it is 0.3. In linear units it is 0.3 of the
distance that the fit data ever leave their median by, at most 0.3: a rate that covers [0, 1] gets 0.3, an amount of a
few millionths keeps its spread. It is at least a ten-thousandth of the median, so that rounding noise on a large
constant stays noise; for an exact constant c it is 0.3 min(1, |c|), or 0.3 where c is 0.

That is `robust`. Two others are there for models whose source prescribes them. They take the logarithm only of fields
that the schema says `log1p` of:

    standard   z = (y - mean) / (standard deviation + 1e-8), as PyOD has it, without a bend beyond 10
    minmax     z = (y - low) / (high - low), from the schema's range of a field, else from the fit data

A constant column has no spread: its scale is 1 in its own units.
"""

from typing import NamedTuple

import numpy as np

from worker.records import FloatArray

PREPROCESSING = ("robust", "standard", "minmax")
LINEAR, LOG1P, CYCLE = "linear", "log1p", "cycle"
FLOOR = 0.3
KNEE = 10.0
FARTHEST = 1e6
"""Largest |z| of a scaling without a knee: its square still fits into a float32, summed over thousands of columns."""

EPSILON = 1e-8
_LARGEST = float(np.finfo(np.float64).max)
_SMALLEST = float(np.finfo(np.float64).tiny)
_LARGEST_LOG = 709.0  # expm1 of more is beyond a double


class Scaling(NamedTuple):
    """transform: "linear", "log1p" or "cycle" (already bounded); center and scale in transformed units.

    knee: whether values beyond 10 scales are drawn in.
    """

    transform: str
    center: float
    scale: float
    knee: bool = True


def fit_scaling(x: FloatArray, transform: str) -> Scaling:
    """The scaling for these finite values, float64 (n,); n = 0 is allowed. `transform`: auto, linear or log1p."""
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
    floor = FLOOR if transform == LOG1P else _linear_floor(float(np.abs(u - center).max()), center, peak)
    center *= peak
    if (y == y[0]).all():
        center = float(y[0])
    return Scaling(transform, center, min(max(spread, floor, _SMALLEST), _LARGEST))


def fit_standard(x: FloatArray, transform: str) -> Scaling:
    """The `standard` scaling for these finite values, float64 (n,); n = 0 is allowed."""
    transform = LOG1P if transform == LOG1P else LINEAR
    y = _signed_log1p(x) if transform == LOG1P else x
    if len(y) == 0 or (y == y[0]).all():
        return Scaling(transform, float(y[0]) if len(y) else 0.0, 1.0, knee=False)
    peak = float(np.abs(y).max())
    u = y / peak  # in [-1, 1]: squares can't overflow
    return Scaling(transform, float(u.mean()) * peak, min(float(u.std()) * peak + EPSILON, _LARGEST), knee=False)


def fit_range(x: FloatArray, transform: str, known: tuple[float, float] | None) -> Scaling:
    """The `minmax` scaling of a known range, else of these finite values, float64 (n,); n = 0 is allowed."""
    transform = LOG1P if transform == LOG1P else LINEAR
    ends = np.array(known) if known is not None else x
    y = _signed_log1p(ends) if transform == LOG1P else ends
    if len(y) == 0:
        return Scaling(transform, 0.0, 1.0)
    low, high = float(y.min()), float(y.max())
    return Scaling(transform, low, min(high - low, _LARGEST) or 1.0)


def fit_preprocessing(
    x: FloatArray, preprocessing: str, transform: str = "auto", known_range: tuple[float, float] | None = None
) -> Scaling:
    """The scaling that one of PREPROCESSING finds for these finite values, float64 (n,)."""
    if preprocessing == "standard":
        return fit_standard(x, transform)
    return fit_range(x, transform, known_range) if preprocessing == "minmax" else fit_scaling(x, transform)


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
    beyond = np.minimum(size, _LARGEST) - KNEE
    return np.where(size > KNEE, np.copysign(KNEE + np.log1p(np.maximum(beyond, 0.0)), z), z)


def invert_scaling(z: float, scaling: Scaling) -> float:
    """The x, in its own units, that has this z; finite for every finite z."""
    size = abs(z)
    if scaling.knee and size > KNEE:
        size = KNEE + float(np.expm1(min(size - KNEE, _LARGEST_LOG)))
    y = min(size, _LARGEST / max(scaling.scale, 1.0) / 2) * scaling.scale * (1.0 if z >= 0 else -1.0) + scaling.center
    if scaling.transform == LOG1P:
        y = float(np.copysign(np.expm1(min(abs(y), _LARGEST_LOG)), y))
    return max(-_LARGEST, min(_LARGEST, y))


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


def _linear_floor(distance: float, center: float, peak: float) -> float:
    """`distance` and `center` are in units of `peak`."""
    reach = distance * peak or abs(center) * peak or 1.0
    return max(FLOOR * min(1.0, reach), 1e-4 * abs(center) * peak)
