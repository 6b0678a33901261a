"""A threshold that was decided before the first record came: a given number, or what the training scores say."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.records import FloatArray
from worker.thresholds.tail import RANKED, Tail, fit_tail
from worker.thresholds.window import require_finite


class FixedThreshold:
    """Always the same number, whatever the traffic does; see worker.thresholds.rule for where it comes from.

    training  sorted scores of the fitted records (n,), for the tail probabilities; may be empty
    """

    def __init__(self, theta: float, training: FloatArray) -> None:
        self._theta = theta
        self._training = training
        self._tail: Tail | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "FixedThreshold":
        """Itself: nothing in it ever changes, and the training scores need not stand in memory for each partition."""
        del memo
        return self

    def threshold(self) -> float:
        """The number."""
        return self._theta

    def update(self, scores: FloatArray, event_time_ms: NDArray[np.int64] | None = None) -> None:  # noqa: ARG002
        """Nothing is learned. ValueError if a score is not finite, as every policy has it."""
        require_finite(scores)

    def tail_probability(self, scores: FloatArray) -> FloatArray:
        """Share of training scores at least as high as scores (B,), float64 (B,); NaN where there are none."""
        if len(self._training) == 0:
            return np.full(len(scores), np.nan)
        if self._tail is None:
            self._tail = fit_tail(self._training, len(self._training), RANKED)
        return self._tail.probability(scores)

    def head(self) -> dict[str, Any]:
        """The small part of the state: all of it."""
        return {"fixed": self._theta}

    def slots(self) -> dict[int, bytes]:
        """None."""
        return {}

    def take_changed_slots(self) -> dict[int, bytes]:
        """None."""
        return {}

    def restore(self, head: dict[str, Any], slots: dict[int, bytes]) -> None:
        """ValueError when the state is of another threshold."""
        if slots or head.get("fixed") != self._theta:
            raise ValueError(f"saved state is of the threshold {head.get('fixed')}, this one is {self._theta}")
