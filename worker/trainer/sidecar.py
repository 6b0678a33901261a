"""The trainer beside the workers: reads their topic outside of their group, looks, and hands versions to the store.

One step, which a test can call:

    1. follow the store: another version is current (a person, a worker's rollback, another trainer), or a held
       candidate was vetoed
    2. read what is new in the topic and score it with the champion
    3. look, where that is due: by the clock, at the first sign that traffic was replaced, or when asked
    4. write what was decided: the candidate with its verdict, then the pointer by compare-and-swap
    5. remember all of it for the next start
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
from worker.model.store.model_store import ModelStore
from worker.model.store.pointer import Mark, Status
from worker.pipeline import Model
from worker.records import Partition, RawMessage, Scores
from worker.trainer.events import Reports
from worker.trainer.saved_state import Memory, restore, save
from worker.trainer.trainer import Decision, Look, Trainer

STATUS = {
    Decision.PROMOTED: Status.PROMOTED,
    Decision.REJECTED: Status.REJECTED,
    Decision.HELD: Status.HELD,
}


@dataclass(frozen=True, slots=True)
class Plan:
    """interval_s: between two looks. most: records of a step, beyond which the oldest are passed over. keep: versions
    in the store."""

    interval_s: float
    most: int
    keep: int


class Sidecar:
    """One trainer process. now: RFC 3339, UTC; clock: monotonic seconds; progress: called during a fit, may raise."""

    def __init__(
        self,
        trainer: Trainer,
        store: ModelStore,
        build: Callable[[Bundle], Model],
        *,
        topic: str,
        plan: Plan,
        decoder: Decoder,
        memory_file: Path,
        reports: Reports,
        now: Callable[[], str],
        progress: Progress | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._trainer = trainer
        self._store = store
        self._build = build
        self._topic = topic
        self._plan = plan
        self._decoder = decoder
        self._memory_file = memory_file
        self._reports = reports
        self._now = now
        self._progress = progress
        self._clock = clock
        self._due = clock() + plan.interval_s
        self._undone: Look | None = None  # decided, not in the store yet
        self.memory = self._remembered()

    def step(self, reader: RangeReader, *, asked: bool = False) -> None:
        """One round. Raises TransientError (no broker), StoreError (nothing was lost: the next step tries again)."""
        self._follow()  # 1.
        self._read(reader)  # 2.
        if self._undone is None and (asked or self._is_due()):
            self._due = self._clock() + self._plan.interval_s
            self._undone = self._look(asked=asked)  # 3.
        if self._undone is not None:
            self._hand_over(self._undone)  # 4.
            self._undone = None
            self.remember()  # 5.

    def _is_due(self) -> bool:
        return self._clock() >= self._due or self._trainer.is_alarmed()

    def _remembered(self) -> Memory:
        try:
            memory = restore(self._memory_file, self._trainer)
        except FileNotFoundError:
            return Memory()
        except (OSError, ValueError) as error:
            self._reports.forgot(str(error))
            self._trainer.forget()
            return Memory()
        return memory

    def remember(self) -> None:
        """Save what a restart needs. A disk that is full is reported, and the trainer goes on."""
        try:
            save(self._memory_file, self._trainer, self.memory)
        except OSError as error:
            self._reports.not_saved(f"{self._memory_file}: {error.strerror or error}")

    def _follow(self) -> None:
        champion = self._trainer.champion.bundle.version
        current, marks = self._store.current(), self._store.marks()
        if current is not None and current != champion:
            self._trainer.use(self._build(self._store.load(current)))
            left = marks.get(champion)
            if left is not None and left.status in {Status.ROLLED_BACK, Status.VETOED}:
                self._trainer.veto()  # what taught it that is still in the traffic
            self._reports.champion(current, f"{champion} was {left.status.value}" if left else "promoted elsewhere")
            self.memory = replace(self.memory, held=None)
        held = marks.get(self.memory.held or "")
        if held is not None and held.status is Status.VETOED:
            self._trainer.veto()
            self._reports.vetoed(self.memory.held or "", held.why)
            self.memory = replace(self.memory, held=None)

    def _read(self, reader: RangeReader) -> None:
        for batch in reader.read(self._bounds(reader)):
            self._trainer.observe(scored(self._trainer.champion, batch, self._decoder))
            last = batch[-1]
            self.memory.next_offsets[Partition(last.topic, last.partition)] = last.offset + 1
            self._reports.read(len(batch))

    def _bounds(self, reader: RangeReader) -> Bounds:
        starts, ends = reader.start_offsets(self._topic), reader.end_offsets(self._topic)
        share = max(1, self._plan.most // max(1, len(ends)))
        bounds = {}
        for partition, end in ends.items():
            known = self.memory.next_offsets.get(partition)
            start = max(starts[partition], end - share if known is None or known > end else known)
            passed = max(0, end - share - start)
            if passed:
                self._reports.passed_over(partition, passed)
            bounds[partition] = (start + passed, end)
            self.memory.next_offsets[partition] = start + passed
        return bounds

    def _look(self, *, asked: bool) -> Look:
        started = self._clock()
        look = self._trainer.look(self._now(), self._progress, asked=asked)
        self._reports.looked(look.verdict, self._clock() - started)
        return look

    def _hand_over(self, look: Look) -> None:
        verdict, model = look.verdict, look.candidate
        if model is None:
            return
        version, champion = model.bundle.version, verdict.champion
        self._store.save(model.bundle)
        mark = Mark(STATUS[verdict.decision], self._now(), "trainer", "; ".join(verdict.reasons), verdict.figures)
        if verdict.decision is Decision.PROMOTED:
            try:
                self._store.promote(version, expected=champion, mark=mark)
            except StoreConflict as error:
                self._reports.outrun(version, str(error))
            else:
                self._trainer.use(model)
                self._reports.champion(version, "promoted")
                self._hold(None, version)
        else:
            self._store.mark(version, mark)
            if verdict.decision is Decision.HELD:
                self._hold(version, version)
        self._store.prune(self._plan.keep)

    def _hold(self, version: str | None, instead: str) -> None:
        """Remember which candidate waits; the one before it does not any more."""
        before = self.memory.held
        if before is not None and before != instead:
            self._store.mark(before, Mark(Status.CANDIDATE, self._now(), "trainer", f"superseded by {instead}"))
        self.memory = replace(self.memory, held=version)


def scored(model: Model, messages: Sequence[RawMessage], decoder: Decoder) -> Scores:
    """What `worker run` would have scored of these messages, without thresholds; the rest is left out."""
    vectors = model.vectorizer.transform(decoder.decode(messages))
    score = model.scorer.score(vectors.numeric, vectors.category_ids)
    nothing, none = np.full(len(score), np.nan), np.zeros(len(score), np.bool_)
    return Scores(vectors.messages, score, nothing, none, vectors.event_time_ms, model.bundle.version)
