"""Threshold state that travels with its partition, in a compacted topic.

Order. at_least_once: results acknowledged, then checkpoints, then offsets committed. So a checkpoint is never behind
the committed offset, and after a crash before the commit it is one batch ahead. exactly_once: all in one transaction,
checkpoint and offset are always the same.

The offset decides. A partition goes on where the group's offset says, and nowhere else: whoever moves or deletes it is
followed, and no checkpoint, right, wrong or forged, makes a record be passed over. The state topic is only asked for
the checkpoint that ends at this very offset. After a crash that is the one before the last: its batch is scored again
with the same thresholds, and what it publishes is what it published before. Where there is none (the topic was lost, or
compacted between the two; somebody moved the offset; the input topic is another one of the same name) the threshold
starts again from the calibration, and that is reported, as is a checkpoint of another model, other settings or with
damage.

Size. A partition has one head and ceil(window / 1000) slots. A commit writes the slots that changed, then the head with
the stride that is not full yet; after a rebuild and a model swap all slots. Per partition that is 8 bytes a record, and
at most two slots (16 kB) and a head of up to 5 kB (stride 256) a commit on top.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from hashlib import sha256
from typing import Any

import orjson
from typing_extensions import override

from worker.broker.base import Consumer, Offsets, RangeReader
from worker.errors import BrokerUnavailable
from worker.pipeline import Pipeline, by_partition
from worker.records import Outcome, Outgoing, Partition
from worker.stream.checkpoint_format import (
    MAX_OFFSET,
    CheckpointHead,
    CheckpointLog,
    CheckpointSlot,
    checksums,
    digest_of,
)
from worker.stream.events import Events
from worker.thresholds.partition import ThresholdState

PATIENCE_S = 30.0  # how long to wait for a transaction of the last owner to end
WAIT_S = 0.2
CLOSE_S = 1.0


class Checkpoints:
    """Where thresholds stay between two owners of a partition. This one keeps nothing."""

    def restore(self, committed: Mapping[Partition, int | None]) -> None:
        """Gets the thresholds of newly assigned partitions ready, as they were at these offsets of the group.

        Call it before the first record of them is scored. Blocks while it reads. May be called again, with offsets that
        were asked for anew, after a TransientError; until then no record of them may be scored.
        """

    def records(self, outcome: Outcome) -> Sequence[tuple[Partition, Outgoing]]:  # noqa: ARG002  # it keeps nothing
        """What to publish between the batch's results and its offsets; call it once for each outcome."""
        return ()

    def delivered(self, next_offsets: Offsets) -> None:
        """These offsets are committed."""

    def swapped(self) -> None:
        """Another model is current; every threshold has started anew, or goes on from when that model was current."""

    def forget(self, partitions: Collection[Partition]) -> None:
        """These thresholds are not this process's any more, or not to be trusted."""


@dataclass(eq=False)
class CheckpointChangelog:
    """The state topic: the checkpoints of all partitions of a group, read back.

    The checkpoint of input partition p stands in partition p of the topic; p modulo its partitions where it has fewer.

    make_reader    of the state topic; True: leave out what open and aborted transactions wrote
    transactional  written in transactions
    beat           called while waiting
    """

    make_reader: Callable[[bool], RangeReader]
    _: KW_ONLY
    topic: str
    group_id: str
    transactional: bool
    beat: Callable[[], None] = lambda: None
    _partitions: int = field(default=0, init=False)

    def record(self, partition: Partition, name: str, value: bytes | None) -> Outgoing:
        """A record to publish; `read` has been called before."""
        key = f"{self.place(partition)}{name}".encode()
        return Outgoing(self.topic, key, value, partition=partition.partition % self._partitions)

    def place(self, partition: Partition) -> str:
        """What the keys of its records begin with."""
        return f"{self.group_id}|{partition.topic}|{partition.partition}|"

    def read(
        self, committed: Mapping[Partition, int | None], topic_ids: Mapping[str, str | None]
    ) -> dict[Partition, CheckpointLog]:
        """The checkpoints of these partitions, one pass over the partitions of the topic that hold them.

        committed   the group's offsets from before this call; in transactions, the checkpoint is as new
        topic_ids   of the topics that are there now

        Raises MissingTopic, BrokerUnavailable (after the reader's timeout without an answer), FatalError.
        """
        reader = self.make_reader(self.transactional)
        try:
            self._partitions = len(reader.partitions(self.topic))
            logs = self._read_once(reader, committed, topic_ids)
            if self.transactional and any(log.newest_offset < (log.committed or -1) for log in logs.values()):
                # A transaction's offsets can be visible a little before its records are.
                self._wait_for_open_transactions(reader)
                logs = self._read_once(reader, committed, topic_ids)
        finally:
            reader.close(CLOSE_S)
        return logs

    def _read_once(
        self, reader: RangeReader, committed: Mapping[Partition, int | None], topic_ids: Mapping[str, str | None]
    ) -> dict[Partition, CheckpointLog]:
        logs = {
            partition: CheckpointLog(self.place(partition), topic_ids.get(partition.topic), offset)
            for partition, offset in committed.items()
        }
        prefixes = {log.place: log for log in logs.values()}
        holders = {Partition(self.topic, partition.partition % self._partitions) for partition in committed}
        for batch in reader.read(dict.fromkeys(holders, (0, MAX_OFFSET))):
            for message in batch:
                prefix, bar, name = (message.key or b"").decode(errors="replace").rpartition("|")
                if (log := prefixes.get(prefix + bar)) is not None:
                    log.add(name, message.value)
            self.beat()
        return logs

    def _wait_for_open_transactions(self, committed_reader: RangeReader) -> None:
        reader = self.make_reader(False)
        try:
            log_ends = reader.end_offsets(self.topic)
        finally:
            reader.close(CLOSE_S)
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            stable_ends = committed_reader.end_offsets(self.topic)
            if all(stable_ends[partition] >= end for partition, end in log_ends.items()):
                return
            self.beat()
            time.sleep(WAIT_S)


@dataclass(slots=True)
class _Base:
    """What a partition's next checkpoint builds on."""

    committed: int | None  # the group's offset
    topic_id: str | None  # of the topic that is read
    incarnation: str = field(default_factory=lambda: os.urandom(8).hex())  # of the threshold
    counters: Counter[str] = field(default_factory=Counter)  # of the partition
    sums: dict[int, int] = field(default_factory=dict)  # checksum of each slot that is written
    leftover: Collection[int] = ()  # slots in the log that belong to no checkpoint any more


@dataclass(eq=False)
class Doubt:
    """Asks again before it believes something that a broker which has just come back may say for a moment.

    doubt_s     how long
    monotonic   seconds
    """

    doubt_s: float = 15.0
    monotonic: Callable[[], float] = time.monotonic
    _since: float | None = field(default=None, init=False)

    def check(self, why: str) -> None:
        """Raises BrokerUnavailable with the reason, "" = none, until it has been given for `doubt_s`."""
        if not why:
            self._since = None
            return
        now = self.monotonic()
        self._since = now if self._since is None else self._since
        if now - self._since < self.doubt_s:
            raise BrokerUnavailable(why)


def is_behind(log: CheckpointLog, *, may_be_ahead: bool) -> bool:
    """Whether a checkpoint knows of a later commit than the group. may_be_ahead: by its last batch, after a crash."""
    committed = log.committed
    if log.newest_offset <= (-1 if committed is None else committed):
        return False
    return not (may_be_ahead and (log.exact or any(head.previous_offset == committed for head in log.heads)))


@dataclass(eq=False)
class TopicCheckpoints(Checkpoints):
    """Checkpoints in a compacted topic.

    settings   of the threshold, plain data; part of the fingerprint
    doubt      of a committed offset that is older than the checkpoint; a broker that has just come back can answer so
               for a moment (worker.broker.assignments), after that it is believed: an operator moved the offset
    """

    consumer: Consumer
    pipeline: Pipeline
    changelog: CheckpointChangelog
    _: KW_ONLY
    settings: Mapping[str, Any]
    events: Events
    doubt: Doubt = field(default_factory=Doubt)

    def __post_init__(self) -> None:
        self._bases: dict[Partition, _Base] = {}

    # Why the committed offsets are asked for first, and the checkpoints read afterwards.
    #
    # Invariant: what is read of the state topic is at least as new as the offset that it is compared with.
    #
    # The last owner may be in the middle of a batch: its checkpoint is out, its commit follows. In this order a commit
    # that comes in between makes the checkpoint look newer than the offset, as after a crash before the commit: the one
    # before it is exact, or the offset is doubted and asked for again. In the other order the checkpoint would look
    # older, as if the state topic had been lost: a good threshold would start again from the calibration.
    #
    # With exactly_once the question waits, too, until the last owner's transaction has ended, for a consumer that reads
    # committed gets no offset before. Read earlier, the topic would end with the checkpoint of the batch before.
    @override
    def restore(self, committed: Mapping[Partition, int | None]) -> None:
        topic_ids = {topic: self.consumer.topic_id(topic) for topic in {partition.topic for partition in committed}}
        logs = self.changelog.read(committed, topic_ids)
        # Without transactions a checkpoint may be one batch ahead.
        older = [key for key, log in logs.items() if is_behind(log, may_be_ahead=not self.changelog.transactional)]
        places = ", ".join(f"{key.topic}[{key.partition}] at {committed[key]}" for key in sorted(older))
        self.doubt.check(places and f"the committed offset is older than the checkpoint, asking again: {places}")
        self.consumer.note_later([partition for partition, log in logs.items() if log.is_later])
        for partition, log in logs.items():
            self._continue(partition, log, topic_ids[partition.topic])

    def _continue(self, partition: Partition, log: CheckpointLog, topic_id: str | None) -> None:
        self.pipeline.forget([partition])
        counters = Counter(log.heads[-1].counters if log.heads else {})
        base = _Base(log.committed, topic_id, counters=counters, leftover=log.written)
        try:
            if (chosen := self._choose(log)) is not None:
                head, state = chosen
                self.pipeline.restore(partition, state)
                base.counters = Counter(head.counters)
                # What a crash has left of it beyond this offset must never be taken for what follows now.
                if head.incarnation not in log.ahead:
                    base.incarnation, base.sums = head.incarnation, checksums(state.slots)
                self.events.checkpoint_restored(partition, head.next_offset)
        except ValueError as error:
            self.events.checkpoint_rebuilt(partition, str(error))
        self._bases[partition] = base

    def _choose(self, log: CheckpointLog) -> tuple[CheckpointHead, ThresholdState] | None:
        """The newest sound checkpoint of the committed offset, None the first time; ValueError says why not."""
        if not log.exact:
            if log.earlier is not None:
                raise ValueError(f"it is of the topic {log.earlier}, which was deleted; this one is {log.topic_id}")
            if log.damaged is not None:
                raise ValueError(log.damaged)
            if log.heads:
                ends = log.heads[-1].next_offset
                raise ValueError(f"it ends at offset {ends}, the group's committed offset is {log.committed}")
            if log.committed:
                raise ValueError(f"there is none, though offset {log.committed} is committed")
            return None
        troubles: list[ValueError] = []
        for head in reversed(log.exact):
            try:
                self._require_same_kind(head)
                return head, log.state(head)
            except ValueError as error:
                troubles.append(error)
        raise troubles[0]

    def _require_same_kind(self, head: CheckpointHead) -> None:
        if head.model != (current := self.pipeline.model.bundle.version):
            raise ValueError(f"it is of model {head.model}, model {current} is current")
        if head.fingerprint != self._fingerprint():
            raise ValueError("it was made with other threshold settings")

    def _fingerprint(self) -> str:
        bundle, settings = self.pipeline.model.bundle, orjson.dumps(self.settings, option=orjson.OPT_SORT_KEYS)
        return sha256(f"{bundle.schema.fingerprint} {bundle.version} ".encode() + settings).hexdigest()[:16]

    @override
    def records(self, outcome: Outcome) -> Sequence[tuple[Partition, Outgoing]]:
        counts: dict[Partition, Counter[str]] = {partition: Counter() for partition in outcome.next_offsets}
        for name, messages in (
            ("scored", outcome.scores.messages),
            ("alerts", [alert.message for alert in outcome.alerts]),
            ("dead_letters", [dead.message for dead in outcome.dead_letters]),
        ):
            for partition, index in by_partition(messages):
                counts.setdefault(partition, Counter())[name] += len(index)
        return [
            (partition, self.changelog.record(partition, name, value))
            for partition, next_offset in outcome.next_offsets.items()
            for name, value in self._values(partition, next_offset, counts[partition]).items()
        ]

    def _values(self, partition: Partition, next_offset: int, counts: Counter[str]) -> dict[str, bytes | None]:
        """What a partition's keys get, the head last."""
        base, threshold = self._bases[partition], self.pipeline.threshold(partition)
        base.counters.update(counts)
        changed = threshold.policy.slots(only_changed=True)  # asked for each time: it forgets what it has named
        if not base.sums:  # an incarnation begins with all slots, also where a threshold was paired and came back
            changed = threshold.policy.slots()
        base.sums.update(checksums(changed))
        head = CheckpointHead(
            place=self.changelog.place(partition),
            topic_id=base.topic_id,
            is_later=self.consumer.is_later(partition),
            incarnation=base.incarnation,
            previous_offset=base.committed,
            next_offset=next_offset,
            model=self.pipeline.model.bundle.version,
            fingerprint=self._fingerprint(),
            counters=dict(base.counters),
            slots=len(base.sums),
            digest=digest_of(base.sums),
            threshold=self.pipeline.head(partition),
        )
        slots: dict[int, bytes | None] = dict.fromkeys(sorted(set(base.leftover) - base.sums.keys()))
        slots |= {slot: CheckpointSlot(base.incarnation, next_offset, data).encode() for slot, data in changed.items()}
        return {f"slot-{index}": value for index, value in slots.items()} | {"head": head.encode()}

    @override
    def delivered(self, next_offsets: Offsets) -> None:
        for partition in next_offsets.keys() & self._bases.keys():
            base = self._bases[partition]
            base.committed, base.leftover = next_offsets[partition], ()

    @override
    def swapped(self) -> None:
        self._bases = {
            partition: _Base(
                base.committed, base.topic_id, counters=base.counters, leftover={*base.leftover, *base.sums}
            )
            for partition, base in self._bases.items()
        }

    @override
    def forget(self, partitions: Collection[Partition]) -> None:
        for partition in partitions:
            self._bases.pop(partition, None)
