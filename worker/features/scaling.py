"""How numbers come to a common scale, and back."""

from typing import NamedTuple

import numpy as np

from worker.records import FloatArray

PREPROCESSING = ("robust", "standard", "minmax")
TRANSFORMS = LINEAR, LOG1P, CYCLE = "linear", "log1p", "cycle"
FLOOR = 0.3

# A score sums squared errors over all fields. Without a knee, one number at a thousand times its scale has an error of
# a million: every threshold, every explanation and, where such records are fitted on, every gradient would be about
# that number. Beyond 10 scales a number therefore counts by its logarithm. It still grows, so that the wilder of two
# values has the higher score and `Scaling.invert` finds the way back, which a clip would not allow.
KNEE = 10.0

FARTHEST = 1e6  # the largest |z| without a knee: its square, summed over thousands of columns, fits into a float32
EPSILON = 1e-8
_MAX, _MIN = float(np.finfo(np.float64).max), float(np.finfo(np.float64).tiny)
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


def fit_scaling(
    x: FloatArray, transform: str = "auto", preprocessing: str = "robust", known: tuple[float, float] | None = None
) -> Scaling:
    """How a column comes to a common scale. "robust", which every preset uses whose source prescribes nothing else: the
    bulk of the column comes to lie around 0 with a spread of about 1, whatever its tails.

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

    "standard" is z = (y - mean) / (standard deviation + 1e-8), as PyOD has it, without a knee; "minmax" is
    z = (y - low) / (high - low). Both take the logarithm only where `transform` says so, and leave a constant column in
    its own units.

    x               finite values, float64 (n,); n = 0 is allowed
    transform       "linear", "log1p", or "auto" to decide by the values
    preprocessing   one of PREPROCESSING
    known           low and high of "minmax"; None = those of x

    >>> fit_scaling(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    Scaling(transform='linear', center=3.0, scale=1.482..., knee=True)
    >>> fit_scaling(np.array([1.0] * 9 + [5000.0])).transform
    'log1p'
    """
    if transform == "auto":
        transform = LOG1P if preprocessing == "robust" and _heavy_tailed(x) else LINEAR
    ends = np.array(known) if preprocessing == "minmax" and known is not None else x
    y = _signed_log1p(ends) if transform == LOG1P else ends
    knee = preprocessing != "standard"
    if len(y) == 0:
        return Scaling(transform, 0.0, 1.0, knee)
    if preprocessing == "minmax":
        return Scaling(transform, float(y.min()), min(float(y.max()) - float(y.min()), _MAX) or 1.0)
    peak, constant = float(np.abs(y).max()) or 1.0, bool((y == y[0]).all())
    u = y / peak  # in [-1, 1]: sums, differences and squares can't overflow
    if preprocessing == "standard":
        center, scale = float(u.mean()) * peak, float(u.std()) * peak + EPSILON
        return Scaling(transform, float(y[0]) if constant else center, 1.0 if constant else min(scale, _MAX), knee)
    center = float(np.median(u))
    low, high = np.quantile(u, [0.25, 0.75])
    spread = max(float(high - low) / 1.349, float(u.std())) * peak
    floor = FLOOR
    if transform == LINEAR:
        reach = float(np.abs(u - center).max()) * peak or abs(center) * peak or 1.0
        floor = max(FLOOR * min(1.0, reach), 1e-4 * abs(center) * peak)
    return Scaling(transform, float(y[0]) if constant else center * peak, min(max(spread, floor, _MIN), _MAX))


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
