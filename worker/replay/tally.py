"""What replay counts while it goes: everything that metrics.json and the charts need, in bounded memory."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from worker.errors import ErrorCode
from worker.records import BoolArray, DeadLetter, FloatArray, Outcome, Scores
from worker.replay.lines import NORMAL as NORMAL_LABEL
from worker.replay.lines import Label, Line
from worker.replay.score_table import ANOMALOUS, NORMAL, UNKNOWN, ScoreTable
from worker.texts import significant

BUDGETS = (10, 100, 1000)  # alerts a day that a person could look at
DAY_MS = 86_400_000
NO_DAY = -1  # the day of records without an event time: all of them count as one day
MAX_EXAMPLES = 20
MAX_EXAMPLE_BYTES = 1000  # of a dead letter that is kept as an example
MAX_DAYS = 4000
MAX_KINDS = 1000  # of anomalies; a label of which there are more is no kind
OTHER_KINDS = "(other kinds)"
INCIDENT_GAP_MS = 3_600_000
_GROUP_OF: dict[Label, int] = {None: UNKNOWN, NORMAL_LABEL: NORMAL}


@dataclass(slots=True)
class Day:
    """One day, UTC. best: its highest labelled scores, descending, the earlier one first among equals."""

    alerts: int = 0
    true_alerts: int = 0
    best: FloatArray = field(default_factory=lambda: np.empty(0))
    best_is_anomalous: BoolArray = field(default_factory=lambda: np.empty(0, np.bool_))


class Days:
    """Counts per day, of 9 kB for each day with labels. After 4,000 different days, the records of others count like
    those without a time.
    """

    def __init__(self) -> None:
        self.by_number: dict[int, Day] = {}

    def add(self, scores: Scores, groups: NDArray[np.int8]) -> None:
        """Count records (B,) in input order, with their labels."""
        score, times = scores.score, scores.event_time_ms
        numbers = np.where(times == -1, NO_DAY, times // DAY_MS)
        anomalous, labelled = groups == ANOMALOUS, groups != UNKNOWN
        surplus = []
        for number in np.unique(numbers).tolist():
            if number not in self.by_number and number != NO_DAY:
                if len(self.by_number) < MAX_DAYS:
                    self.by_number[number] = Day()
                else:
                    surplus.append(number)
        if surplus:
            numbers[np.isin(numbers, surplus)] = NO_DAY
        for number in np.unique(numbers).tolist():
            here = numbers == number
            day = self.by_number.setdefault(number, Day())
            day.alerts += int((here & scores.alert).sum())
            day.true_alerts += int((here & scores.alert & anomalous).sum())
            chosen = here & labelled
            if len(day.best) == BUDGETS[-1]:
                chosen &= score > day.best[-1]  # an equal score would be later, and so would not displace the last one
            if chosen.any():
                best = np.concatenate([day.best, score[chosen]])
                order = np.argsort(-best, kind="stable")[: BUDGETS[-1]]
                day.best = best[order]
                day.best_is_anomalous = np.concatenate([day.best_is_anomalous, anomalous[chosen]])[order]

    def at_budget(self, budget: int) -> tuple[int, int]:
        """(alerts, true alerts) if each day had alerted its `budget` highest scores among labelled records."""
        alerts = sum(len(day.best[:budget]) for day in self.by_number.values())
        return alerts, sum(int(day.best_is_anomalous[:budget].sum()) for day in self.by_number.values())


@dataclass(slots=True)
class _Incident:
    first_ms: int
    last_ms: int
    alert_ms: int | None = None


class Incidents:
    """Groups labelled anomalies by kind and key into incidents, and keeps how long each took to be alerted.

    Works badly where labels have no kind and records no key: anomalies that have nothing to do with each other then
    count as one incident as long as they overlap. An incident without any alert says nothing about time; look at the
    share of detected ones first. Records are expected in order of their event times, roughly.

    gap_ms   anomalies of one kind and key that are at most this far apart on the event clock belong together

    Memory holds the open incidents, and detection times rounded to 3 digits: bounded whatever the number of records.

    >>> incidents = Incidents(gap_ms=60_000)
    >>> incidents.add([("fraud", b"c1", 0, False), ("fraud", b"c1", 30_000, True), ("fraud", b"c2", 30_000, False)])
    >>> incidents.finish()  # two of them; one was alerted, after 30 s
    (2, 1, 30.0, 30.0)

    The windows of Lavin & Ahmad (2015), Evaluating real-time anomaly detection algorithms, by gaps instead of by hand.
    """

    def __init__(self, gap_ms: int = INCIDENT_GAP_MS) -> None:
        self._gap_ms = gap_ms
        self._open: dict[tuple[str, bytes | None], _Incident] = {}
        self._detected_s: Counter[float] = Counter()
        self._missed = 0

    def add(self, anomalies: Iterable[tuple[str, bytes | None, int, bool]]) -> None:
        """Anomalies in input order: kind, key, event time in ms, alerted or not."""
        now = 0
        for kind, key, time_ms, alerted in anomalies:
            incident = self._open.get((kind, key))
            if incident is None or abs(time_ms - incident.last_ms) > self._gap_ms:
                if incident is not None:
                    self._close(incident)
                incident = self._open[kind, key] = _Incident(time_ms, time_ms)
            incident.last_ms = max(incident.last_ms, time_ms)
            if alerted and incident.alert_ms is None:
                incident.alert_ms = time_ms
            now = max(now, time_ms)
        # Otherwise each key of the input could leave an incident open: what nothing can extend any more is closed.
        for name in [name for name, incident in self._open.items() if now - incident.last_ms > self._gap_ms]:
            self._close(self._open.pop(name))

    def _close(self, incident: _Incident) -> None:
        if incident.alert_ms is None:
            self._missed += 1
        else:
            self._detected_s[significant(max(0, incident.alert_ms - incident.first_ms) / 1000, 3)] += 1

    def finish(self) -> tuple[int, int, float | None, float | None]:
        """(incidents, detected ones, median and 90% quantile of the seconds until the first alert of those)."""
        for incident in self._open.values():
            self._close(incident)
        self._open.clear()
        detected = self._detected_s.total()
        return self._missed + detected, detected, self._quantile(0.5), self._quantile(0.9)

    def _quantile(self, share: float) -> float | None:
        passed, target = 0, share * self._detected_s.total()
        for seconds, count in sorted(self._detected_s.items()):
            passed += count
            if passed >= target:
                return seconds
        return None


class Tally:
    """Counts of one run. Feed it every outcome in input order; the messages must be of `worker.replay.lines`."""

    def __init__(self) -> None:
        self.table = ScoreTable()
        self.days = Days()
        self.incidents = Incidents()
        self.groups: Counter[int] = Counter()  # scored records by label
        self.alerts: Counter[int] = Counter()  # those above their threshold
        self.kinds: Counter[str] = Counter()  # anomalies by what their label says
        self.alerted_kinds: Counter[str] = Counter()
        self.dead_letters: Counter[ErrorCode] = Counter()
        self.dead_examples: list[DeadLetter] = []
        self.skipped = self.published = self.grouped = self.rate_limited = self.backwards = 0
        self.unexpected: Counter[str] = Counter()
        self.silenced: Counter[str] = Counter()
        self.models: Counter[str] = Counter()
        self.first_ms: int | None = None
        self.last_ms: int | None = None

    def add(self, outcome: Outcome) -> NDArray[np.int8]:
        """Count one outcome; returns the labels of its scored records as groups, int8 (B,)."""
        self.dead_letters.update(dead.error_code for dead in outcome.dead_letters)
        for dead in outcome.dead_letters[: MAX_EXAMPLES - len(self.dead_examples)]:
            line = cast("Line", dead.message)
            example = line._replace(value=(line.value or b"")[:MAX_EXAMPLE_BYTES])
            self.dead_examples.append(replace(dead, message=example))
        self.skipped += outcome.skipped
        self.published += len(outcome.alerts)
        self.unexpected.update(outcome.unexpected)
        self.silenced.update(outcome.silenced)
        self.grouped += outcome.grouped
        self.rate_limited += outcome.rate_limited
        scores = outcome.scores
        lines = cast("Sequence[Line]", scores.messages)
        groups = np.array([_GROUP_OF.get(line.label, ANOMALOUS) for line in lines], np.int8)
        if not len(lines):
            return groups
        self.table.add(scores.score, groups)
        self.days.add(scores, groups)
        self.models[scores.model_version] += len(groups)
        self.groups.update(dict(enumerate(np.bincount(groups, minlength=3).tolist())))
        self.alerts.update(dict(enumerate(np.bincount(groups[scores.alert], minlength=3).tolist())))
        anomalies = [
            (self._kind(lines[at].label or ""), lines[at].key, int(scores.event_time_ms[at]), bool(scores.alert[at]))
            for at in np.flatnonzero(groups == ANOMALOUS).tolist()
        ]
        self.kinds.update(kind for kind, *_ in anomalies)
        self.alerted_kinds.update(kind for kind, _, _, alerted in anomalies if alerted)
        self.incidents.add(entry for entry in anomalies if entry[2] != -1)
        times = scores.event_time_ms[scores.event_time_ms != -1]
        if len(times):
            latest = np.maximum.accumulate(np.append(times[0] if self.last_ms is None else self.last_ms, times))
            self.backwards += int((times < latest[:-1]).sum())
            self.last_ms, first = int(latest[-1]), int(times.min())
            self.first_ms = first if self.first_ms is None else min(self.first_ms, first)
        return groups

    def _kind(self, label: str) -> str:
        return label if label in self.kinds or len(self.kinds) < MAX_KINDS else OTHER_KINDS
