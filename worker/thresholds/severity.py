"""How severe an exceedance is: by its tail probability, and in the order of what else happens within the hour."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.records import FloatArray, TimeArray
from worker.thresholds.window import MAX_SAVED, saved_integer, saved_number

SEVERITIES = ("info", "warning", "critical")
WARNING_BELOW, CRITICAL_BELOW = 1e-3, 1e-5  # tail probabilities: one inlier in 1,000, or 100,000, has such a score
HOUR_MS = 3_600_000
MAX_HOURS = 24  # hours in memory: records up to a day late find the strongest of their hour


def level_of(tail_probability: float) -> int:
    """The place in SEVERITIES; NaN, a score whose rarity is not known, is `info`.

    >>> [SEVERITIES[level_of(probability)] for probability in (5e-6, 5e-4, 0.004, np.nan)]
    ['critical', 'warning', 'info', 'info']
    """
    return (tail_probability < WARNING_BELOW) + (tail_probability < CRITICAL_BELOW)


class SeverityOrder:
    """Severities of one partition's exceedances, of which the strongest of an hour is never less severe than another.

    The tail probability decides. But a tail is estimated anew again and again, and a threshold moves: so of two
    exceedances of an hour the stronger one could be called the less severe. Therefore the strongest so far, by score
    and in multiples of its threshold, and the highest severity so far are remembered for each hour of event time. What
    is stronger than both is no less severe than that; what is stronger by one measure alone is exactly as severe; all
    else is no more severe. Records without a time are of one hour.

    >>> order = SeverityOrder()
    >>> now = np.zeros(1, np.int64)
    >>> [int(order.judge(np.array([score]), np.ones(1), np.array([tail]), now)[0]) for score, tail in
    ...  ((3.0, 1e-4), (4.0, 1e-2), (2.0, 1e-9), (9.0, 1e-9))]
    [1, 1, 1, 2]
    """

    def __init__(self) -> None:
        self._hours: dict[int, tuple[float, float, int]] = {}  # score, multiple, severity; the latest used one last

    def judge(
        self, scores: FloatArray, thresholds: FloatArray, tails: FloatArray, event_time_ms: TimeArray
    ) -> NDArray[np.int8]:
        """Places in SEVERITIES, int8 (B,), of exceedances (B,) in offset order, and remember them."""
        with np.errstate(divide="ignore"):
            multiples = np.where(thresholds > 0, scores / thresholds, scores)
        columns = (scores, multiples, tails, event_time_ms // HOUR_MS)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return np.array([self._judge(*row) for row in rows], np.int8)

    def _judge(self, score: float, multiple: float, tail: float, hour: int) -> int:
        level = level_of(tail)
        strongest = self._hours.pop(hour, None)
        if strongest is None:
            self._hours[hour] = (score, multiple, level)
            if len(self._hours) > MAX_HOURS:
                del self._hours[next(iter(self._hours))]
            return level
        top_score, top_multiple, top_level = strongest
        if score >= top_score and multiple >= top_multiple:
            level = max(level, top_level)
        elif score >= top_score or multiple >= top_multiple:
            level = top_level
        else:
            level = min(level, top_level)
        self._hours[hour] = (max(score, top_score), max(multiple, top_multiple), max(level, top_level))
        return level

    def state(self) -> list[Any]:
        """Plain data for JSON, from which a restored object goes on exactly as this one."""
        return [[hour, *strongest] for hour, strongest in self._hours.items()]

    def restore(self, state: list[Any]) -> None:
        """Continue from `state`; ValueError where it is damaged."""
        try:
            hours = {
                saved_integer(hour, -MAX_SAVED): (saved_number(score), saved_number(multiple), saved_integer(level))
                for hour, score, multiple, level in state
            }
        except (TypeError, ValueError) as error:
            raise ValueError(f"saved severities are damaged: {error!r}") from error
        if len(hours) > MAX_HOURS or any(level >= len(SEVERITIES) for *_, level in hours.values()):
            raise ValueError("saved severities are damaged")
        self._hours = hours
