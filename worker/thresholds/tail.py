"""How rare a score is among ordinary ones, and the severity that follows from it.

Where enough ordinary scores lie above, their share is the probability (a conformal p-value: (1 + above) / (1 + n));
beyond, a generalised Pareto tail goes on from there, fitted by probability-weighted moments (Hosking and Wallis 1987).
"""

from dataclasses import dataclass

import numpy as np

from worker.records import FloatArray
from worker.thresholds.window import EMPTY, ScoreWindow

TAIL_SHARE = 0.05
"""Share of the window that counts as its tail, about; rarer is all that a tail probability can tell."""

RANKED = 10
"""Independent scores above, with which a rank is trusted; with fewer the fitted tail takes over."""

FITTED = 20
"""Scores that the tail is fitted to, in multiples of those above its anchor."""

SHAPE_LOW, SHAPE_HIGH = -0.5, 0.9
"""Bounds of the fitted shape: below, the end of the tail is all chance; above, moments do not exist."""

LEAST_PROBABILITY = 1e-9
"""No window can tell rarer scores apart."""

WARNING_BELOW = 1e-3
"""Tail probability under which an alert is a warning: one ordinary record in 1,000."""

CRITICAL_BELOW = 1e-5
"""Tail probability under which an alert is critical: one ordinary record in 100,000."""


def severity(tail_probability: float) -> str:
    """`critical`, `warning` or `info`; NaN, a score whose rarity is not known, is `info`."""
    if tail_probability < CRITICAL_BELOW:
        return "critical"
    return "warning" if tail_probability < WARNING_BELOW else "info"


@dataclass(frozen=True)
class Tail:
    """The upper tail of `total` ordinary scores.

    top            its scores, float64 ascending (m,), m >= 1
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
        """Share of ordinary scores that are at least as high, for scores (B,): float64 (B,).

        From LEAST_PROBABILITY to the share of `top`; scores below the tail get the latter.
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
        fitted = np.maximum(self.anchored * beyond, LEAST_PROBABILITY)
        return np.where(scores > self.anchor, fitted, ranked)


def tail_of(window: ScoreWindow, calibration_rows: int, cut: float = np.inf, moved: FloatArray | None = None) -> Tail:
    """The tail of the window's scores below `cut`; ValueError when there are none.

    moved: factors (slots,) that carry the scores of each slot to the level now.

    calibration_rows: rows that the window's seed was made of. Many seed scores stand for few rows, so that ranks are
    trusted the less the more seed is left.
    """
    scores = window.by_slot
    ordinary = (scores > EMPTY) & (scores < cut)
    if moved is not None:
        scores = np.where(ordinary, scores, 0.0) * moved[:, np.newaxis]
    total = int(np.count_nonzero(ordinary))
    if total == 0:
        raise ValueError("a window without ordinary scores has no tail")
    place = max(0, round((1 - TAIL_SHARE) * window.slot_scores) - 1)
    start = min(float(np.median(scores[:, place])), float(scores[ordinary].max()))
    top = np.sort(scores[ordinary & (scores >= start)])
    independent = min(window.size, calibration_rows + window.position)
    return fit_tail(top, total, max(1, round(RANKED * window.count / independent)))


def fit_tail(top: FloatArray, total: int, ranked: int) -> Tail:
    """The tail from its scores (m,) ascending out of `total`, anchored at the one of rank `ranked` from above."""
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
    shape = min(max(2 - first / spread, SHAPE_LOW), SHAPE_HIGH)
    scale = first * (1 - shape)  # keeps the mean, also where the shape was bounded
    return Tail(top, total, anchor, anchored, shape, scale + shape * (anchor - float(top[start])))
