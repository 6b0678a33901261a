"""How rare a score is among the inliers.

Where inliers with higher scores abound, their share is the probability (a conformal p-value: (1 + above) / (1 + n));
beyond, a generalised Pareto tail goes on from there.
"""

from dataclasses import dataclass

import numpy as np

from worker.records import FloatArray
from worker.thresholds.window import EMPTY, ScoreWindow

TAIL_SHARE = 0.05
"""Share of the window that counts as its tail, about; tail probabilities tell nothing of what is more common."""

RANKED = 10
"""Independent scores above, with which a rank is trusted; with fewer the fitted tail takes over."""

FITTED = 20
"""Scores that the tail is fitted to, in multiples of those above its anchor."""

MIN_SHAPE, MAX_SHAPE = -0.5, 0.9
"""Bounds of the fitted shape: below, the end of the tail is all chance; above, moments do not exist."""

MIN_PROBABILITY = 1e-9
"""No window can tell rarer scores apart."""


@dataclass(frozen=True)
class Tail:
    """The upper tail of `total` inliers.

    top            its scores, float64 ascending (m,), m >= 1
    total          scores of which these are the highest
    anchor         score from which on the fitted tail holds; infinite where ranks say it all
    anchored       tail probability at the anchor
    shape, scale   generalised Pareto distribution of what exceeds the anchor; scale 0: nothing is known beyond
    """

    top: FloatArray
    total: int
    anchor: float
    anchored: float
    shape: float
    scale: float

    def probability(self, scores: FloatArray) -> FloatArray:
        """Share of inliers with a score at least as high, for scores (B,): float64 (B,).

        From MIN_PROBABILITY to the share of `top`; scores below the tail get the latter.
        """
        above = len(self.top) - np.searchsorted(self.top, scores, side="left")
        ranked = (1 + above) / (1 + self.total)
        if self.scale <= 0:
            return ranked
        excess = np.maximum(scores - self.anchor, 0.0) / self.scale
        if abs(self.shape) < 1e-6:
            beyond = np.exp(-excess)
        else:
            log = np.log(np.maximum(1 + self.shape * excess, 1e-300))
            beyond = np.exp(-log / self.shape)
        fitted = np.maximum(self.anchored * beyond, MIN_PROBABILITY)
        return np.where(scores > self.anchor, fitted, ranked)


def tail_of(
    window: ScoreWindow, calibration_rows: int, cutoff: float = np.inf, moves: FloatArray | None = None
) -> Tail:
    """The tail of the window's inliers; ValueError when there are none.

    calibration_rows   rows that the window's seed was made of: many seed scores stand for few rows, so that ranks are
                       trusted the less the more seed is left
    cutoff             scores from here on are no inliers
    moves              factors (slots,) that carry the scores of each slot to the location now
    """
    scores = window.by_slot
    inlier = (scores > EMPTY) & (scores < cutoff)
    if moves is not None:
        scores = np.where(inlier, scores, 0.0) * moves[:, np.newaxis]
    total = int(np.count_nonzero(inlier))
    if total == 0:
        raise ValueError("a window without inliers has no tail")
    column = max(0, round((1 - TAIL_SHARE) * window.slot_scores) - 1)
    start = min(float(np.median(scores[:, column])), float(scores[inlier].max()))
    top = np.sort(scores[inlier & (scores >= start)])
    independent = min(window.size, calibration_rows + window.position)
    return fit_tail(top, total, max(1, round(RANKED * window.count / independent)))


def fit_tail(top: FloatArray, total: int, ranked: int) -> Tail:
    """A generalised Pareto tail from the highest of `total` scores, by probability-weighted moments.

    It works badly where the highest scores are ties, or too few: then ranks have to do, and all scores beyond the
    highest one are equally rare. And it extrapolates: of a probability of 1 in 100,000 from 20,000 scores, expect the
    order of magnitude.

    top      the highest scores, float64 ascending (m,), m >= 1
    total    number of scores of which these are the highest
    ranked   rank, from above, of the score that the fitted tail is anchored at

    >>> tail = fit_tail(-np.log(1 - (np.arange(9_000, 10_000) + 0.5) / 10_000), total=10_000, ranked=10)
    >>> -np.log10(tail.probability(np.array([3.0, 6.0, 12.0]) * np.log(10))).round(1)  # of 1e-3, 1e-6, 1e-12
    array([3., 6., 9.])

    Hosking and Wallis, "Parameter and Quantile Estimation for the Generalized Pareto Distribution", Technometrics 29
    (1987); the fit is their equation for the shape and scale from the first two moments.
    """
    if len(top) <= ranked + 1:
        ranked = max(1, len(top) // 2)
    anchor = float(top[-ranked])
    anchored = (1 + ranked) / (1 + total)
    start = max(0, len(top) - 1 - FITTED * ranked)
    excess = top[start + 1 :] - top[start]
    first = float(excess.mean()) if len(excess) else 0.0
    weight = 1 - (np.arange(1, len(excess) + 1) - 0.35) / max(1, len(excess))
    second = float((weight * excess).mean()) if len(excess) else 0.0
    spread = first - 2 * second
    if second <= 0 or spread <= 0:  # ties, or too few
        return Tail(top, total, np.inf, anchored, 0.0, 0.0)
    shape = min(max(2 - first / spread, MIN_SHAPE), MAX_SHAPE)
    scale = first * (1 - shape)  # keeps the mean, also where the shape was bounded
    return Tail(top, total, anchor, anchored, shape, scale + shape * (anchor - float(top[start])))
