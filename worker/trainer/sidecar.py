"""The trainer beside the workers: reads their topic outside of their group, checks it, hands versions to the store.

One step, which a test can call:

    1. follow the store: another version is current (a person, a worker's rollback, another trainer), or a held
       candidate was vetoed
    2. read what is new in the topic and score it with the current model
    3. check, where that is due: by the clock, at the first sign that traffic was replaced, or when asked
    4. write what was decided: the candidate with its verdict, then the pointer by compare-and-swap
    5. save all of it for the next start, in one file of plain arrays; a damaged one is refused, not believed
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path

import numpy as np

from worker.broker.base import RangeReader
from worker.errors import StoreConflict, StoreError, TransientError
from worker.formats.base import Decoder
from worker.model.network.fit import Progress
from worker.model.store.bundle import Bundle
from worker.model.store.model_store import ModelStore
from worker.model.store.pointer import NEVER_AGAIN, Mark, Status
from worker.model.store.volume import read_file, write_atomically
from worker.pipeline import Model
from worker.records import Partition, RawMessage, Scores
from worker.texts import quoted
from worker.trainer.drift import ScoreBuffer
from worker.trainer.state_file import FORMAT, BufferHead, Head, max_state_bytes, packed, unpacked
from worker.trainer.trainer import Check, Decision, Streak, Trainer, TrainerVerdict


@dataclass(slots=True)
class SavedState:
    """What is kept beside the trainer's own state.

    next_offsets   where reading goes on
    held           the candidate that waits for a person
    """

    next_offsets: dict[Partition, int] = field(default_factory=dict)
    held: str | None = None


class TrainerEvents:
    """What the sidecar does. Called on the trainer's thread; this one ignores everything."""

    def read(self, records: int) -> None:
        """Records were read from the topic."""

    def passed_over(self, partition: Partition, records: int) -> None:
        """Records were left out, since more came than the trainer reads in a step."""

    def unreadable(self, partition: Partition, first_offset: int, last_offset: int, why: str) -> None:
        """Records that can't be read were passed over, from the first of these offsets to the last."""

    def checked(self, verdict: TrainerVerdict, seconds: float) -> None:
        """A check was made."""

    def answered(self, verdict: TrainerVerdict) -> None:
        """A person asked for a check: this is what came of it."""

    def current_changed(self, version: str, why: str) -> None:
        """Another version is current."""

    def vetoed(self, version: str, why: str) -> None:
        """A person vetoed the held candidate: its traffic is not normal."""

    def outrun(self, candidate: str, why: str) -> None:
        """Somebody else changed the current version first; this candidate stays in the store."""

    def not_cleaned_up(self, error: StoreError) -> None:
        """Old versions could not be removed from the store."""

    def state_lost(self, why: str) -> None:
        """The saved state can't be used; the reservoir begins anew."""

    def state_not_saved(self, why: str) -> None:
        """The state could not be saved; a restart would begin with an older one."""


@dataclass(eq=False)
class Sidecar:
    """One trainer process.

    topic         what it reads: its name; several, or a pattern
    interval_s    seconds between two checks
    max_records   of a step; the oldest beyond them are passed over
    keep          versions in the store
    state_file    what it keeps over a restart
    decoder       of the topic's records
    now           the wall clock, RFC 3339, UTC
    progress      called during a fit; may raise
    clock         seconds, monotonic
    """

    trainer: Trainer
    store: ModelStore
    build: Callable[[Bundle], Model]
    _: KW_ONLY
    topic: str
    interval_s: float
    max_records: int
    keep: int
    state_file: Path
    decoder: Decoder
    events: TrainerEvents
    now: Callable[[], str]
    progress: Progress | None = None
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._due = self.clock() + self.interval_s
        self._decided: Check | None = None  # not in the store yet
        self.state = SavedState()
        try:
            self.state = restore(self.state_file, self.trainer)
        except FileNotFoundError:
            pass  # the first start
        except (OSError, ValueError) as error:
            self.events.state_lost(str(error))
            self.trainer.reservoir.clear()  # a part of it may have been restored
            self.trainer.use(self.trainer.current)

    def step(self, reader: RangeReader, *, asked: bool = False) -> None:
        """One round. Raises TransientError (no broker, no schema registry) and StoreError; nothing was lost then, and
        the next step tries again.
        """
        self._follow()  # 1.
        self._read(reader)  # 2.
        if self._decided is None and (asked or self.clock() >= self._due or self.trainer.is_alarmed()):
            started = self.clock()
            self._decided = self.trainer.check(self.now(), self.progress, asked=asked)  # 3.
            self._due = started + self.interval_s
            self.events.checked(self._decided.verdict, self.clock() - started)
        if (decided := self._decided) is not None:
            self._hand_over(decided)  # 4.
            self._decided = None
            self.save()  # 5.
            if asked:
                self.events.answered(decided.verdict)

    def save(self) -> None:
        """Save what a restart needs. Where that can't be now (a disk that is full, records that can't be masked without
        a schema registry that is away), it is reported, and the trainer goes on.
        """
        try:
            save(self.state_file, self.trainer, self.state)
        except (OSError, TransientError) as error:
            self.events.state_not_saved(f"{self.state_file}: {getattr(error, 'strerror', None) or error}")

    def _follow(self) -> None:
        version = self.trainer.current.bundle.version
        current, marks = self.store.current(), self.store.marks()
        if current is not None and current != version:
            self.trainer.use(self.build(self.store.load(current)))
            left = marks.get(version)
            if left is not None and left.status in NEVER_AGAIN:
                self.trainer.veto()  # what taught it that is still in the traffic
            self.events.current_changed(current, f"{version} was {left.status.value}" if left else "promoted elsewhere")
            self.state.held = None
        held = self.state.held
        mark = marks.get(held) if held is not None else None
        if held is not None and mark is not None and mark.status is Status.VETOED:
            self.trainer.veto()
            self.events.vetoed(held, mark.why)
            self.state.held = None

    def _read(self, reader: RangeReader) -> None:
        starts, ends = reader.start_offsets(self.topic), reader.end_offsets(self.topic)
        share = max(1, self.max_records // max(1, len(ends)))
        bounds = dict[Partition, tuple[int, int]]()
        for partition, end in ends.items():
            known = self.state.next_offsets.get(partition)
            # An offset beyond the end is of a topic that was made anew.
            start = max(starts[partition], end - share if known is None or known > end else known)
            passed = max(0, end - share - start)
            if passed:
                self.events.passed_over(partition, passed)
            self.state.next_offsets[partition] = start + passed
            bounds[partition] = (start + passed, end)
        for batch in reader.read(bounds):
            self.trainer.observe(scored(self.trainer.current, batch, self.decoder))
            last = batch[-1]
            self.state.next_offsets[Partition(last.topic, last.partition)] = last.offset + 1
            self.events.read(len(batch))
        for place in reader.unreadable():
            self.events.unreadable(*place)

    def _hand_over(self, check: Check) -> None:
        verdict, model = check.verdict, check.candidate
        if model is None:
            return
        version = model.bundle.version
        self.store.save(model.bundle)
        mark = Mark(Status(verdict.decision.value), self.now(), "trainer", "; ".join(verdict.reasons), verdict.figures)
        if verdict.decision is Decision.PROMOTED:
            try:
                self.store.promote(version, expected=verdict.current, mark=mark)
            except StoreConflict as error:
                self.events.outrun(version, str(error))
            else:
                self.trainer.use(model)
                self.events.current_changed(version, "promoted")
                self._hold(None, version)
        else:
            self.store.mark(version, mark)
            if verdict.decision is Decision.HELD:
                self._hold(version, version)
        try:
            self.store.prune(self.keep)
        except StoreError as error:  # what was decided stands in the store, and the next decision cleans up again
            self.events.not_cleaned_up(error)

    def _hold(self, version: str | None, instead: str) -> None:
        """Remember which candidate waits; the one before it does not any more."""
        held = self.state.held
        if held is not None and held != instead:
            self.store.mark(held, Mark(Status.CANDIDATE, self.now(), "trainer", f"superseded by {instead}"))
        self.state.held = version


def scored(model: Model, messages: Sequence[RawMessage], decoder: Decoder) -> Scores:
    """What `worker run` would have scored of these messages, without thresholds; the rest is left out."""
    vectors = model.vectorizer.transform(decoder.decode(messages))
    score = model.scorer.score(vectors.numeric, vectors.category_ids)
    nothing, none = np.full(len(score), np.nan), np.zeros(len(score), np.bool_)
    return Scores(vectors.messages, score, nothing, none, vectors.event_time_ms, model.bundle.version)


def save(path: Path, trainer: Trainer, state: SavedState) -> None:
    """Write it so that a crash leaves the old file or the new. OSError where the disk is full."""
    head = Head(
        format=FORMAT,
        current=trainer.current.bundle.version,
        next_offsets=tuple((*partition, offset) for partition, offset in state.next_offsets.items()),
        held=state.held,
        seen=trainer.reservoir.seen,
        streak=(trainer.streak.state, trainer.streak.checks, trainer.streak.since),
        checks=trainer.checks,
        vetoed=trainer.vetoed,
        holding=trainer.holding,
        buffer=BufferHead(trainer.buffer.step, trainer.buffer.seen),
    )
    records = trainer.reservoir.records()
    records = replace(records, values=trainer.kept_values(records.values))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, packed(head, trainer.buffer.scores, records))


def restore(path: Path, trainer: Trainer) -> SavedState:
    """Go on from a file. ValueError where it is damaged or of another format, FileNotFoundError where there is none.

    Records stay what they are under another current version; scores and checks of another are forgotten.
    """
    max_bytes = max_state_bytes(trainer.reservoir)
    content = read_file(path, max_bytes, follow_link=True)
    try:
        head, scores, records = unpacked(content, max_bytes)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {quoted(error)}") from error
    trainer.reservoir.restore(records, head.seen)
    trainer.checks = head.checks
    if head.current == trainer.current.bundle.version:
        trainer.streak = Streak(*head.streak)
        trainer.holding = head.holding
        trainer.buffer = ScoreBuffer(scores, step=head.buffer.step, seen=head.buffer.seen)
    trainer.vetoed = head.vetoed  # of whatever version: what was vetoed is the traffic
    return SavedState({Partition(topic, number): offset for topic, number, offset in head.next_offsets}, head.held)
