"""The record loop: at least once, in this order, always.

    1. poll until the batch is full or its first record has waited long enough; a partition that is new gets its
       checkpoint before its first record is taken
    2. process: every record becomes a score or a dead letter, tombstones are skipped
    3. ask the breaker whether the stream is still worth going on
    4. flush the sinks beside the Kafka topics
    5. publish all results, then the checkpoints, and only when every one is acknowledged commit the offsets

Partitions change owner only inside poll, so nothing is ever in flight while it runs: a batch whose delivery failed is
held as it is, its partitions paused, and polling goes on so that the member stays in its group. Thresholds move while a
batch is processed: giving it up takes them back to their checkpoints.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from worker.broker.base import Consumer, Delivery, Polled
from worker.errors import CommitRefused, RecordTooLarge, SettingsError, TransientError
from worker.pipeline import Pipeline
from worker.records import Outcome, Outgoing, Partition, RawMessage
from worker.rollout.rollout import Rollout
from worker.stream.batch_sizer import BatchSizer
from worker.stream.breaker import Breaker
from worker.stream.checkpoints import Checkpoints
from worker.stream.events import Events
from worker.stream.sinks.base import Sink
from worker.stream.sinks.kafka import KafkaSink

IDLE_POLL_MS = 200
AT_ONCE_S = 0.01
FIRST_BACKOFF_MS = 100
MAX_BACKOFF_MS = 5_000
MAX_ATTEMPTS = 5  # to deliver a batch; then it is read again in smaller ones


class Loop:
    """One worker process: a consumer, a pipeline and a delivery.

    kafka_sink      the topics of the results; its records are published with the commit
    sinks           other receivers of outcomes, flushed before it
    sink_timeout_s  seconds in which all of them together have to take a batch
    checkpoints     where thresholds stay; by default nowhere, then they start anew with each owner of a partition
    rollout         changes the model between two batches; by default never
    batch_size      records, at most
    max_wait_ms     time in which a batch fills
    max_batch_s     batches shrink when one takes longer from its scoring to its commit (worker.stream.batch_sizer)
    wall_clock      gives `detected_at`
    monotonic       seconds, for waiting only
    """

    def __init__(
        self,
        consumer: Consumer,
        delivery: Delivery,
        pipeline: Pipeline,
        *,
        kafka_sink: KafkaSink,
        breaker: Breaker,
        events: Events,
        wall_clock: Callable[[], str],
        sinks: Sequence[Sink] = (),
        sink_timeout_s: float = 30.0,
        checkpoints: Checkpoints | None = None,
        rollout: Rollout | None = None,
        batch_size: int = 8192,
        max_wait_ms: int = 50,
        max_batch_s: float = 15.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._consumer = consumer
        self._delivery = delivery
        self._pipeline = pipeline
        self._kafka_sink = kafka_sink
        self._sinks = tuple(sinks)
        self._flush_s = sink_timeout_s / max(1, len(self._sinks))
        self._breaker = breaker
        self._events = events
        self._wall_clock = wall_clock
        self._checkpoints = checkpoints or Checkpoints()
        self._rollout = rollout or Rollout(pipeline.model)
        self._batch_sizer = BatchSizer(max_records=batch_size, max_batch_s=max_batch_s)
        self._max_wait_s = max_wait_ms / 1000
        self._monotonic = monotonic
        self._collected: dict[Partition, list[RawMessage]] = {}  # not processed yet
        self._batch: Batch | None = None  # processed, not delivered yet
        self._unrestored: set[Partition] = set()  # assigned, their checkpoint not read yet
        self._attempt = 0
        self._collection_ended = monotonic()

    def run(self, should_stop: Callable[[], bool], *, drain_s: float = 20.0) -> None:
        """Step until told to stop, then deliver the batch in flight for at most `drain_s` seconds.

        Raises FatalError; nothing that was not delivered is committed then.
        """
        while not should_stop():
            self.step()
        deadline = self._monotonic() + drain_s
        while self._batch is not None and self._monotonic() < deadline:
            self.step()
        if self._batch is not None:
            self._events.dropped(self._batch.records, f"not delivered within {drain_s:g} s of the stop")

    def step(self) -> None:
        """Collect, process and deliver one batch; or try again to deliver the one in flight."""
        if self._batch is None:
            self._swap()
            self._collect()  # 1.
            if not self._collected:
                return
            self._process()  # 2. 3.
        self._deliver()  # 4. 5.

    def _swap(self) -> None:
        old = self._pipeline.model.bundle.version
        if self._rollout.swap(self._pipeline):
            self._checkpoints.swapped()
            self._events.swapped(old, self._pipeline.model.bundle.version)

    # Why the deadline of a batch is not simply "first record + max_wait_s".
    #
    # A record waits from when it arrives on the broker, not from when it is polled. While a batch is scored and
    # delivered nothing is polled, so what the next poll returns at once (within AT_ONCE_S) has arrived meanwhile: since
    # the last collection ended, at the earliest, and its wait is counted from there. So under load, where a batch takes
    # longer than max_wait_s, the next one leaves with what is there; counted from the poll, every record would wait for
    # max_wait_s more, and alerts come 25 ms later. A record that comes while poll is waiting has just arrived: counted
    # from now. Without any there is no deadline, and one idle poll ends the step, so that the caller sees a stop.
    # Records that are here already were polled while a delivery was repeated: they have waited, and leave at once.
    def _collect(self) -> None:
        started = self._monotonic()
        deadline = started if self._collected else None
        while (room := self._batch_sizer.size - sum(map(len, self._collected.values()))) > 0:
            wait_s = IDLE_POLL_MS / 1000 if deadline is None else deadline - self._monotonic()
            if wait_s <= 0 and deadline is not None:
                break
            if not self._poll(int(wait_s * 1000), room) and deadline is None:
                break
            if deadline is None and self._collected:
                now = self._monotonic()
                deadline = self._max_wait_s + (self._collection_ended if now - started < AT_ONCE_S else now)
        self._collection_ended = self._monotonic()

    def _poll(self, timeout_ms: int, room: int) -> bool:
        """Whether records came. Applies what the poll changed before it takes them."""
        try:
            polled = self._consumer.poll(timeout_ms, room)
        except TransientError as error:
            self._wait(error)
            return False
        self._events.beat()
        self._apply_assignment_changes()
        polled = self._restore(polled)
        for partition, messages in polled.items():
            self._collected.setdefault(partition, []).extend(messages)
        return bool(polled)

    def _apply_assignment_changes(self) -> None:
        assigned, revoked = self._consumer.assignment_changes()
        if not assigned and not revoked:
            return
        dropped = sum(len(self._collected.pop(partition, ())) for partition in revoked)
        if self._batch is not None:
            dropped += self._batch.drop(revoked)
            self._batch = self._batch if self._batch.starts else None
        if dropped:
            self._events.dropped(dropped, "their partitions were revoked")
        self._forget(revoked)
        self._unrestored = (self._unrestored - revoked) | assigned
        self._events.rebalanced(assigned, revoked)

    def _forget(self, partitions: Collection[Partition]) -> None:
        for sink in (self._kafka_sink, *self._sinks):
            sink.discard(partitions)
        for keeper in (self._pipeline, self._checkpoints, self._rollout):
            keeper.forget(partitions)

    def _restore(self, polled: Polled) -> Polled:
        """What may be scored of this poll. Records of a partition that can't be restored yet are polled again."""
        if not self._unrestored:
            return polled
        partitions = frozenset(self._unrestored)
        try:
            starts = self._checkpoints.restore(partitions)
        except TransientError as error:
            moved = {partition: messages[0].offset for partition, messages in polled.items() if partition in partitions}
            self._consumer.seek(moved)
            self._wait(error)
        else:
            # Not only a start that lies ahead: a position beyond it would leave records out.
            moved = {p: start for p, start in starts.items() if p not in polled or polled[p][0].offset != start}
            self._consumer.seek(moved)
            self._unrestored.clear()
        return {partition: messages for partition, messages in polled.items() if partition not in moved}

    def _wait(self, error: TransientError) -> None:
        self._attempt += 1
        self._events.retrying(error, self._attempt)
        time.sleep(self._backoff_ms() / 1000)

    def _process(self) -> None:
        collected, self._collected = self._collected, {}
        started = self._monotonic()
        messages = [message for part in collected.values() for message in part]
        outcome = self._pipeline.process(messages, self._wall_clock())
        self._breaker.check(len(outcome.scores.messages), len(outcome.dead_letters))
        for sink in (self._kafka_sink, *self._sinks):
            sink.add(outcome)
        self._batch = Batch(
            outcome=outcome,
            checkpoints=self._checkpoints.records(outcome),
            starts={partition: part[0].offset for partition, part in collected.items()},
            process_s=self._monotonic() - started,
        )

    def _deliver(self) -> None:
        batch = self._batch
        if batch is None:
            return
        started = self._monotonic()
        try:
            if batch.attempts >= MAX_ATTEMPTS and batch.records > 1:
                self._divide(batch)
                return
            while batch.flushed < len(self._sinks):
                self._sinks[batch.flushed].flush(self._flush_s)
                batch.flushed += 1
            checkpoints = [record for partition, record in batch.checkpoints if partition in batch.starts]
            self._delivery.publish(self._kafka_sink.records, batch.next_offsets, checkpoints)
        except CommitRefused as error:
            self._adapt_size(batch, started)
            self._give_up(batch, str(error))
        except RecordTooLarge as error:
            self._shorten(batch, error)
        except TransientError as error:
            # A sink that is away is asked for as long as it takes: its batch read again in smaller ones would reach
            # the other sinks twice.
            batch.attempts += batch.flushed == len(self._sinks)
            self._attempt += 1
            self._events.retrying(error, self._attempt)
            self._keep_membership()
        else:
            self._batch, self._attempt = None, 0
            self._kafka_sink.discard(batch.starts)
            self._checkpoints.delivered(batch.next_offsets)
            delivered = self._monotonic()
            self._rollout.observe(batch.outcome)
            self._adapt_size(batch, started)
            process_s = batch.process_s + self._monotonic() - delivered
            self._events.batch(batch.outcome, process_s=process_s, deliver_s=delivered - started)

    def _shorten(self, batch: "Batch", error: RecordTooLarge) -> None:
        """Cut the results that are too large; SettingsError where a checkpoint is, for that is never cut."""
        refused = {id(record) for record in error.records}
        for _, record in batch.checkpoints:
            if id(record) in refused:
                raise SettingsError(
                    f"the broker takes no record of {len(record.value or b'')} bytes for {record.topic}: raise its "
                    f"max.message.bytes or lower [threshold.stride]"
                )
        self._kafka_sink.shorten(error.records)
        self._events.shortened(len(error.records))

    def _divide(self, batch: "Batch") -> None:
        """Read a batch that could not be delivered again, in smaller ones. Raises TransientError."""
        self._delivery.open()  # the broker is there, and what the last attempt left open has ended
        committed = self._consumer.committed(batch.starts)  # perhaps all of it, and only the answer was lost
        batch.starts = {partition: max(start, committed[partition] or 0) for partition, start in batch.starts.items()}
        self._batch_sizer.halve()
        self._give_up(batch, f"not acknowledged in {batch.attempts} attempts, what is left goes on in smaller ones")

    def _adapt_size(self, batch: "Batch", started: float) -> None:
        seconds = batch.process_s + self._monotonic() - started
        if self._batch_sizer.adapt(batch.records, seconds):
            self._events.slowed(self._batch_sizer.size, seconds)

    def _give_up(self, batch: "Batch", why: str) -> None:
        """The group has moved on. What is still assigned after it is read again from where the batch began."""
        self._events.dropped(batch.records, why)
        self._forget(batch.starts)
        self._unrestored |= batch.starts.keys() & self._consumer.assignment()
        self._consumer.seek(batch.starts)
        self._batch, self._attempt = None, 0
        for partition in batch.starts:
            self._collected.pop(partition, None)

    def _keep_membership(self) -> None:
        """Wait by polling with everything paused, so that the group doesn't give this member up."""
        self._consumer.pause(self._consumer.assignment())
        self._poll(self._backoff_ms(), self._batch_sizer.size)
        self._consumer.resume(self._consumer.assignment())

    def _backoff_ms(self) -> int:
        return min(FIRST_BACKOFF_MS << min(self._attempt, 10), MAX_BACKOFF_MS)


@dataclass(slots=True)
class Batch:
    """A processed batch on its way out.

    outcome      what the pipeline made of it
    checkpoints  what to write to the state topic, by input partition
    starts       its first offset of each partition that still belongs to this member
    process_s    seconds that its scoring took
    flushed      how many sinks have it, in their order
    attempts     deliveries of it that failed
    """

    outcome: Outcome
    checkpoints: Sequence[tuple[Partition, Outgoing]]
    starts: Mapping[Partition, int]
    process_s: float
    flushed: int = 0
    attempts: int = 0

    @property
    def next_offsets(self) -> Mapping[Partition, int]:
        """What to commit."""
        return {partition: self.outcome.next_offsets[partition] for partition in self.starts}

    @property
    def records(self) -> int:
        """Input records, as far as offsets tell."""
        return sum(end - self.starts[partition] for partition, end in self.next_offsets.items())

    def drop(self, partitions: Collection[Partition]) -> int:
        """Takes out what belongs to these partitions, and says how many records it was."""
        before = self.records
        self.starts = {key: offset for key, offset in self.starts.items() if key not in partitions}
        return before - self.records
