"""What replay counts while it goes: everything that metrics.json and the charts need, in bounded memory."""

from collections import Counter
from collections.abc import Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from worker.errors import ErrorCode
from worker.records import DeadLetter, Outcome, Scores
from worker.replay.evaluate.days import Days
from worker.replay.evaluate.incidents import INCIDENT_GAP_MS, Incidents
from worker.replay.evaluate.score_table import ANOMALOUS, NORMAL, UNKNOWN, ScoreTable
from worker.replay.run.labels import NORMAL as NORMAL_LABEL
from worker.replay.run.labels import Label
from worker.replay.run.lines import Line

_GROUP_OF: dict[Label, int] = {None: UNKNOWN, NORMAL_LABEL: NORMAL}
_EXAMPLES = 20


def groups_of(lines: Sequence[Line]) -> NDArray[np.int8]:
    """UNKNOWN, NORMAL or ANOMALOUS for each line, int8 (B,)."""
    groups = [_GROUP_OF.get(line.label, ANOMALOUS) for line in lines]
    return np.array(groups, np.int8)


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
        for dead in outcome.dead_letters:
            self.dead_letters[dead.error_code] += 1
            if len(self.dead_examples) < _EXAMPLES:
                self.dead_examples.append(dead)
        self.skipped += outcome.skipped
        self.published += len(outcome.alerts)
        self.silenced.update(outcome.silenced)
        self.grouped += outcome.grouped
        self.rate_limited += outcome.rate_limited
        scores = outcome.scores
        lines = cast("Sequence[Line]", scores.messages)
        groups = groups_of(lines)
        if len(lines):
            self._count(scores, groups)
            self._follow_time(scores.event_time_ms)
            self._follow_anomalies(scores, lines, groups)
        return groups

    @property
    def scored(self) -> int:
        """Records that have a score."""
        return self.groups.total()

    def _count(self, scores: Scores, groups: NDArray[np.int8]) -> None:
        self.table.add(scores.score, groups)
        self.days.add(scores.score, scores.alert, scores.event_time_ms, groups)
        self.models[scores.model_version] += len(groups)
        for group in (UNKNOWN, NORMAL, ANOMALOUS):
            self.groups[group] += int((groups == group).sum())
            self.alerts[group] += int((scores.alert & (groups == group)).sum())

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

    def _follow_anomalies(self, scores: Scores, lines: Sequence[Line], groups: NDArray[np.int8]) -> None:
        places = np.flatnonzero(groups == ANOMALOUS).tolist()
        anomalies = [
            (lines[at].label or "", lines[at].key, int(scores.event_time_ms[at]), bool(scores.alert[at]))
            for at in places
        ]
        self.kinds.update(kind for kind, *_ in anomalies)
        self.alerted_kinds.update(kind for kind, _, _, alerted in anomalies if alerted)
        self.incidents.add(entry for entry in anomalies if entry[2] != -1)
