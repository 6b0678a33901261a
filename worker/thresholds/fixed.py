"""A threshold that was decided before the first record came: a number, or what the training scores say."""

from typing import Any

import numpy as np
from typing_extensions import override

from worker.records import FloatArray, TimeArray
from worker.thresholds.partition import ThresholdPolicy
from worker.thresholds.tail import RANKED, Tail, fit_tail
from worker.thresholds.window import require_finite


class FixedThreshold(ThresholdPolicy):
    """Always the same number, whatever the traffic does.

    theta      the threshold
    training   sorted scores of the fitted records (n,), for the tail probabilities; may be empty
    """

    def __init__(self, theta: float, training: FloatArray) -> None:
        self._theta = theta
        self._training = training
        self._tail: Tail | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "FixedThreshold":
        """Itself: nothing in it ever changes, and the training scores need not stand in memory for each partition."""
        del memo
        return self

    @override
    def threshold(self) -> float:
        return self._theta

    @override
    def update(self, scores: FloatArray, event_time_ms: TimeArray | None = None) -> None:
        require_finite(scores)

    @override
    def tail_probability(self, scores: FloatArray) -> FloatArray:
        if len(self._training) == 0:
            return np.full(len(scores), np.nan)
        if self._tail is None:
            self._tail = fit_tail(self._training, len(self._training), RANKED)
        return self._tail.probability(scores)

    @override
    def head(self) -> dict[str, Any]:
        return {"fixed": self._theta}

    @override
    def restore(self, head: dict[str, Any], slots: dict[int, bytes]) -> None:
        if slots or head.get("fixed") != self._theta:
            raise ValueError(f"saved state is of the threshold {head.get('fixed')}, this one is {self._theta}")
