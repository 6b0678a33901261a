"""The trainer beside the workers: reads their topic outside of their group, checks it, hands versions to the store.

One step, which a test can call:

    1. follow the store: another version is current (a person, a worker's rollback, another trainer), or a held
       candidate was vetoed
    2. read what is new in the topic and score it with the current model
    3. check, where that is due: by the clock, at the first sign that traffic was replaced, or when asked
    4. write what was decided: the candidate with its verdict, then the pointer by compare-and-swap
    5. save all of it for the next start
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from worker.broker.base import Bounds, RangeReader
from worker.errors import StoreConflict
from worker.formats.base import Decoder
from worker.model.network.fit import Progress
from worker.model.store.bundle import Bundle
from worker.model.store.model_store import NEVER_AGAIN, Mark, ModelStore, Status
from worker.pipeline import Model
from worker.records import Partition, RawMessage, Scores
from worker.trainer.saved_state import SavedState, restore, save
from worker.trainer.trainer import Check, Decision, Trainer, TrainerVerdict

STATUS = {decision: Status(decision.value) for decision in (Decision.PROMOTED, Decision.REJECTED, Decision.HELD)}


class TrainerEvents:
    """What the sidecar does. Called on the trainer's thread; this one ignores everything."""

    def read(self, records: int) -> None:
        """Records were read from the topic."""

    def passed_over(self, partition: Partition, records: int) -> None:
        """Records were left out, since more came than the trainer reads in a step."""

    def checked(self, verdict: TrainerVerdict, seconds: float) -> None:
        """A check was made."""

    def current_changed(self, version: str, why: str) -> None:
        """Another version is current."""

    def vetoed(self, version: str, why: str) -> None:
        """A person vetoed the held candidate: its traffic is not normal."""

    def outrun(self, candidate: str, why: str) -> None:
        """Somebody else changed the current version first; this candidate stays in the store."""

    def state_lost(self, why: str) -> None:
        """The saved state can't be used; the reservoir begins anew."""

    def state_not_saved(self, why: str) -> None:
        """The state could not be saved; a restart would begin with an older one."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How one sidecar works.

    topic         what it reads
    interval_s    seconds between two checks
    max_records   of a step; the oldest beyond them are passed over
    keep          versions in the store
    state_file    what it keeps over a restart
    """

    topic: str
    interval_s: float
    max_records: int
    keep: int
    state_file: Path


class Sidecar:
    """One trainer process.

    decoder    of the topic's records
    now        the wall clock, RFC 3339, UTC
    progress   called during a fit; may raise
    clock      seconds, monotonic
    """

    def __init__(
        self,
        trainer: Trainer,
        store: ModelStore,
        build: Callable[[Bundle], Model],
        *,
        plan: Plan,
        decoder: Decoder,
        events: TrainerEvents,
        now: Callable[[], str],
        progress: Progress | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._trainer = trainer
        self._store = store
        self._build = build
        self._plan = plan
        self._decoder = decoder
        self._events = events
        self._now = now
        self._progress = progress
        self._clock = clock
        self._due = clock() + plan.interval_s
        self._decided: Check | None = None  # not in the store yet
        self.state = self._restored()

    def step(self, reader: RangeReader, *, asked: bool = False) -> None:
        """One round. Raises TransientError (no broker), StoreError (nothing was lost: the next step tries again)."""
        self._follow()  # 1.
        self._read(reader)  # 2.
        if self._decided is None and (asked or self._clock() >= self._due or self._trainer.is_alarmed()):
            started = self._clock()
            self._due = started + self._plan.interval_s
            self._decided = self._trainer.check(self._now(), self._progress, asked=asked)  # 3.
            self._events.checked(self._decided.verdict, self._clock() - started)
        if self._decided is not None:
            self._hand_over(self._decided)  # 4.
            self._decided = None
            self.save()  # 5.

    def _restored(self) -> SavedState:
        try:
            return restore(self._plan.state_file, self._trainer)
        except FileNotFoundError:
            return SavedState()
        except (OSError, ValueError) as error:
            self._events.state_lost(str(error))
            self._trainer.reservoir.clear()
            self._trainer.use(self._trainer.current)
            return SavedState()

    def save(self) -> None:
        """Save what a restart needs. A disk that is full is reported, and the trainer goes on."""
        try:
            save(self._plan.state_file, self._trainer, self.state)
        except OSError as error:
            self._events.state_not_saved(f"{self._plan.state_file}: {error.strerror or error}")

    def _follow(self) -> None:
        version = self._trainer.current.bundle.version
        current, marks = self._store.current(), self._store.marks()
        if current is not None and current != version:
            self._trainer.use(self._build(self._store.load(current)))
            left = marks.get(version)
            if left is not None and left.status in NEVER_AGAIN:
                self._trainer.veto()  # what taught it that is still in the traffic
            self._events.current_changed(
                current, f"{version} was {left.status.value}" if left else "promoted elsewhere"
            )
            self.state = replace(self.state, held=None)
        held = self.state.held
        mark = marks.get(held) if held is not None else None
        if held is not None and mark is not None and mark.status is Status.VETOED:
            self._trainer.veto()
            self._events.vetoed(held, mark.why)
            self.state = replace(self.state, held=None)

    def _read(self, reader: RangeReader) -> None:
        for batch in reader.read(self._bounds(reader)):
            self._trainer.observe(scored(self._trainer.current, batch, self._decoder))
            last = batch[-1]
            self.state.next_offsets[Partition(last.topic, last.partition)] = last.offset + 1
            self._events.read(len(batch))

    def _bounds(self, reader: RangeReader) -> Bounds:
        starts, ends = reader.start_offsets(self._plan.topic), reader.end_offsets(self._plan.topic)
        share = max(1, self._plan.max_records // max(1, len(ends)))
        bounds = {}
        for partition, end in ends.items():
            known = self.state.next_offsets.get(partition)
            start = max(starts[partition], end - share if known is None or known > end else known)
            passed = max(0, end - share - start)
            if passed:
                self._events.passed_over(partition, passed)
            bounds[partition] = (start + passed, end)
            self.state.next_offsets[partition] = start + passed
        return bounds

    def _hand_over(self, check: Check) -> None:
        verdict, model = check.verdict, check.candidate
        if model is None:
            return
        version = model.bundle.version
        self._store.save(model.bundle)
        mark = Mark(STATUS[verdict.decision], self._now(), "trainer", "; ".join(verdict.reasons), verdict.figures)
        if verdict.decision is Decision.PROMOTED:
            try:
                self._store.promote(version, expected=verdict.current, mark=mark)
            except StoreConflict as error:
                self._events.outrun(version, str(error))
            else:
                self._trainer.use(model)
                self._events.current_changed(version, "promoted")
                self._hold(None, version)
        else:
            self._store.mark(version, mark)
            if verdict.decision is Decision.HELD:
                self._hold(version, version)
        self._store.prune(self._plan.keep)

    def _hold(self, version: str | None, instead: str) -> None:
        """Remember which candidate waits; the one before it does not any more."""
        held = self.state.held
        if held is not None and held != instead:
            self._store.mark(held, Mark(Status.CANDIDATE, self._now(), "trainer", f"superseded by {instead}"))
        self.state = replace(self.state, held=version)


def scored(model: Model, messages: Sequence[RawMessage], decoder: Decoder) -> Scores:
    """What `worker run` would have scored of these messages, without thresholds; the rest is left out."""
    vectors = model.vectorizer.transform(decoder.decode(messages))
    score = model.scorer.score(vectors.numeric, vectors.category_ids)
    nothing, none = np.full(len(score), np.nan), np.zeros(len(score), np.bool_)
    return Scores(vectors.messages, score, nothing, none, vectors.event_time_ms, model.bundle.version)
