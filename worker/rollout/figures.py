"""What two models made of the same sample, in a few numbers."""

import numpy as np
from numpy.typing import NDArray

from worker.records import FloatArray

QUARTILES = (0.25, 0.5, 0.75)
SMALLEST = 1e-12  # scores below are as good as none


def body(scores: FloatArray, calibration: FloatArray) -> float:
    """How many times as high as in the calibration (N,) the bulk of scores (S,) lies; 1 where either is empty.

    The median of the ratios of the three quartiles: a flood in the upper half moves it little.
    """
    if len(scores) == 0 or len(calibration) == 0:
        return 1.0
    now, then = (np.maximum(np.quantile(values, QUARTILES), SMALLEST) for values in (scores, calibration))
    return float(np.median(now / then))


def wins(mixed: FloatArray, score: FloatArray) -> FloatArray:
    """1 where a record scores higher with a field of another record than as it is, 0 where lower, 0.5 where equal."""
    return np.where(mixed > score, 1.0, np.where(mixed < score, 0.0, 0.5))


def rank_correlation(first: FloatArray, second: FloatArray) -> float | None:
    """Spearman's, with mean ranks for ties; None for fewer than two records or a constant side."""
    if len(first) < 2:
        return None
    ranks = [_ranks(values) for values in (first, second)]
    centred = [rank - rank.mean() for rank in ranks]
    norm = float(np.sqrt((centred[0] @ centred[0]) * (centred[1] @ centred[1])))
    return float(centred[0] @ centred[1]) / norm if norm > 0 else None


def _ranks(values: FloatArray) -> FloatArray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: FloatArray = last - (counts - 1) / 2
    return mean[place]


def above(scores: FloatArray, thresholds: FloatArray, times: float = 1.0) -> NDArray[np.bool_]:
    """Where a score is beyond so many times its threshold; never without one."""
    with np.errstate(invalid="ignore"):
        beyond: NDArray[np.bool_] = scores > times * thresholds
    return beyond
