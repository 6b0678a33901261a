"""What happened on each day of the event clock, and what a budget of alerts a day would have found."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from worker.records import BoolArray, FloatArray
from worker.replay.evaluate.score_table import ANOMALOUS, UNKNOWN

BUDGETS = (10, 100, 1000)
"""Alerts a day that somebody could look at."""

DAY_MS = 86_400_000
NO_DAY = -1
"""The day of records without an event time: all of them count as one day."""


@dataclass(slots=True)
class Day:
    """One day, UTC. `best` and `best_is_anomalous` are its highest labelled scores, descending, the earlier one first
    among equals; anomalies: labelled ones, alerted or not."""

    records: int = 0
    alerts: int = 0
    true_alerts: int = 0
    anomalies: int = 0
    best: FloatArray = field(default_factory=lambda: np.empty(0))
    best_is_anomalous: BoolArray = field(default_factory=lambda: np.empty(0, np.bool_))


class Days:
    """Counts per day. Memory grows with the number of days, by 9 kB for each day with labels, not with records."""

    def __init__(self) -> None:
        self.by_number: dict[int, Day] = {}

    def add(
        self, score: FloatArray, alert: BoolArray, event_time_ms: NDArray[np.int64], groups: NDArray[np.int8]
    ) -> None:
        """Count records (B,) in input order; event_time_ms is -1 where there is none."""
        numbers = np.where(event_time_ms == -1, NO_DAY, event_time_ms // DAY_MS)
        anomalous, labelled = groups == ANOMALOUS, groups != UNKNOWN
        for number in np.unique(numbers).tolist():
            here = numbers == number
            day = self.by_number.setdefault(number, Day())
            day.records += int(here.sum())
            day.alerts += int((here & alert).sum())
            day.true_alerts += int((here & alert & anomalous).sum())
            day.anomalies += int((here & anomalous).sum())
            _keep_best(day, score, anomalous, here & labelled)

    def at_budget(self, budget: int) -> tuple[int, int]:
        """(alerts, true alerts) if each day had alerted its `budget` highest scores among labelled records."""
        alerts = sum(len(day.best[:budget]) for day in self.by_number.values())
        return alerts, sum(int(day.best_is_anomalous[:budget].sum()) for day in self.by_number.values())


def _keep_best(day: Day, score: FloatArray, anomalous: BoolArray, chosen: BoolArray) -> None:
    if len(day.best) == BUDGETS[-1]:
        chosen = chosen & (score > day.best[-1])
    if not chosen.any():
        return
    scores = np.concatenate([day.best, score[chosen]])
    order = np.argsort(-scores, kind="stable")[: BUDGETS[-1]]
    day.best = scores[order]
    day.best_is_anomalous = np.concatenate([day.best_is_anomalous, anomalous[chosen]])[order]
