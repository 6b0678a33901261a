"""The plain policy: an exact quantile of the last W scores, anomalies included."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.records import FloatArray
from worker.thresholds.tail import tail_of
from worker.thresholds.window import ScoreWindow

TOO_FEW = 1.0
"""Scores expected above the quantile, below which a window without seed has no threshold yet."""


class SlidingQuantile:
    """Quantile of a sliding window that starts as a resample of the calibration scores.

    The quantile is numpy's "higher": a score that really occurred, so that no arithmetic can blur it.

    calibration  scores of known ordinary records (N,); empty: no threshold until the window holds enough
    quantile     share of scores at or below the threshold, in (0, 1)
    window       scores remembered
    """

    def __init__(self, calibration: FloatArray, quantile: float = 0.995, window: int = 20_000) -> None:
        if not 0 < quantile < 1:
            raise ValueError(f"quantile {quantile} is not between 0 and 1")
        self.quantile = quantile
        self.window = ScoreWindow(calibration, window)
        self._rows = len(calibration)

    def threshold(self) -> float | None:
        """The quantile of the window as it stands; None while there is too little in it."""
        if not self.window.seeded and self.window.count * (1 - self.quantile) < TOO_FEW:
            return None
        return self.window.quantile(self.quantile)

    def update(self, scores: FloatArray, event_time_ms: NDArray[np.int64] | None = None) -> None:  # noqa: ARG002
        """Let scores (B,) enter in offset order; times are not used. ValueError if one is not finite."""
        self.window.push(scores)

    def tail_probability(self, scores: FloatArray) -> FloatArray:
        """Share of the window's scores at least as high as scores (B,), float64 (B,); NaN while it is empty."""
        if self.window.count == 0:
            return np.full(len(scores), np.nan)
        return tail_of(self.window, self._rows).probability(scores)

    def head(self) -> dict[str, Any]:
        """The small part of the state, plain data: all but the slots."""
        return {"position": self.window.position}

    def slots(self) -> dict[int, bytes]:
        """Every slot of the window, encoded."""
        return self.window.slots()

    def take_changed_slots(self) -> dict[int, bytes]:
        """The slots of the window that changed since the last call, encoded; all of them at first."""
        return self.window.take_changed_slots()

    def restore(self, head: dict[str, Any], slots: dict[int, bytes]) -> None:
        """Continue from a saved head and every slot. ValueError when they do not fit."""
        self.window.restore(int(head["position"]), slots)
