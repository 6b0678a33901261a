"""The record loop: at least once, in this order, always.

    1. poll until the batch is full or its first record has waited long enough; a partition that is new gets its
       checkpoint before its first record is taken
    2. process: every record becomes a score or a dead letter, tombstones are skipped; where the schema of a record
       can't be asked for now, the batch waits as it is
    3. ask the breaker whether the stream is still worth going on
    4. flush the sinks beside the Kafka topics
    5. publish all results, then the checkpoints, and only when every one is acknowledged commit the offsets

Partitions change owner only inside poll, so nothing is ever in flight while it runs: a batch whose delivery failed is
held as it is, its partitions paused, and polling goes on so that the member stays in its group. Thresholds move while a
batch is processed: giving it up takes them back to their checkpoints.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace

from worker.broker.base import Consumer, Delivery, Offsets, Polled
from worker.errors import CommitRefused, OutcomeUnknown, RecordTooLarge, SettingsError, TransientError
from worker.pipeline import Pipeline
from worker.records import Outcome, Outgoing, Partition, RawMessage
from worker.rollout.rollout import Rollout
from worker.stream.breaker import Breaker
from worker.stream.checkpoints import Checkpoints
from worker.stream.events import Events
from worker.stream.sinks.base import Sink
from worker.stream.sinks.kafka import KafkaSink
from worker.stream.sizing import BatchSizer

IDLE_POLL_MS = 200
AT_ONCE_S = 0.01
FIRST_BACKOFF_MS = 100
MAX_BACKOFF_MS = 1_000
CATCH_UP_S = 1.0
MAX_ATTEMPTS = 5  # to deliver a batch; then it is read again in smaller ones


@dataclass(eq=False)
class Loop:
    """One worker process: a consumer, a pipeline and a delivery.

    kafka_sink      the topics of the results; its records are published with the commit
    sinks           other receivers of outcomes, flushed before it
    sink_timeout_s  seconds in which all of them together have to take a batch
    checkpoints     where thresholds stay; by default nowhere, then they start anew with each owner of a partition
    rollout         changes the model between two batches; by default never
    batch_size      records, at most
    max_batch_bytes memory that the records of a batch take, about a megabyte more or one record
    max_wait_ms     time in which a batch fills
    max_batch_s     batches shrink when one takes longer from its scoring to its commit (BatchSizer)
    wall_clock      gives `detected_at`
    monotonic       seconds, for waiting only
    """

    consumer: Consumer
    delivery: Delivery
    pipeline: Pipeline
    _: KW_ONLY
    kafka_sink: KafkaSink
    breaker: Breaker
    events: Events
    wall_clock: Callable[[], str]
    sinks: Sequence[Sink] = ()
    sink_timeout_s: float = 30.0
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    rollout: Rollout | None = None
    batch_size: int = 8192
    max_batch_bytes: int = 16 << 20
    max_wait_ms: int = 50
    max_batch_s: float = 15.0
    monotonic: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._rollout = self.rollout or Rollout(self.pipeline.model)
        self._batch_sizer = BatchSizer(max_records=self.batch_size, max_batch_s=self.max_batch_s)
        self._collected: dict[Partition, list[RawMessage]] = {}  # not processed yet
        self._batch: Batch | None = None  # processed, not delivered yet
        self._collected_bytes = 0
        self._committed: dict[Partition, int | None] = {}  # what this member has committed, or found committed
        self._unrestored: set[Partition] = set()  # assigned, their checkpoint not read yet
        self._attempt = 0
        self._at_rest_since = self.monotonic()
        self._collection_ended = self.monotonic()
        self.pipeline.topic_id_of = self._topic_id_of

    def _topic_id_of(self, partition: Partition) -> str | None:
        return self.consumer.topic_id(partition.topic) if self.consumer.is_later(partition) else None

    def run(self, should_stop: Callable[[], bool], *, drain_s: float = 20.0) -> None:
        """Step until told to stop, then deliver the batch in flight for at most `drain_s` seconds.

        Raises FatalError; nothing that was not delivered is committed then.
        """
        while not should_stop():
            self.step()
        deadline = self.monotonic() + drain_s
        while self._batch is not None and self.monotonic() < deadline:
            self.step()
        if self._batch is not None:
            self.events.dropped(self._batch.records, f"not delivered within {drain_s:g} s of the stop")

    @property
    def is_delivering(self) -> bool:
        """Whether a batch is on its way and no attempt to deliver it has failed. From any thread."""
        return self._batch is not None and self._attempt == 0

    def step(self) -> None:
        """Collect, process and deliver one batch; or try again to deliver the one in flight."""
        if self._batch is None:
            old = self.pipeline.model.bundle.version
            if self._rollout.swap(self.pipeline):
                self.checkpoints.swapped()
                self.events.swapped(old, self.pipeline.model.bundle.version)
            self._collect()  # 1.
            if self._collected:
                self._process()  # 2. 3.
            else:
                self._catch_up()
        if self._batch is not None:
            self._deliver(self._batch)  # 4. 5.

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
        started = self.monotonic()
        deadline = started if self._collected else None
        while (room := self._room()) > 0:
            wait_s = IDLE_POLL_MS / 1000 if deadline is None else deadline - self.monotonic()
            if wait_s <= 0 and deadline is not None:
                break
            if not self._poll(int(wait_s * 1000), room) and deadline is None:
                break
            if deadline is None and self._collected:
                now = self.monotonic()
                deadline = self.max_wait_ms / 1000 + (self._collection_ended if now - started < AT_ONCE_S else now)
        self._collection_ended = self.monotonic()
        if self._collected:
            self._at_rest_since = self._collection_ended

    def _room(self) -> int:
        """Records that the open batch still takes; none once its bytes are used up."""
        self._collected_bytes = self._collected_bytes if self._collected else 0
        if self._collected_bytes >= self.max_batch_bytes:
            return 0
        return self._batch_sizer.size - sum(map(len, self._collected.values()))

    def _poll(self, timeout_ms: int, room: int) -> bool:
        """Whether records came. Applies what the poll changed before it takes them."""
        try:
            polled = self.consumer.poll(timeout_ms, room, self.max_batch_bytes - self._collected_bytes)
        except TransientError as error:
            time.sleep(self._back_off(error) / 1000)
            return False
        self.events.beat()
        revoked = self._apply_assignment_changes()
        # The client loses partitions on another thread, also after it has read from them. One that came back at once is
        # read again from where it is committed.
        polled = self._restore({partition: part for partition, part in polled.items() if partition not in revoked})
        for partition, messages in polled.items():
            self._collected.setdefault(partition, []).extend(messages)
        self._collected_bytes += self.consumer.polled_bytes() if polled else 0
        for place in self.consumer.unreadable():
            self.events.unreadable(*place)
        return bool(polled)

    def _apply_assignment_changes(self) -> frozenset[Partition]:
        """Forgets what was revoked, and returns it."""
        assigned, revoked = self.consumer.assignment_changes()
        if not assigned and not revoked:
            return frozenset()
        dropped = sum(len(self._collected.pop(partition, ())) for partition in revoked)
        if (batch := self._batch) is not None:
            dropped += batch.records
            batch.starts = {partition: start for partition, start in batch.starts.items() if partition not in revoked}
            dropped -= batch.records
            self._batch = batch if batch.starts else None
        if dropped:
            self.events.dropped(dropped, "their partitions were revoked")
        self._forget(revoked)
        self._at_rest_since = self.monotonic()
        self._unrestored = (self._unrestored - revoked) | assigned
        self.events.rebalanced(assigned, revoked)
        return revoked

    def _forget(self, partitions: Collection[Partition]) -> None:
        for sink in (self.kafka_sink, *self.sinks):
            sink.discard(partitions)
        for keeper in (self.pipeline, self.checkpoints, self._rollout):
            keeper.forget(partitions)
        for partition in partitions:
            self._committed.pop(partition, None)

    def _restore(self, polled: Polled) -> Polled:
        """What may be scored of this poll. Records of a partition that can't be restored yet are polled again."""
        if not self._unrestored:
            return polled
        partitions = frozenset(self._unrestored)
        try:
            starts = self._restore_all(partitions)
        except TransientError as error:
            moved = {partition: messages[0].offset for partition, messages in polled.items() if partition in partitions}
            self.consumer.seek(moved)
            time.sleep(self._back_off(error) / 1000)
        else:
            # Not only a start that lies ahead: a position beyond it would leave records out.
            moved = {p: start for p, start in starts.items() if p not in polled or polled[p][0].offset != start}
            self.consumer.seek(moved)
            self._unrestored.clear()
        return {partition: messages for partition, messages in polled.items() if partition not in moved}

    def _restore_all(self, partitions: frozenset[Partition]) -> Offsets:
        """Where each goes on: at its committed offset; where there is none, it begins. Raises TransientError."""
        committed = self.consumer.committed(partitions)
        self.checkpoints.restore(committed)
        starts = {partition: offset for partition, offset in committed.items() if offset is not None}
        if new := partitions - starts.keys():
            begun = self.consumer.begin(new)
            self.events.began(begun)
            starts |= begun
        return starts

    def _back_off(self, error: TransientError) -> int:
        """Counts an attempt that failed; milliseconds until the next one."""
        self._attempt = 1 if isinstance(error, OutcomeUnknown) else self._attempt + 1
        self.events.retrying(error, self._attempt)
        return min(FIRST_BACKOFF_MS << min(self._attempt, 10), MAX_BACKOFF_MS)

    def _process(self) -> None:
        started = self.monotonic()
        collected = self._collected
        messages = [message for part in collected.values() for message in part]
        try:
            outcome = self.pipeline.process(messages, self.wall_clock())
        except TransientError as error:  # the schema of a record could not be asked for: nothing has been changed yet
            self._wait(error)
            return
        self._collected, self._collected_bytes = {}, 0
        self.breaker.check(len(outcome.scores.messages), len(outcome.dead_letters))
        public = outcome.public
        for sink in (self.kafka_sink, *self.sinks):
            sink.add(public)
        starts = {partition: part[0].offset for partition, part in collected.items()}
        # All that was polled is in this batch: behind its last record there is nothing but what is no record.
        positions = self.consumer.positions()
        next_offsets = {key: max(end, positions.get(key, end)) for key, end in outcome.next_offsets.items()}
        self._open(replace(outcome, next_offsets=next_offsets), starts, started)

    # Why there are batches without a record.
    #
    # Behind the last record stand markers of transactions, records that were aborted, and some that can't be read. The
    # position passes over them, and whoever looks at the group's lag expects it to reach 0: what is committed has to
    # follow the position, also where no record comes any more. It goes the way of a batch, since the checkpoint and the
    # committed offset have to agree. Only after a second without a record: under load the next batch brings it along.
    def _catch_up(self) -> None:
        """Commit positions that have moved on without a record."""
        started = self.monotonic()
        if started - self._at_rest_since < CATCH_UP_S:
            return
        self._at_rest_since = started
        positions = {key: end for key, end in self.consumer.positions().items() if key not in self._unrestored}
        try:
            self._committed |= self.consumer.committed(positions.keys() - self._committed.keys())
        except TransientError:
            return  # the next poll finds out why
        behind = {key: end for key, end in positions.items() if end > (self._committed[key] or 0)}
        if behind:
            outcome = replace(self.pipeline.process([], self.wall_clock()), next_offsets=behind)
            starts = {key: end if (known := self._committed[key]) is None else known for key, end in behind.items()}
            self._open(outcome, starts, started)

    def _open(self, outcome: Outcome, starts: Offsets, started: float) -> None:
        checkpoints = self.checkpoints.records(outcome)
        self._batch = Batch(outcome, checkpoints, starts, process_s=self.monotonic() - started)

    def _deliver(self, batch: "Batch") -> None:
        started, is_tried = self.monotonic(), False
        try:
            if batch.attempts >= MAX_ATTEMPTS and batch.records > 1:
                self._divide(batch)
                return
            while batch.flushed < len(self.sinks):
                self.sinks[batch.flushed].flush(self.sink_timeout_s / len(self.sinks))
                batch.flushed += 1
            checkpoints = [record for partition, record in batch.checkpoints if partition in batch.starts]
            self.delivery.open()
            is_tried = True
            self.delivery.publish(self.kafka_sink.records, batch.next_offsets, checkpoints)
        except CommitRefused as error:
            self._adapt_size(batch, started)
            self._give_up(batch, str(error))
        except RecordTooLarge as error:
            self._shorten(batch, error)
        except TransientError as error:
            # A sink that is away is asked for as long as it takes: its batch read again in smaller ones would reach
            # the other sinks twice. A broker that is away, too: the batch is not the reason.
            batch.attempts += is_tried
            self._wait(error)
        else:
            self._batch, self._attempt = None, 0
            self.kafka_sink.discard(batch.starts)
            self.checkpoints.delivered(batch.next_offsets)
            self._committed |= batch.next_offsets
            delivered = self.monotonic()
            self._rollout.observe(batch.outcome)
            self._adapt_size(batch, started)
            process_s = batch.process_s + self.monotonic() - delivered
            self.events.batch(batch.outcome, process_s=process_s, deliver_s=delivered - started)

    def _wait(self, error: TransientError) -> None:
        """Until the next attempt, by polling with everything paused, so that the group doesn't give this member up."""
        backoff_ms = self._back_off(error)
        self.consumer.pause(self.consumer.assignment())
        self._poll(backoff_ms, max(1, self._room()))
        self.consumer.resume(self.consumer.assignment())

    def _shorten(self, batch: "Batch", error: RecordTooLarge) -> None:
        """Cut the results that are too large; SettingsError where a checkpoint is, for that is never cut."""
        for _, record in batch.checkpoints:
            if any(record is refused for refused in error.records):
                raise SettingsError(
                    f"the broker takes no record of {len(record.value or b'')} bytes for {record.topic}: raise its "
                    f"max.message.bytes or lower [threshold.stride]"
                )
        self.kafka_sink.shorten(error.records, self.delivery.fits)
        self.events.shortened(len(error.records))

    def _divide(self, batch: "Batch") -> None:
        """Read a batch that could not be delivered again, in smaller ones. Raises TransientError."""
        self.delivery.open()  # the broker is there, and what the last attempt left open has ended
        committed = self.consumer.committed(batch.starts)  # perhaps all of it, and only the answer was lost
        batch.starts = {partition: max(start, committed[partition] or 0) for partition, start in batch.starts.items()}
        self._batch_sizer.halve(batch.records)
        self._give_up(batch, f"not acknowledged in {batch.attempts} attempts, what is left goes on in smaller ones")

    def _adapt_size(self, batch: "Batch", started: float) -> None:
        seconds = batch.process_s + self.monotonic() - started
        if batch.is_empty:
            return
        if self._batch_sizer.adapt(batch.records, seconds):
            self.events.slowed(self._batch_sizer.size, seconds)

    def _give_up(self, batch: "Batch", why: str) -> None:
        """The group has moved on. What is still assigned after it is read again from where the batch began."""
        self.events.dropped(batch.records, why)
        self._forget(batch.starts)
        self._unrestored |= batch.starts.keys() & self.consumer.assignment()
        self.consumer.seek(batch.starts)
        self._batch, self._attempt = None, 0
        for partition in batch.starts:
            self._collected.pop(partition, None)


@dataclass(slots=True)
class Batch:
    """A processed batch on its way out."""

    outcome: Outcome
    checkpoints: Sequence[tuple[Partition, Outgoing]]  # what to write to the state topic, by input partition
    starts: Offsets  # its first offset of each partition that still belongs to this member
    process_s: float  # seconds that its scoring took
    flushed: int = 0  # how many sinks have it, in their order
    attempts: int = 0  # deliveries of it that failed

    @property
    def next_offsets(self) -> Offsets:
        """What to commit."""
        return {partition: self.outcome.next_offsets[partition] for partition in self.starts}

    @property
    def is_empty(self) -> bool:
        """Whether it only commits what lies behind the last record."""
        outcome = self.outcome
        return not (outcome.scores.messages or outcome.dead_letters or outcome.skipped)

    @property
    def records(self) -> int:
        """Input records, as far as offsets tell."""
        return sum(end - self.starts[partition] for partition, end in self.next_offsets.items())
