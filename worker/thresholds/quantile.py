"""The plain policy: an exact quantile of the last W scores, anomalies included."""

from typing import Any

import numpy as np
from typing_extensions import override

from worker.records import FloatArray, TimeArray
from worker.thresholds.partition import WindowPolicy
from worker.thresholds.tail import tail_of
from worker.thresholds.window import ScoreWindow

MIN_ABOVE = 1.0
"""Scores expected above the quantile, below which a window without seed has no threshold yet."""


class SlidingQuantile(WindowPolicy):
    """Quantile of a sliding window that starts as a resample of the calibration scores.

    The quantile is numpy's "higher": a score that really occurred, so that no arithmetic can blur it.

    It works badly in floods: anomalies stay in the window and raise the threshold until they pass. And it lags behind
    drift and seasons by half a window. InlierQuantile mends both; this one is for streams without floods, and to
    compare with.

    calibration   scores of normal records (N,); empty: no threshold until the window holds enough
    quantile      share of scores at or below the threshold, in (0, 1)
    window        scores remembered

    >>> policy = SlidingQuantile(np.arange(100.0), quantile=0.9, window=1_000)
    >>> policy.threshold()
    90.0
    >>> policy.update(np.full(1_000, 7.0))
    >>> policy.threshold()
    7.0
    """

    def __init__(self, calibration: FloatArray, quantile: float = 0.995, window: int = 20_000) -> None:
        if not 0 < quantile < 1:
            raise ValueError(f"quantile {quantile} is not between 0 and 1")
        self.quantile = quantile
        self.window = ScoreWindow(calibration, window)
        self._calibration_rows = len(calibration)

    @override
    def threshold(self) -> float | None:
        if not self.window.seeded and self.window.count * (1 - self.quantile) < MIN_ABOVE:
            return None
        return self.window.quantile(self.quantile)

    @override
    def update(self, scores: FloatArray, event_time_ms: TimeArray | None = None) -> None:
        self.window.push(scores)

    @override
    def tail_probability(self, scores: FloatArray) -> FloatArray:
        if self.window.count == 0:
            return np.full(len(scores), np.nan)
        return tail_of(self.window, self._calibration_rows).probability(scores)

    @override
    def head(self) -> dict[str, Any]:
        return {"position": self.window.position}

    @override
    def restore(self, head: dict[str, Any], slots: dict[int, bytes]) -> None:
        self.window.restore(int(head["position"]), slots)
