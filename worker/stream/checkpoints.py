"""Threshold state that travels with its partition, in a compacted topic.

Order. at_least_once: results acknowledged, then state, then offsets committed. So the state is never behind the
committed offset, and when it is one batch ahead (a crash before the commit) the results up to there are out: the
partition goes on from the state's offset. exactly_once: all in one transaction, state and offset are always the same.
A state whose offsets fit neither (the topic was lost, somebody moved the group's offsets) is not used: the threshold
starts again from the calibration, and that is reported, as is a state of another model, other settings or with damage.

Size. A partition has one head and ceil(window / 1000) slots: 21 keys and about 170 kB at the default window of 20,000.
Rate. A commit writes the slots that changed, then the head with the stride that is not full yet. Per partition that is
8 bytes a record, and at most two slots (16 kB) and a head of up to 5 kB (stride 256) a commit on top: about 10 bytes a
record in batches of 8,192, and up to 100 kB/s where each of 20 batches a second holds a few records. All slots are
written after a rebuild and after a model swap.
Restore. It reads the partition's log once: the keys above, and what was not compacted yet (segments of 16 MiB).
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

import orjson

from worker.broker.base import Consumer
from worker.errors import BrokerUnavailable
from worker.pipeline import Pipeline, by_partition
from worker.records import Outcome, Outgoing, Partition
from worker.stream.changelog import CheckpointChangelog
from worker.stream.checkpoint_format import LIFE_BYTES, Head, Log, Slot, checksums, digest_of
from worker.stream.events import Events
from worker.thresholds.partition import ThresholdState

DOUBT_S = 15.0


class Checkpoints:
    """Where thresholds are kept between two owners of a partition. This one keeps nothing."""

    def restore(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        """Get the thresholds of newly assigned partitions ready; the offset that each goes on from, where it is known.

        Call it before the first record of them is scored. Blocks while it reads. May be called again after a
        TransientError; until then no record of them may be scored.
        """
        del partitions
        return {}

    def records(self, outcome: Outcome) -> Sequence[tuple[Partition, Outgoing]]:
        """What to publish between the batch's results and its offsets; call it once for each outcome."""
        del outcome
        return ()

    def delivered(self, next_offsets: Mapping[Partition, int]) -> None:
        """These offsets are committed."""

    def swapped(self) -> None:
        """Another model is in force; every threshold has started anew, or goes on from when its model was in force."""

    def forget(self, partitions: Collection[Partition]) -> None:
        """These thresholds are not this process's any more, or not to be trusted."""


@dataclass(slots=True)
class _Kept:
    """What a partition's next records depend on.

    committed: the group's offset. sums: checksum of each slot. stale: slots in the log that may be left over.
    """

    committed: int | None
    life: str = field(default_factory=lambda: os.urandom(LIFE_BYTES).hex())
    counters: Counter[str] = field(default_factory=Counter)
    sums: dict[int, int] = field(default_factory=dict)
    stale: Collection[int] = ()


class TopicCheckpoints(Checkpoints):
    """Checkpoints in a compacted topic.

    settings: of the threshold, plain data; part of the fingerprint.
    exactly_once: results, state and offsets are written in one transaction.
    doubt_s: how long to ask again for a committed offset that is older than the saved state. A broker that has just
    come back can answer so for a moment (worker.broker.watermark); after that it is believed: somebody moved it.
    """

    def __init__(
        self,
        consumer: Consumer,
        pipeline: Pipeline,
        log: CheckpointChangelog,
        *,
        settings: Mapping[str, Any],
        events: Events,
        exactly_once: bool,
        doubt_s: float = DOUBT_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._doubt_s = doubt_s
        self._monotonic = monotonic
        self._doubted_since: float | None = None
        self._consumer = consumer
        self._pipeline = pipeline
        self._log = log
        self._settings = orjson.dumps(settings, option=orjson.OPT_SORT_KEYS)
        self._events = events
        self._exactly_once = exactly_once
        self._kept: dict[Partition, _Kept] = {}

    def restore(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        """See Checkpoints.restore.

        1. The committed offsets first: reading them waits until the last owner's transaction has ended.
        2. Then the saved state, which is as new or newer.
        3. The state that fits the offset, or a new one from the calibration.
        """
        committed = self._consumer.committed(partitions)  # 1.
        logs = self._log.read(partitions, committed)  # 2.
        self._doubt({key: committed[key] for key, log in logs.items() if self._is_older(committed[key], log)})
        starts = {key: self._continue(key, log, committed[key]) for key, log in logs.items()}  # 3.
        return {partition: start for partition, start in starts.items() if start is not None}

    def _is_older(self, committed: int | None, log: Log) -> bool:
        """Whether the saved state knows of a later commit; without transactions it may be one batch ahead."""
        newest = max((head.next_offset for head in log.heads), default=-1)
        fits = not self._exactly_once and any(self._fits(head, committed) for head in log.heads)
        return newest > (-1 if committed is None else committed) and not fits

    def _doubt(self, older: Mapping[Partition, int | None]) -> None:
        """Raises BrokerUnavailable for a while when there are any."""
        if not older:
            self._doubted_since = None
            return
        now = self._monotonic()
        self._doubted_since = now if self._doubted_since is None else self._doubted_since
        if now - self._doubted_since < self._doubt_s:
            places = ", ".join(f"{p.topic}[{p.partition}] at {offset}" for p, offset in sorted(older.items()))
            raise BrokerUnavailable(f"the committed offset is older than the saved state, asking again: {places}")

    def _continue(self, partition: Partition, log: Log, committed: int | None) -> int | None:
        """The offset that the partition goes on from, None where the group has none."""
        self._pipeline.forget([partition])
        try:
            head, state = self._choose(log, committed)
            if head is not None and state is not None:
                self._pipeline.restore(partition, state)
        except ValueError as error:
            self._start_anew(partition, log, committed)
            self._events.checkpoint_rebuilt(partition, str(error))
            return committed
        if head is None or state is None:
            self._start_anew(partition, log, committed)
            return committed
        sums = checksums(state.slots.items())
        self._kept[partition] = _Kept(committed, head.life, Counter(head.counters), sums)
        self._events.checkpoint_restored(partition, head.next_offset)
        return head.next_offset

    def _choose(self, log: Log, committed: int | None) -> tuple[Head | None, ThresholdState | None]:
        """The newest sound state that fits the committed offset; ValueError says why there is none."""
        if not log.heads:
            if committed is None and log.damaged is None:
                return None, None  # the very first time
            raise ValueError(log.damaged or f"there is none, though offset {committed} is committed")
        fitting = [head for head in log.heads if self._fits(head, committed)]
        if not fitting:
            ends = log.heads[-1].next_offset
            raise ValueError(log.damaged or f"it ends at offset {ends}, the group's committed offset is {committed}")
        trouble: ValueError | None = None
        for _, head in sorted(enumerate(fitting), key=lambda place: (place[1].next_offset, place[0]), reverse=True):
            try:
                self._require_same_kind(head)
                return head, log.state(head)
            except ValueError as error:
                trouble = trouble or error
        assert trouble is not None  # noqa: S101  # the loop ran at least once
        raise trouble

    def _fits(self, head: Head, committed: int | None) -> bool:
        return head.next_offset == committed or (not self._exactly_once and head.came_from == committed)

    def _require_same_kind(self, head: Head) -> None:
        model = self._pipeline.model.bundle.version
        if head.model != model:
            raise ValueError(f"it is of model {head.model}, model {model} is in force")
        if head.fingerprint != self._fingerprint():
            raise ValueError("it was made with other threshold settings")

    def _fingerprint(self) -> str:
        bundle = self._pipeline.model.bundle
        return sha256(f"{bundle.schema.fingerprint} {bundle.version} ".encode() + self._settings).hexdigest()[:16]

    def _start_anew(self, partition: Partition, log: Log, committed: int | None) -> None:
        counters = Counter(log.heads[-1].counters if log.heads else {})
        self._kept[partition] = _Kept(committed, counters=counters, stale=log.indices())

    def records(self, outcome: Outcome) -> Sequence[tuple[Partition, Outgoing]]:
        """See Checkpoints.records."""
        counts = _counts(outcome)
        found: list[tuple[Partition, Outgoing]] = []
        for partition, next_offset in outcome.next_offsets.items():
            kept = self._kept[partition]
            kept.counters.update(counts.get(partition, {}))
            found += [(partition, record) for record in self._partition_records(partition, kept, next_offset)]
        return found

    def _partition_records(self, partition: Partition, kept: _Kept, next_offset: int) -> list[Outgoing]:
        threshold = self._pipeline.threshold(partition)
        changed = threshold.take_changed_slots()
        if not kept.sums:  # a life begins with all slots, also where a threshold went on beside and came back
            changed = threshold.policy.slots()
        kept.sums.update(checksums(changed.items()))
        bundle = self._pipeline.model.bundle
        head = Head(
            life=kept.life,
            came_from=kept.committed,
            next_offset=next_offset,
            model=bundle.version,
            fingerprint=self._fingerprint(),
            counters=dict(kept.counters),
            slots=len(kept.sums),
            digest=digest_of(kept.sums),
            threshold=self._pipeline.head(partition),
        )
        stale = sorted(set(kept.stale) - kept.sums.keys())
        values: list[tuple[str, bytes | None]] = [(f"slot-{index}", None) for index in stale]
        values += [(f"slot-{index}", Slot(kept.life, next_offset, data).encode()) for index, data in changed.items()]
        values.append(("head", head.encode()))
        return [self._log.record(partition, name, value) for name, value in values]

    def delivered(self, next_offsets: Mapping[Partition, int]) -> None:
        """See Checkpoints.delivered."""
        for partition, offset in next_offsets.items():
            if partition in self._kept:
                self._kept[partition] = replace(self._kept[partition], committed=offset, stale=())

    def swapped(self) -> None:
        """See Checkpoints.swapped."""
        self._kept = {
            partition: _Kept(kept.committed, counters=kept.counters, stale={*kept.stale, *kept.sums})
            for partition, kept in self._kept.items()
        }

    def forget(self, partitions: Collection[Partition]) -> None:
        """See Checkpoints.forget."""
        for partition in partitions:
            self._kept.pop(partition, None)


def _counts(outcome: Outcome) -> dict[Partition, Counter[str]]:
    counts: dict[Partition, Counter[str]] = {}
    for name, messages in (
        ("scored", outcome.scores.messages),
        ("alerts", [alert.message for alert in outcome.alerts]),
        ("dead_letters", [dead.message for dead in outcome.dead_letters]),
    ):
        for partition, index in by_partition(messages):
            counts.setdefault(partition, Counter())[name] += len(index)
    return counts
