"""Threshold state that travels with its partition, in a compacted topic.

Order. at_least_once: results acknowledged, then checkpoints, then offsets committed. So a checkpoint is never behind
the committed offset, and when it is one batch ahead (a crash before the commit) the results up to there are out: the
partition goes on from the checkpoint's offset. exactly_once: all in one transaction, checkpoint and offset are always
the same. A checkpoint whose offsets fit neither (the topic was lost, an operator moved the group's offsets) is not
used: the threshold starts again from the calibration, and that is reported, as is a checkpoint of another model, other
settings or with damage.

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
from operator import attrgetter
from typing import Any

import orjson
from typing_extensions import override

from worker.broker.base import Consumer, Offsets, RangeReader
from worker.errors import BrokerUnavailable
from worker.pipeline import Pipeline, by_partition
from worker.records import Outcome, Outgoing, Partition
from worker.stream.checkpoint_format import CheckpointHead, CheckpointLog, CheckpointSlot, checksums, digest_of
from worker.stream.events import Events
from worker.thresholds.partition import ThresholdState

PATIENCE_S = 30.0  # how long to wait for a transaction of the last owner to end
WAIT_S = 0.2
CLOSE_S = 1.0
MAX_OFFSET = 1 << 62


class Checkpoints:
    """Where thresholds stay between two owners of a partition. This one keeps nothing."""

    def restore(self, partitions: Collection[Partition]) -> Offsets:  # noqa: ARG002  # it keeps nothing
        """Gets the thresholds of newly assigned partitions ready; the offset that each goes on from, where it is known.

        Call it before the first record of them is scored. Blocks while it reads. May be called again after a
        TransientError; until then no record of them may be scored.
        """
        return {}

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
        key = f"{self._prefix(partition)}{name}".encode()
        return Outgoing(self.topic, key, value, partition=partition.partition % self._partitions)

    def _prefix(self, partition: Partition) -> str:
        return f"{self.group_id}|{partition.topic}|{partition.partition}|"

    def read(self, partitions: Collection[Partition], reached: Offsets) -> dict[Partition, CheckpointLog]:
        """The checkpoints of these partitions, one pass over the partitions of the topic that hold them.

        reached: offsets that were committed before this call, -1 = none; in transactions, the checkpoint is as new.
        Raises MissingTopic, BrokerUnavailable (after the reader's timeout without an answer), FatalError.
        """
        reader = self.make_reader(self.transactional)
        try:
            self._partitions = len(reader.partitions(self.topic))
            logs = self._read_once(reader, partitions)
            if self.transactional and any(log.newest_offset < reached[key] for key, log in logs.items()):
                # A transaction's offsets can be visible a little before its records are.
                self._wait_for_open_transactions(reader)
                logs = self._read_once(reader, partitions)
        finally:
            reader.close(CLOSE_S)
        return logs

    def _read_once(self, reader: RangeReader, partitions: Collection[Partition]) -> dict[Partition, CheckpointLog]:
        logs = {partition: CheckpointLog() for partition in partitions}
        prefixes = {self._prefix(partition): log for partition, log in logs.items()}
        holders = {Partition(self.topic, partition.partition % self._partitions) for partition in partitions}
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
    incarnation: str = field(default_factory=lambda: os.urandom(8).hex())  # of the threshold
    counters: Counter[str] = field(default_factory=Counter)  # of the partition
    sums: dict[int, int] = field(default_factory=dict)  # checksum of each slot that is written
    leftover: Collection[int] = ()  # slots in the log that belong to no checkpoint any more


@dataclass(eq=False)
class TopicCheckpoints(Checkpoints):
    """Checkpoints in a compacted topic.

    settings   of the threshold, plain data; part of the fingerprint
    doubt_s    how long to ask again for a committed offset that is older than the checkpoint; a broker that has just
               come back can answer so for a moment (worker.broker.consumer), after that it is believed: an operator
               moved the offset
    monotonic  seconds
    """

    consumer: Consumer
    pipeline: Pipeline
    changelog: CheckpointChangelog
    _: KW_ONLY
    settings: Mapping[str, Any]
    events: Events
    doubt_s: float = 15.0
    monotonic: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._doubted_since: float | None = None
        self._bases: dict[Partition, _Base] = {}

    # Why the committed offsets are asked for first, and the checkpoints read afterwards.
    #
    # Invariant: what is read of the state topic is at least as new as the offset that it is compared with.
    #
    # The last owner may be in the middle of a batch: its checkpoint is out, its commit follows. In this order a commit
    # that comes in between makes the checkpoint look newer than the offset, as after a crash before the commit: it fits
    # by its previous_offset, or the offset is doubted and asked for again. In the other order the checkpoint would look
    # older, as if the state topic had been lost: a good threshold would start again from the calibration.
    #
    # With exactly_once the question waits, too, until the last owner's transaction has ended, for a consumer that reads
    # committed gets no offset before. Read earlier, the topic would end with the checkpoint of the batch before.
    @override
    def restore(self, partitions: Collection[Partition]) -> Offsets:
        committed = self.consumer.committed(partitions)
        reached = {key: -1 if offset is None else offset for key, offset in committed.items()}
        logs = self.changelog.read(partitions, reached)
        self._doubt(committed, {key: log for key, log in logs.items() if log.newest_offset > reached[key]})
        starts = {key: self._continue(key, log, committed[key]) for key, log in logs.items()}
        return {partition: start for partition, start in starts.items() if start is not None}

    def _doubt(self, committed: Mapping[Partition, int | None], logs: Mapping[Partition, CheckpointLog]) -> None:
        """Raises BrokerUnavailable for a while where these checkpoints know of later commits than the broker."""
        # Without transactions a checkpoint may be one batch ahead.
        fits = {key: any(self._fits(head, committed[key]) for head in log.heads) for key, log in logs.items()}
        older = [key for key in logs if self.changelog.transactional or not fits[key]]
        if not older:
            self._doubted_since = None
            return
        now = self.monotonic()
        self._doubted_since = now if self._doubted_since is None else self._doubted_since
        if now - self._doubted_since < self.doubt_s:
            places = ", ".join(f"{key.topic}[{key.partition}] at {committed[key]}" for key in sorted(older))
            raise BrokerUnavailable(f"the committed offset is older than the checkpoint, asking again: {places}")

    def _continue(self, partition: Partition, log: CheckpointLog, committed: int | None) -> int | None:
        """The offset that the partition goes on from, None where the group has none."""
        self.pipeline.forget([partition])
        try:
            if (chosen := self._choose(log, committed)) is not None:
                head, state = chosen
                self.pipeline.restore(partition, state)
                counters = Counter(head.counters)
                self._bases[partition] = _Base(committed, head.incarnation, counters, checksums(state.slots))
                self.events.checkpoint_restored(partition, head.next_offset)
                return head.next_offset
        except ValueError as error:
            self.events.checkpoint_rebuilt(partition, str(error))
        counters = Counter(log.heads[-1].counters if log.heads else {})
        leftover = [index for index, versions in log.slots.items() if versions]
        self._bases[partition] = _Base(committed, counters=counters, leftover=leftover)
        return committed

    def _choose(self, log: CheckpointLog, committed: int | None) -> tuple[CheckpointHead, ThresholdState] | None:
        """The newest sound checkpoint that fits the committed offset, None the first time; ValueError says why not."""
        if not log.heads:
            if committed is None and log.damaged is None:
                return None
            raise ValueError(log.damaged or f"there is none, though offset {committed} is committed")
        fitting = [head for head in log.heads if self._fits(head, committed)]
        if not fitting:
            ends = log.heads[-1].next_offset
            raise ValueError(log.damaged or f"it ends at offset {ends}, the group's committed offset is {committed}")
        troubles: list[ValueError] = []
        for head in sorted(fitting, key=attrgetter("next_offset"))[::-1]:
            try:
                self._require_same_kind(head)
                return head, log.state(head)
            except ValueError as error:
                troubles.append(error)
        raise troubles[0]

    def _fits(self, head: CheckpointHead, committed: int | None) -> bool:
        ahead = not self.changelog.transactional and head.previous_offset == committed
        return head.next_offset == committed or ahead

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
            partition: _Base(base.committed, counters=base.counters, leftover={*base.leftover, *base.sums})
            for partition, base in self._bases.items()
        }

    @override
    def forget(self, partitions: Collection[Partition]) -> None:
        for partition in partitions:
            self._bases.pop(partition, None)
