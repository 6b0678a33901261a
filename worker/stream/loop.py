"""The record loop: at least once, in this order, always.

    1. poll until the batch is full or its first record has waited long enough; a partition that is new gets its saved
       threshold before its first record is taken
    2. process: every record becomes a score or a dead letter, tombstones are skipped
    3. ask the breaker whether the stream is still worth going on
    4. publish all results, then the state of the thresholds, and only when every one is acknowledged commit the offsets

Partitions change owner only inside poll, so nothing is ever in flight while it runs: a batch whose delivery failed is
held as it is, its partitions paused, and polling goes on so that the member stays in its group. Thresholds move while a
batch is processed: one that is given up takes them back to what was saved.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from worker.broker.base import Consumer, Delivery, Polled
from worker.errors import CommitRefused, RecordTooLarge, TransientError
from worker.pipeline import Pipeline
from worker.records import Outcome, Partition, RawMessage
from worker.rollout.rollout import Models
from worker.stream.batch_sizer import BatchSizer
from worker.stream.breaker import Breaker
from worker.stream.checkpoints import Checkpoints
from worker.stream.events import Events
from worker.stream.sinks.kafka import Pending, Topics, pending_of

IDLE_POLL_MS = 200
AT_ONCE_S = 0.01
FIRST_BACKOFF_MS = 100
LONGEST_BACKOFF_MS = 5_000
ATTEMPTS = 5  # to deliver a batch; then it is read again in smaller ones


class Loop:
    """One worker process: a consumer, a pipeline and a delivery.

    states: where thresholds travel; by default nowhere, then they start anew with each owner of a partition.
    models: asked between two batches for a model that takes over; by default there is none.
    longest_s: batches shrink when one takes longer from its scoring to its commit (worker.stream.batch_sizer).
    wall_clock: gives `detected_at`. monotonic: seconds, for waiting only.
    """

    def __init__(
        self,
        consumer: Consumer,
        delivery: Delivery,
        pipeline: Pipeline,
        *,
        topics: Topics,
        breaker: Breaker,
        events: Events,
        wall_clock: Callable[[], str],
        states: Checkpoints | None = None,
        models: Models | None = None,
        batch_size: int = 8192,
        max_wait_ms: int = 50,
        longest_s: float = 15.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._consumer = consumer
        self._delivery = delivery
        self._pipeline = pipeline
        self._topics = topics
        self._breaker = breaker
        self._events = events
        self._wall_clock = wall_clock
        self._states = states or Checkpoints()
        self._models = models or Models()
        self._pace = BatchSizer(most=batch_size, longest_s=longest_s)
        self._max_wait_s = max_wait_ms / 1000
        self._monotonic = monotonic
        self._batch: dict[Partition, list[RawMessage]] = {}  # collected, not processed
        self._open: _Open | None = None  # processed, not delivered
        self._fresh: set[Partition] = set()  # assigned, threshold not restored
        self._attempt = 0
        self._collected = monotonic()  # the last time

    def run(self, should_stop: Callable[[], bool], *, drain_s: float = 20.0) -> None:
        """Step until told to stop, then deliver what is open for at most `drain_s` seconds.

        Raises FatalError; nothing that was not delivered is committed then.
        """
        while not should_stop():
            self.step()
        deadline = self._monotonic() + drain_s
        while self._open is not None and self._monotonic() < deadline:
            self.step()
        if self._open is not None:
            self._events.dropped(self._open.records, f"not delivered within {drain_s:g} s of the stop")

    def step(self) -> None:
        """Collect, process and deliver one batch; or try again to deliver the one that is open."""
        if self._open is None:
            self._swap()
            self._collect()  # 1.
            if not self._batch:
                return
            self._process()  # 2. 3.
        self._deliver()  # 4.

    def _swap(self) -> None:
        change, old = self._models.take(), self._pipeline.model
        if change is not None and change.model.bundle.version != old.bundle.version:
            left = self._pipeline.swap(change.model, change.thresholds)
            self._states.swapped()
            self._models.swapped(old, left)
            self._events.swapped(old.bundle.version, change.model.bundle.version)

    def _collect(self) -> None:
        started = self._monotonic()
        deadline = started if self._batch else None
        while (room := self._pace.size - _count(self._batch)) > 0:
            wait_s = IDLE_POLL_MS / 1000 if deadline is None else deadline - self._monotonic()
            if wait_s <= 0 and deadline is not None:
                break
            if not self._poll(int(wait_s * 1000), room) and deadline is None:
                break
            if deadline is None and self._batch:
                now = self._monotonic()
                # What is there at once has waited while the last batch was worked off.
                deadline = self._max_wait_s + (self._collected if now - started < AT_ONCE_S else now)
        self._collected = self._monotonic()

    def _poll(self, timeout_ms: int, room: int) -> bool:
        """Whether records came. Applies what the poll changed before it takes them."""
        try:
            polled = self._consumer.poll(timeout_ms, room)
        except TransientError as error:
            self._wait(error)
            return False
        self._events.beat()
        self._apply_changes()
        polled = self._restore(polled)
        for partition, messages in polled.items():
            self._batch.setdefault(partition, []).extend(messages)
        return bool(polled)

    def _apply_changes(self) -> None:
        assigned, revoked = self._consumer.changes()
        if not assigned and not revoked:
            return
        gone = sum(len(self._batch.pop(partition, ())) for partition in revoked)
        if self._open is not None:
            held, self._open = self._open.records, self._open.without(revoked)
            gone += held - (self._open.records if self._open is not None else 0)
        if gone:
            self._events.dropped(gone, "their partitions were revoked")
        self._forget(revoked)
        self._fresh = (self._fresh - revoked) | assigned
        self._events.rebalanced(assigned, revoked)

    def _forget(self, partitions: Collection[Partition]) -> None:
        for keeper in (self._pipeline, self._states, self._models):
            keeper.forget(partitions)

    def _restore(self, polled: Polled) -> Polled:
        """What may be scored of this poll. Records of a partition that couldn't be restored yet are polled again."""
        if not self._fresh:
            return polled
        fresh = frozenset(self._fresh)
        try:
            starts = self._states.restore(fresh)
        except TransientError as error:
            moved = {partition: messages[0].offset for partition, messages in polled.items() if partition in fresh}
            self._consumer.seek(moved)
            self._wait(error)
        else:
            # Not only a start that lies ahead: a position beyond it would leave records out.
            moved = {p: start for p, start in starts.items() if p not in polled or polled[p][0].offset != start}
            self._consumer.seek(moved)
            self._fresh.clear()
        return {partition: messages for partition, messages in polled.items() if partition not in moved}

    def _wait(self, error: TransientError) -> None:
        self._attempt += 1
        self._events.retrying(error, self._attempt)
        time.sleep(self._backoff_ms() / 1000)

    def _process(self) -> None:
        batch, self._batch = self._batch, {}
        started = self._monotonic()
        outcome = self._pipeline.process([message for part in batch.values() for message in part], self._wall_clock())
        self._breaker.check(len(outcome.scores.messages), len(outcome.dead_letters))
        self._open = _Open(
            pending=pending_of(outcome, self._topics, self._states.records(outcome)),
            outcome=outcome,
            starts={partition: part[0].offset for partition, part in batch.items()},
            process_s=self._monotonic() - started,
        )

    def _deliver(self) -> None:
        work = self._open
        if work is None:
            return
        started = self._monotonic()
        try:
            if work.attempts >= ATTEMPTS and work.records > 1:
                self._divide(work)
                return
            self._delivery.publish(
                [outgoing for _, outgoing in work.pending.outgoing],
                work.pending.next_offsets,
                [outgoing for _, outgoing in work.pending.state],
            )
        except CommitRefused as error:
            self._keep_pace(work, started)
            self._give_up(work, str(error))
        except RecordTooLarge as error:
            self._open = replace(work, pending=work.pending.shortened(error.records, self._topics))
            self._events.shortened(len(error.records))
        except TransientError as error:
            self._open = replace(work, attempts=work.attempts + 1)
            self._attempt += 1
            self._events.retrying(error, self._attempt)
            self._keep_membership()
        else:
            self._open, self._attempt = None, 0
            self._states.delivered(work.pending.next_offsets)
            delivered = self._monotonic()
            self._models.observe(work.outcome)
            self._keep_pace(work, started)
            process_s = work.process_s + self._monotonic() - delivered
            self._events.batch(work.outcome, process_s=process_s, deliver_s=delivered - started)

    def _divide(self, work: "_Open") -> None:
        """Read a batch that could not be delivered again, in smaller ones. Raises TransientError."""
        self._delivery.open()  # the broker is there, and what the last attempt left open has ended
        committed = self._consumer.committed(work.starts)  # perhaps all of it, and only the answer was lost
        starts = {partition: max(start, committed[partition] or 0) for partition, start in work.starts.items()}
        self._pace.halve()
        why = f"not acknowledged in {work.attempts} attempts, what is left goes on in smaller ones"
        self._give_up(replace(work, starts=starts), why)

    def _keep_pace(self, work: "_Open", started: float) -> None:
        seconds = work.process_s + self._monotonic() - started
        if self._pace.took(work.records, seconds):
            self._events.slowed(self._pace.size, seconds)

    def _give_up(self, work: "_Open", why: str) -> None:
        """The group has moved on. What is still assigned after it is read again from where the batch began."""
        self._events.dropped(work.records, why)
        self._forget(work.starts)
        self._fresh |= work.starts.keys() & self._consumer.assignment()
        self._consumer.seek(work.starts)
        self._open, self._attempt = None, 0
        for partition in work.starts:
            self._batch.pop(partition, None)

    def _keep_membership(self) -> None:
        """Wait by polling with everything paused, so that the group doesn't give this member up."""
        self._consumer.pause(self._consumer.assignment())
        self._poll(self._backoff_ms(), self._pace.size)
        self._consumer.resume(self._consumer.assignment())

    def _backoff_ms(self) -> int:
        return min(FIRST_BACKOFF_MS << min(self._attempt, 10), LONGEST_BACKOFF_MS)


@dataclass(frozen=True, slots=True)
class _Open:
    """A processed batch on its way out. starts: the batch's first offset of each partition; attempts: that failed."""

    pending: Pending
    outcome: Outcome
    starts: Mapping[Partition, int]
    process_s: float
    attempts: int = 0

    @property
    def records(self) -> int:
        """Input records, as far as offsets tell."""
        return sum(end - self.starts[partition] for partition, end in self.pending.next_offsets.items())

    def without(self, partitions: Collection[Partition]) -> "_Open | None":
        """What is left when these partitions were revoked; None when nothing is."""
        pending = self.pending.without(partitions)
        starts = {partition: offset for partition, offset in self.starts.items() if partition not in partitions}
        return replace(self, pending=pending, starts=starts) if starts else None


def _count(batch: Mapping[Partition, Sequence[RawMessage]]) -> int:
    return sum(map(len, batch.values()))
