"""When to refit, on what, and whether the result takes over: one object without I/O, clock or threads.

`worker train` feeds it from Kafka, `worker replay --refit-every` from a file; both do what it decides. A look:

    1. weigh the scores since the last look: has ordinary traffic moved? (worker.trainer.drift)
    2. only where it has, and for long enough: fit a challenger on recent ordinary rows (worker.trainer.candidate)
    3. only if that is no worse than the champion anywhere and better somewhere, promote it (worker.trainer.gate)

Traffic that is replaced as a whole is announced with a candidate that is held: a person may adopt or veto it, and if
nobody does while it stays, it becomes the new ordinary at the third look. Where a part of the traffic stands apart, new
traffic and a flood of anomalies look the same: a candidate that has learned it is held, and only a person adopts it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

from worker.errors import DataError
from worker.formats.base import Decoder
from worker.model.network.fit import FitOptions, Progress
from worker.model.store.bundle import Bundle, with_report
from worker.model.store.rehearsal import KEEP_ROWS
from worker.pipeline import Model
from worker.records import FloatArray, Message, Scores
from worker.trainer.candidate import Window, fit_challenger, look_at, spread
from worker.trainer.drift import GONE, Condition, Evidence, unexplained, weigh
from worker.trainer.field_drift import drifted
from worker.trainer.gate import Judged, judge
from worker.trainer.reservoir import Reservoir, Sample
from worker.trainer.score_buffer import Stretch

DRIFT_ROWS = 5_000
DRIFT_FIELDS = 10
"""Rows of either side that drift is looked for in, and most fields that are named."""

ALARM_RECORDS = 2_000
"""Replaced records after which a look does not wait for the clock: enough to fit and to judge by."""

Build = Callable[[Bundle], Model]


class Decision(StrEnum):
    """What comes of a look."""

    WAITING = "waiting"  # too little traffic since the last one
    NOT_NEEDED = "not needed"  # ordinary traffic is where the model has it, or has not moved for long enough
    PROMOTED = "promoted"
    REJECTED = "rejected"
    HELD = "held"  # a candidate waits for a person, or for time


@dataclass(frozen=True, slots=True)
class Patience:
    """Looks in a row that must agree before anything is done. moved: a part of the ordinary traffic has moved, longer
    than a flood is likely to last; gone: all of it was replaced."""

    moved: int = 6
    gone: int = 3


@dataclass(frozen=True, slots=True)
class Verdict:
    """One look. number: how many there were; record: records seen until then; candidate: its version, where one was
    fitted; reasons: lines for people; figures: plain data for JSON."""

    number: int
    record: int
    champion: str
    decision: Decision
    reasons: tuple[str, ...]
    candidate: str | None = None
    figures: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "look": self.number,
            "record": self.record,
            "champion": self.champion,
            "decision": self.decision.value,
            "reasons": list(self.reasons),
            "candidate": self.candidate,
            "figures": self.figures,
        }


@dataclass(frozen=True, slots=True)
class Look:
    """A verdict, and the candidate that it is about: already made ready where it is to take over."""

    verdict: Verdict
    candidate: Model | None = None


class Trainer:
    """Watches scored traffic and decides at each look.

    champion: the model that scores. build: a ready Model from a bundle. quantile: share of ordinary scores below the
    threshold, for all judgements. least: records without which a look waits for more. keep_rows: records that a
    candidate keeps of those that it was fitted on. decoder: of the window's records, without a limit of size.
    """

    def __init__(
        self,
        champion: Model,
        build: Build,
        *,
        options: FitOptions,
        window: Reservoir,
        decoder: Decoder,
        quantile: float = 0.99,
        least: int = 1_000,
        keep_rows: int = KEEP_ROWS,
        patience: Patience = Patience(),  # frozen
    ) -> None:
        self.champion = champion
        self.window = window
        self.stretch = Stretch()
        self.streak = (Condition.SETTLED, 0, 0)  # condition, looks in a row, records seen when it began
        self.looks = 0
        self.vetoed = False
        self.holding = False  # whether a candidate of this streak waits for a decision
        self._build = build
        self._options = options
        self._decoder = decoder
        self._quantile = quantile
        self._least = least
        self._keep_rows = keep_rows
        self._patience = patience

    def observe(self, scores: Scores) -> None:
        """Scored records of the champion, in the order of the stream."""
        self.window.add(scores.messages, scores.event_time_ms)
        self.stretch.add(scores.score)

    def use(self, champion: Model) -> None:
        """Another model scores from here on: what was seen of the old one's scores says nothing of it."""
        self.champion = champion
        self.stretch.clear()
        self.streak = (Condition.SETTLED, 0, self.window.seen)
        self.vetoed = self.holding = False

    def forget(self) -> None:
        """Begin anew with the same champion."""
        self.window = self.window.emptied()
        self.use(self.champion)

    def is_alarmed(self) -> bool:
        """Whether traffic looks replaced and no look has said so yet: reason not to wait for the next one."""
        return self.streak[0] is not Condition.GONE and not self.vetoed and self._replaced() >= ALARM_RECORDS

    def _replaced(self) -> int:
        """How many of the latest scores are of traffic that was replaced, in whole blocks of the least for a look."""
        scores, block, count = self.stretch.scores(), self._least, 0
        while count + block <= len(scores):
            part = scores[len(scores) - count - block : len(scores) - count]
            if unexplained(part, self.champion.bundle.calibration) < GONE:
                break
            count += block
        return count

    def veto(self) -> None:
        """What goes on now is not ordinary: nothing is fitted until traffic is settled again."""
        self.vetoed = True

    def look(self, created_at: str, progress: Progress | None = None, *, asked: bool = False) -> Look:
        """Decide. created_at: RFC 3339, UTC. asked: fit and judge whatever the need (a person asked for it)."""
        if len(self.stretch) < self._least:
            return self._without(Decision.WAITING, f"{len(self.stretch)} records since the last look", {})
        self.looks += 1
        replaced = 0 if self.streak[0] is Condition.GONE else self._replaced()
        stretch = self.stretch.last(replaced) if replaced else self.stretch
        evidence = weigh(stretch.scores(), self.champion.bundle.calibration, self._quantile)
        self._follow(evidence.condition, began=self.window.seen - stretch.seen)
        self.stretch.clear()
        why = None if asked else self._why_not(evidence.condition)
        rows = self._rows(evidence.condition, most=DRIFT_ROWS if why else self.window.size)
        window = look_at(self.champion, *rows, evidence)
        figures = {"need": evidence.figures(), "drift": self._drift(window)}
        if why is not None:
            return self._without(Decision.NOT_NEEDED, why, figures)
        try:
            bundle = self._fit(window, evidence, created_at, progress)
        except DataError as error:
            return self._without(Decision.REJECTED, f"no fit: {error}", figures)
        return self._judge(bundle, window, evidence, figures)

    def _follow(self, condition: Condition, *, began: int) -> None:
        before, looks, since = self.streak
        same = condition is before
        self.streak = (condition, looks + 1 if same else 1, since if same else began)
        self.holding = self.holding and same
        self.vetoed = self.vetoed and condition is not Condition.SETTLED

    def _why_not(self, condition: Condition) -> str | None:
        """Why nothing is fitted at this look; None where something is."""
        looks, patience = self.streak[1], self._patience
        if condition is Condition.SETTLED:
            return "ordinary traffic is where the model has it"
        if self.vetoed:
            return "vetoed: nothing is learned until traffic is settled again"
        if condition is Condition.MOVED:
            wanted = f"ordinary traffic has moved, for {looks} looks of {patience.moved} that it takes"
            return wanted if looks < patience.moved else None
        if condition is Condition.APART and (looks < patience.moved or self.holding):
            return (
                f"a part of the traffic stands apart, for {looks} looks; a candidate is held from {patience.moved} on"
            )
        if condition is Condition.GONE and looks < patience.gone and self.holding:
            return f"all traffic was replaced, for {looks} looks of {patience.gone} that it takes"
        return None

    def _rows(self, condition: Condition, *, most: int) -> tuple[list[dict[str, Any]], FloatArray]:
        """At most so many rows of the window and their folds; where all traffic was replaced, those since then."""
        sample = self.window.sample()
        since = self.streak[2] if condition is Condition.GONE else 0
        return self._decoded(
            sample.take(np.array(spread(np.flatnonzero(sample.number >= since).tolist(), most), np.int64))
        )

    def _decoded(self, sample: Sample) -> tuple[list[dict[str, Any]], FloatArray]:
        messages = [Message("", 0, place, -1, None, value) for place, value in enumerate(sample.values)]
        decoded = self._decoder.decode(messages)
        kept = np.fromiter((message.offset for message in decoded.messages), np.int64, len(decoded.messages))
        return decoded.rows, sample.fold[kept]

    def _fit(self, window: Window, evidence: Evidence, created_at: str, progress: Progress | None) -> Bundle:
        learn_apart = evidence.condition is Condition.APART
        return fit_challenger(
            self.champion.bundle,
            window.with_apart() if learn_apart else window,
            self._options,
            quantile=self._quantile,
            keep_rows=self._keep_rows,
            created_at=created_at,
            progress=progress,
        )

    def _drift(self, window: Window) -> dict[str, float]:
        """The fields that moved furthest, and how far, in [0, 1]."""
        learned = spread(self.champion.bundle.rehearsal, DRIFT_ROWS)
        recent = spread(window.pick(window.ordinary), DRIFT_ROWS)
        found = drifted(learned, recent, self.champion.bundle.schema)
        return {drift.field: round(drift.distance, 3) for drift in found[:DRIFT_FIELDS]}

    def _judge(self, bundle: Bundle, window: Window, evidence: Evidence, figures: dict[str, Any]) -> Look:
        judged = judge(
            self.champion,
            self._build(bundle),
            window,
            threshold=evidence.threshold,
            quantile=self._quantile,
            seed=self._options.seed,
        )
        decision, reasons = self._decide(evidence.condition, judged)
        self.holding = decision is Decision.HELD
        figures = {**figures, "gate": judged.figures}
        verdict = self._verdict(decision, reasons, figures)
        bundle = with_report(bundle, verdict=verdict.to_json())
        model = self._build(bundle)
        return Look(self._verdict(decision, reasons, figures, bundle.version), model)

    def _decide(self, condition: Condition, judged: Judged) -> tuple[Decision, list[str]]:
        if condition is Condition.APART:
            return Decision.HELD, ["a part of the traffic stands apart: adopt or veto the candidate that learned it"]
        if not judged.passed:
            return Decision.REJECTED, judged.failures
        if condition is Condition.GONE and self.streak[1] < self._patience.gone:
            left = self._patience.gone - self.streak[1]
            return Decision.HELD, [f"all traffic was replaced: it is the new ordinary in {left} looks unless vetoed"]
        return Decision.PROMOTED, judged.gains

    def _without(self, decision: Decision, reason: str, figures: dict[str, Any]) -> Look:
        return Look(self._verdict(decision, [reason], figures))

    def _verdict(
        self, decision: Decision, reasons: list[str], figures: dict[str, Any], candidate: str | None = None
    ) -> Verdict:
        champion = self.champion.bundle.version
        return Verdict(self.looks, self.window.seen, champion, decision, tuple(reasons), candidate, figures)
