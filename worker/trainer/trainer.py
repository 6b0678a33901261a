"""When to refit, on what, and whether the result takes over: one object without I/O, clock or threads.

`worker train` feeds it from Kafka, `worker replay --refit-every` from a file; both do what it decides. A check:

    1. assess the scores since the last check: has normal traffic drifted? (worker.trainer.drift)
    2. only where it has, and for long enough: fit a candidate on recent inliers (worker.trainer.candidate)
    3. only if that is no worse than the current version anywhere and better somewhere, promote it (the gate)

Traffic that is replaced as a whole is announced with a candidate that is held: a person may adopt or veto it, and if
nobody does while it stays, it becomes the new normal at the third check. Where a part of the traffic is a new
population, new traffic and a flood of anomalies look the same: a candidate that has learned it is held, and only a
person adopts it.
"""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np

from worker.errors import DataError, TransientError, UsageError
from worker.features.vectorize import conceal
from worker.formats.base import Decoder, Row
from worker.model.network.fit import FitOptions, Progress
from worker.model.store.bundle import KEEP_ROWS, Bundle, with_report
from worker.pipeline import Model
from worker.records import Message, Scores
from worker.redaction import revive
from worker.texts import quoted
from worker.trainer.candidate import RecentRows, fit_candidate, judge, recent_rows, spread
from worker.trainer.drift import (
    MIN_REPLACED,
    DriftAssessment,
    DriftState,
    ScoreBuffer,
    assess_drift,
    drifted_fields,
    share_drifted,
)
from worker.trainer.reservoir import Reservoir

FIELD_DRIFT_ROWS = 5_000  # of either side, in which drifted fields are looked for
MAX_DRIFTED_FIELDS = 10  # that are named
ALARM_RECORDS = 2_000  # replaced ones after which a check does not wait for the clock: enough to fit and to judge by


class Decision(StrEnum):
    """What comes of a check."""

    WAITING = "waiting"  # too little traffic since the last one
    NOT_NEEDED = "not needed"  # traffic is stable, or has not drifted for long enough
    PROMOTED = "promoted"
    REJECTED = "rejected"
    HELD = "held"  # a candidate waits for a person, or for time


class Streak(NamedTuple):
    """Checks in a row of one state. since: records that had come when it began."""

    state: DriftState = DriftState.STABLE
    checks: int = 0
    since: int = 0


@dataclass(frozen=True, slots=True)
class TrainerVerdict:
    """What comes of one check.

    check       its number
    record      records that had come until then
    current     the version that scored them
    reasons     lines for people
    candidate   its version, where one was fitted
    figures     plain data for JSON: of the drift, the drifted fields, the gate
    """

    check: int
    record: int
    current: str
    decision: Decision
    reasons: tuple[str, ...]
    candidate: str | None = None
    figures: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        plain = {name: getattr(self, name) for name in self.__slots__}
        return {**plain, "decision": self.decision.value, "reasons": list(self.reasons)}


class Check(NamedTuple):
    """A verdict, and the candidate that it is about: already made ready where it is to take over."""

    verdict: TrainerVerdict
    candidate: Model | None = None


@dataclass(eq=False)
class Trainer:
    """Watches scored traffic and decides at each check.

    current           the model that scores
    build             a ready Model from a bundle
    options           of each fit
    reservoir         what fits learn from
    decoder           of the reservoir's records, without a limit of size
    quantile          share of inliers below the threshold, for all judgements
    min_records       without so many a check waits for more
    keep_rows         rows that a candidate keeps of those that it was fitted on
    drifted_checks    checks in a row at which a part of the inliers has drifted before anything is done: more than a
                      flood of anomalies is likely to last
    replaced_checks   checks in a row at which all traffic was replaced before the new one is normal
    """

    current: Model
    build: Callable[[Bundle], Model]
    _: KW_ONLY
    options: FitOptions
    reservoir: Reservoir
    decoder: Decoder
    quantile: float = 0.99
    min_records: int = 1_000
    keep_rows: int = KEEP_ROWS
    drifted_checks: int = 6
    replaced_checks: int = 3
    buffer: ScoreBuffer = field(default_factory=ScoreBuffer, init=False)
    streak: Streak = field(default=Streak(), init=False)
    checks: int = field(default=0, init=False)
    vetoed: bool = field(default=False, init=False)
    holding: bool = field(default=False, init=False)  # whether a candidate of this streak waits for a decision

    def observe(self, scores: Scores) -> None:
        """Scored records of the current model, in the order of the stream."""
        self.reservoir.add(scores.messages, scores.event_time_ms)
        self.buffer.add(scores.score)

    def use(self, current: Model) -> None:
        """Another model scores from here on: what was seen of the last one's scores says nothing of it."""
        self.current = current
        self.buffer = ScoreBuffer()
        self.streak = Streak(since=self.reservoir.seen)
        self.vetoed = self.holding = False

    def is_alarmed(self) -> bool:
        """Whether traffic looks replaced and no check has said so yet: reason not to wait for the next one."""
        return (
            self.streak.state is not DriftState.REPLACED
            and not self.vetoed
            and self._replaced_records() >= ALARM_RECORDS
        )

    def _replaced_records(self) -> int:
        """How many of the latest scores are of traffic that was replaced, in whole blocks of `min_records`."""
        scores, block, count = self.buffer.scores, self.min_records, 0
        while count + block <= len(scores):
            part = scores[len(scores) - count - block : len(scores) - count]
            if share_drifted(part, self.current.bundle.calibration) < MIN_REPLACED:
                break
            count += block
        return count

    def veto(self) -> None:
        """What goes on now is not normal: nothing is fitted until traffic is stable again."""
        self.vetoed = True

    def check(self, created_at: str, progress: Progress | None = None, *, asked: bool = False) -> Check:
        """Decide. created_at: RFC 3339, UTC. asked: fit and judge whatever the drift, since a person asked for it.

        TransientError where the schema of a record can't be asked for now; then it is as if nobody had checked.
        """
        before = self.checks, self.buffer, self.streak, self.vetoed, self.holding
        try:
            return self._check(created_at, progress, asked=asked)
        except TransientError:
            self.checks, self.buffer, self.streak, self.vetoed, self.holding = before
            raise

    def _check(self, created_at: str, progress: Progress | None, *, asked: bool) -> Check:
        if len(self.buffer) < self.min_records:
            so_far = f"{len(self.buffer)} records since the last check, of {self.min_records} that one takes"
            return Check(self._verdict(Decision.WAITING, [so_far], {}))
        self.checks += 1
        replaced = 0 if self.streak.state is DriftState.REPLACED else self._replaced_records()
        buffer, self.buffer = self.buffer.last(replaced) if replaced else self.buffer, ScoreBuffer()
        drift = assess_drift(buffer.scores, self.current.bundle.calibration, self.quantile)
        state, same = drift.state, drift.state is self.streak.state
        began = self.reservoir.seen - buffer.seen
        self.streak = self.streak._replace(checks=self.streak.checks + 1) if same else Streak(state, 1, began)
        self.holding = self.holding and same
        self.vetoed = self.vetoed and state is not DriftState.STABLE
        reason = None if asked else self._reason_not_to_fit(state)
        recent = self._recent_rows(drift, FIELD_DRIFT_ROWS if reason else self.reservoir.size)
        learned = spread(self.current.bundle.rehearsal, FIELD_DRIFT_ROWS)
        inliers = spread(recent.pick(recent.inlier), FIELD_DRIFT_ROWS)
        learned, inliers = self._concealed(learned), self._concealed(inliers)
        drifts = drifted_fields(learned, inliers, self.current.bundle.schema)[:MAX_DRIFTED_FIELDS]
        furthest = {quoted(entry.field): round(entry.distance, 3) for entry in drifts}
        figures = {"drift": drift.figures(), "drifted_fields": furthest}
        if reason is not None:
            return Check(self._verdict(Decision.NOT_NEEDED, [reason], figures))
        try:
            bundle = fit_candidate(
                self.current.bundle,
                recent.all_inliers() if state is DriftState.NEW_POPULATION else recent,
                self.options,
                quantile=self.quantile,
                keep_rows=self.keep_rows,
                created_at=created_at,
                progress=progress,
                redaction=self.current.redaction,
            )
        except DataError as error:
            return Check(self._verdict(Decision.REJECTED, [f"no fit: {error}"], figures))
        return self._judge(bundle, recent, drift, figures)

    def _reason_not_to_fit(self, state: DriftState) -> str | None:
        """Why nothing is fitted at this check; None where something is."""
        checks = self.streak.checks
        if state is DriftState.STABLE:
            return "traffic is stable"
        if self.vetoed:
            return "vetoed: nothing is learned until traffic is stable again"
        if state is DriftState.DRIFTED and checks < self.drifted_checks:
            return f"traffic has drifted, for {checks} checks of {self.drifted_checks} that it takes"
        if state is DriftState.NEW_POPULATION and (checks < self.drifted_checks or self.holding):
            return (
                f"a part of the traffic is a new population, for {checks} checks; a candidate is held from "
                f"{self.drifted_checks} on"
            )
        if state is DriftState.REPLACED and checks < self.replaced_checks and self.holding:
            return f"all traffic was replaced, for {checks} checks of {self.replaced_checks} that it takes"
        return None

    def _recent_rows(self, drift: DriftAssessment, max_rows: int) -> RecentRows:
        """At most so many rows of the reservoir; where all traffic was replaced, of those since then."""
        records = self.reservoir.records()
        since = self.streak.since if drift.state is DriftState.REPLACED else 0
        records = records.take(np.array(spread(np.flatnonzero(records.number >= since).tolist(), max_rows), np.int64))
        places = enumerate(records.values)  # as members, for what was unfolded once is a record now
        messages = [Message("", 0, position, -1, None, value, member=0) for position, value in places]
        decoded = self.decoder.decode(messages)
        kept = np.fromiter((message.offset for message in decoded.messages), np.int64, len(decoded.messages))
        rows = decoded.rows
        if self.current.redaction:  # what the saved state gave back
            rows = [revive(row, self.current.vectorizer.fitted.redacted) for row in rows]
        return recent_rows(self.current, rows, records.split_draw[kept], drift)

    def _concealed(self, rows: Sequence[Row]) -> list[Row]:
        """Rows of the fit, kept and so without redacted values, and rows of now, made comparable."""
        model = self.current
        return [row for row in conceal(model.vectorizer.fitted, model.redaction, rows) if row is not None]

    def kept_values(self, values: Sequence[bytes]) -> list[bytes]:
        """Values of the reservoir as they may be saved: without redacted ones, empty where that can't be written."""
        redaction, fitted = self.current.redaction, self.current.vectorizer.fitted
        if not redaction:
            return list(values)
        rows = [revive(dict(row or {}), fitted.redacted) for row in self.decoder.rows(values)]
        try:
            return [b"" if row is None else self.decoder.encode(row) for row in conceal(fitted, redaction, rows)]
        except UsageError:
            return [b""] * len(values)

    def _judge(self, bundle: Bundle, recent: RecentRows, drift: DriftAssessment, figures: dict[str, Any]) -> Check:
        gate = judge(
            self.current,
            self.build(bundle),
            recent,
            threshold=drift.threshold,
            quantile=self.quantile,
            seed=self.options.seed,
        )
        left = self.replaced_checks - self.streak.checks
        if drift.state is DriftState.NEW_POPULATION:
            decision = Decision.HELD
            reasons = ["a part of the traffic is a new population: adopt or veto what has learned it"]
        elif not gate.passed:
            decision, reasons = Decision.REJECTED, gate.failures
        elif drift.state is DriftState.REPLACED and left > 0:
            decision = Decision.HELD
            reasons = [f"all traffic was replaced: it is the new normal in {left} checks unless vetoed"]
        else:
            decision, reasons = Decision.PROMOTED, gate.gains
        self.holding = decision is Decision.HELD
        verdict = self._verdict(decision, reasons, {**figures, "gate": gate.figures})
        bundle = with_report(bundle, verdict=verdict.to_json())
        return Check(replace(verdict, candidate=bundle.version), self.build(bundle))

    def _verdict(self, decision: Decision, reasons: Sequence[str], figures: dict[str, Any]) -> TrainerVerdict:
        version, seen = self.current.bundle.version, self.reservoir.seen
        return TrainerVerdict(self.checks, seen, version, decision, tuple(reasons), figures=figures)
