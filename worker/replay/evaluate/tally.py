"""What replay counts while it goes: everything that metrics.json and the charts need, in bounded memory."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from numpy.typing import NDArray

from worker.errors import ErrorCode
from worker.records import BoolArray, DeadLetter, FloatArray, Outcome
from worker.replay.evaluate.incidents import INCIDENT_GAP_MS, Incidents
from worker.replay.evaluate.score_table import ANOMALOUS, NORMAL, UNKNOWN, ScoreTable
from worker.replay.run.labels import NORMAL as NORMAL_LABEL
from worker.replay.run.labels import Label
from worker.replay.run.lines import Line

BUDGETS = (10, 100, 1000)
"""Alerts a day that a person could look at."""

DAY_MS = 86_400_000
NO_DAY = -1
"""The day of records without an event time: all of them count as one day."""

MAX_EXAMPLES = 20
_GROUP_OF: dict[Label, int] = {None: UNKNOWN, NORMAL_LABEL: NORMAL}


@dataclass(slots=True)
class Day:
    """One day, UTC. best: its highest labelled scores, descending, the earlier one first among equals."""

    alerts: int = 0
    true_alerts: int = 0
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
            day.alerts += int((here & alert).sum())
            day.true_alerts += int((here & alert & anomalous).sum())
            chosen = here & labelled
            if len(day.best) == BUDGETS[-1]:
                chosen &= score > day.best[-1]
            if chosen.any():
                scores = np.concatenate([day.best, score[chosen]])
                order = np.argsort(-scores, kind="stable")[: BUDGETS[-1]]
                day.best = scores[order]
                day.best_is_anomalous = np.concatenate([day.best_is_anomalous, anomalous[chosen]])[order]

    def at_budget(self, budget: int) -> tuple[int, int]:
        """(alerts, true alerts) if each day had alerted its `budget` highest scores among labelled records."""
        alerts = sum(len(day.best[:budget]) for day in self.by_number.values())
        return alerts, sum(int(day.best_is_anomalous[:budget].sum()) for day in self.by_number.values())


class Tally:
    """Counts of one run. Feed it every outcome in input order; the messages must be of `worker.replay.run.lines`."""

    def __init__(self, incident_gap_ms: int = INCIDENT_GAP_MS) -> None:
        self.table = ScoreTable()
        self.days = Days()
        self.incidents = Incidents(incident_gap_ms)
        self.alerts = Counter({UNKNOWN: 0, NORMAL: 0, ANOMALOUS: 0})
        self.groups = Counter({UNKNOWN: 0, NORMAL: 0, ANOMALOUS: 0})
        self.kinds: Counter[str] = Counter()
        self.alerted_kinds: Counter[str] = Counter()
        self.dead_letters: Counter[ErrorCode] = Counter()
        self.dead_examples: list[DeadLetter] = []
        self.skipped = 0
        self.published = 0
        self.silenced: Counter[str] = Counter()
        self.grouped = 0
        self.rate_limited = 0
        self.models: Counter[str] = Counter()
        self.first_ms: int | None = None
        self.last_ms: int | None = None
        self.backwards = 0

    def add(self, outcome: Outcome) -> NDArray[np.int8]:
        """Count one outcome; returns the labels of its scored records as groups, int8 (B,)."""
        self.dead_letters.update(dead.error_code for dead in outcome.dead_letters)
        self.dead_examples += outcome.dead_letters[: MAX_EXAMPLES - len(self.dead_examples)]
        self.skipped += outcome.skipped
        self.published += len(outcome.alerts)
        self.silenced.update(outcome.silenced)
        self.grouped += outcome.grouped
        self.rate_limited += outcome.rate_limited
        scores = outcome.scores
        lines = cast("Sequence[Line]", scores.messages)
        groups = np.array([_GROUP_OF.get(line.label, ANOMALOUS) for line in lines], np.int8)
        if len(lines):
            self.table.add(scores.score, groups)
            self.days.add(scores.score, scores.alert, scores.event_time_ms, groups)
            self.models[scores.model_version] += len(groups)
            self.groups.update(dict(enumerate(np.bincount(groups, minlength=3).tolist())))
            self.alerts.update(dict(enumerate(np.bincount(groups[scores.alert], minlength=3).tolist())))
            self._follow_time(scores.event_time_ms)
            anomalies = [
                (lines[at].label or "", lines[at].key, int(scores.event_time_ms[at]), bool(scores.alert[at]))
                for at in np.flatnonzero(groups == ANOMALOUS).tolist()
            ]
            self.kinds.update(kind for kind, *_ in anomalies)
            self.alerted_kinds.update(kind for kind, _, _, alerted in anomalies if alerted)
            self.incidents.add(entry for entry in anomalies if entry[2] != -1)
        return groups

    @property
    def scored(self) -> int:
        """Records that have a score."""
        return self.groups.total()

    def _follow_time(self, event_time_ms: NDArray[np.int64]) -> None:
        times = event_time_ms[event_time_ms != -1]
        if not len(times):
            return
        before = times[0] if self.last_ms is None else self.last_ms
        latest = np.maximum.accumulate(np.concatenate([[before], times]))
        self.backwards += int((times < latest[:-1]).sum())
        self.last_ms = int(latest[-1])
        first = int(times.min())
        self.first_ms = first if self.first_ms is None else min(self.first_ms, first)
