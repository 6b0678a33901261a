"""A member of a consumer group on Kafka: batches of unconverted records, offsets committed when told to."""

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Literal

from kafka import ConsumerRebalanceListener, TopicPartition
from kafka import errors as kafka_errors
from kafka.structs import MemberState, OffsetAndMetadata
from typing_extensions import override

from worker.broker.assignors import ASSIGNORS
from worker.broker.base import AssignmentChanges, Consumer, Polled
from worker.broker.calls import quietly, translated
from worker.broker.client import Connection, build_consumer
from worker.broker.watermark import CommittedWatermark
from worker.errors import BrokerUnavailable, CommitRefused, Displaced, Fenced, OffsetOutOfRange
from worker.records import Partition

Start = Literal["earliest", "latest"]
OutOfRange = Literal["stop", "earliest", "latest"]

_COMMIT_TIMEOUT_MS: Final = 15_000
_DISPLACED_S: Final = 5.0


# Where a partition goes on that was taken away and given back.
#
# Invariant: the first record that poll returns of a partition after an assignment is the one at its committed offset,
# or where `start` says if it has none.
#
# The client sees to that only for partitions which it did not have before. With the eager assignors (range, roundrobin)
# a rebalance takes all partitions away and gives most of them back within one poll, and of those the client keeps its
# old position. That lies beyond records that were polled and never committed (their batch was dropped: they would be
# lost), or behind what another member has committed meanwhile (they would be published twice).
#
# So what was revoked is remembered as previously owned; what of it comes back with the next assignment needs a seek.
# The listener only takes notes, for on the client's IO thread every blocking call of the client fails. The next poll
# asks for offsets and seeks before it reads; the poll in which the rebalance happened drops what the client returned of
# these partitions. What does not come back at once is forgotten: should it come later, the client takes it for new.


class _AssignmentListener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Notes what changed, on the client's IO thread.

    needs_seek  partitions whose position in the client can't be trusted
    committed   what is known to be committed of the partitions that this member has
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._assigned: set[Partition] = set()
        self._revoked: set[Partition] = set()
        self._previously_owned: set[Partition] = set()
        self.needs_seek: frozenset[Partition] = frozenset()
        self.committed = CommittedWatermark()

    @override
    def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        partitions = {Partition(*partition) for partition in revoked}
        with self._lock:
            self._assigned -= partitions
            self._revoked |= partitions
            self._previously_owned |= partitions
            self.needs_seek -= partitions
        self.committed.forget(partitions)

    @override
    def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        partitions = {Partition(*partition) for partition in assigned}
        with self._lock:
            self._assigned |= partitions
            self.needs_seek |= partitions & self._previously_owned
            self._previously_owned.clear()

    def positioned(self, partition: Partition) -> None:
        """It has a position that can be trusted."""
        with self._lock:
            self.needs_seek -= {partition}

    def take(self) -> AssignmentChanges:
        """What changed since it was last asked."""
        with self._lock:
            changes = AssignmentChanges(frozenset(self._assigned), frozenset(self._revoked))
            self._assigned.clear()
            self._revoked.clear()
        return changes


class GroupConsumer(Consumer):
    """A Consumer on Kafka.

    start             where a partition without a committed offset begins
    out_of_range      what a committed offset that no longer exists leads to: "stop" raises OffsetOutOfRange
    read_committed    skip records of open and aborted transactions, and wait for offsets that a transaction is about
                      to commit; exactly-once needs it
    assignor          how the group shares partitions out, by its name in ASSIGNORS, the same for all members;
                      "cooperative-sticky" takes away only those that move, the others take away all and give back
    instance_id       a static member, whose partitions wait for it through a restart within the session timeout

    Raises (on creation) BrokerUnavailable, SettingsError, FatalError.
    """

    def __init__(
        self,
        connection: Connection,
        topics: Sequence[str],
        group_id: str,
        *,
        start: Start = "earliest",
        out_of_range: OutOfRange = "stop",
        read_committed: bool = False,
        assignor: str = "range",
        instance_id: str | None = None,
    ) -> None:
        self._start = start
        self._out_of_range = out_of_range
        self._listener = _AssignmentListener()
        self._closed = False
        self._displaced_since: float | None = None
        self._was_member = False
        isolation = {"isolation_level": "read_committed"} if read_committed else {}
        self._client = build_consumer(
            connection,
            group_id=group_id,
            group_instance_id=instance_id,
            partition_assignment_strategy=[ASSIGNORS[assignor]],
            **isolation,
        )
        with translated("subscribing"):
            self._client.subscribe(list(topics), listener=self._listener)

    @override
    def poll(self, timeout_ms: int, max_records: int) -> Polled:
        deadline = time.monotonic() + timeout_ms / 1000
        while True:
            left_ms = max(0, int((deadline - time.monotonic()) * 1000))
            try:
                with translated("reading records"):
                    polled = self._poll_once(left_ms, max_records)
            except (BrokerUnavailable, Displaced) as error:
                if isinstance(error, Displaced):
                    self._require_own_name()
                # The client heals by itself; an empty poll keeps the caller's loop, and its clock, going.
                time.sleep(min(left_ms, 100) / 1000)
                polled = {}
            if polled or time.monotonic() >= deadline:
                return polled

    def _poll_once(self, timeout_ms: int, max_records: int) -> Polled:
        self._keep_joining()
        self._seek_to_committed()
        try:
            polled = self._client.poll(timeout_ms=timeout_ms, max_records=max_records)
        except kafka_errors.NoOffsetForPartitionError as error:
            self._seek_to_edge(self._start, error.args[0])
            return {}
        except kafka_errors.OffsetOutOfRangeError as error:
            self._resolve_out_of_range(error.args[0])
            return {}
        except kafka_errors.LogTruncationError as error:
            self._resolve_out_of_range(error.divergent_offsets)
            return {}
        needs_seek = self._listener.needs_seek
        return {Partition(*p): records for p, records in polled.items() if Partition(*p) not in needs_seek}

    def _seek_to_committed(self) -> None:
        for partition, offset in self.committed(self._listener.needs_seek & self.assignment()).items():
            if offset is None:
                self._seek_to_edge(self._start, [TopicPartition(*partition)])
            else:
                self._client.seek(TopicPartition(*partition), offset)
            self._listener.positioned(partition)

    def _keep_joining(self) -> None:
        """Makes the client finish a rebalance that outlasts one poll, and notice that its heartbeats have ended.

        kafka-python 3.0.12 rejoins when a topic's partitions change, and forgets why as soon as the group's answer
        is there: if that comes between two polls, the assignment is never taken over, heartbeats stay off and poll
        never returns anything again (seen in 1 of 10 first joins with polls of 100 ms). After a heartbeat that was
        answered with "another member has your instance id" they stay off, too, and nothing else happens. Asking again
        is harmless.
        """
        coordinator = self._client._coordinator  # noqa: SLF001  # there is no public way
        with coordinator._lock:  # noqa: SLF001
            silent = coordinator.state is MemberState.STABLE and not coordinator._heartbeat_enabled  # noqa: SLF001
        if silent or coordinator.state is MemberState.REBALANCING:
            coordinator.request_rejoin()
        elif coordinator.state is MemberState.STABLE:
            self._displaced_since, self._was_member = None, True

    def _require_own_name(self) -> None:
        """Raises Fenced once the broker has kept saying that another member has this one's instance id.

        A broker that has just come back says so of the only one for a moment (worker.broker.watermark). One that never
        was a member is the newest with this name: it takes it, whatever became of the answer to its first attempt.
        """
        if not self._was_member:
            self._client._coordinator.reset_generation()  # noqa: SLF001  # there is no public way
            return
        self._displaced_since = self._displaced_since or time.monotonic()
        if time.monotonic() - self._displaced_since > _DISPLACED_S:
            raise Fenced("another process has joined the group with this [instance_id]: this one ends")

    def _resolve_out_of_range(self, offsets: Mapping[Any, Any]) -> None:
        if self._out_of_range == "stop":
            places = ", ".join(f"{p.topic}[{p.partition}] at {offset}" for p, offset in sorted(offsets.items()))
            raise OffsetOutOfRange(
                f"the next offset to read is no longer in the log: {places}; records were deleted before they were "
                "read. Choose where to go on with [kafka.offset_out_of_range] (earliest or latest)"
            )
        self._seek_to_edge(self._out_of_range, offsets)

    def _seek_to_edge(self, edge: Start, partitions: Collection[Any]) -> None:
        assigned = [partition for partition in partitions if partition in self._client.assignment()]
        if assigned:
            (self._client.seek_to_beginning if edge == "earliest" else self._client.seek_to_end)(*assigned)

    @override
    def assignment_changes(self) -> AssignmentChanges:
        return self._listener.take()

    @override
    def commit(self, offsets: Mapping[Partition, int]) -> None:
        if not offsets:
            return
        try:
            with translated("committing offsets"):
                self._client.commit(as_kafka_offsets(offsets), timeout_ms=_COMMIT_TIMEOUT_MS)
        except Displaced as error:  # poll finds out whether it is true
            raise CommitRefused(str(error)) from error
        self.note_committed(offsets)

    @override
    def note_committed(self, offsets: Mapping[Partition, int]) -> None:
        self._listener.committed.note(offsets)

    @override
    def committed(self, partitions: Collection[Partition]) -> Mapping[Partition, int | None]:
        with translated("reading committed offsets"):
            offsets = {p: self._client.committed(TopicPartition(*p), timeout_ms=_COMMIT_TIMEOUT_MS) for p in partitions}
        self._listener.committed.require_not_below(offsets)
        self._listener.committed.note(offsets)
        return offsets

    @override
    def seek(self, offsets: Mapping[Partition, int]) -> None:
        assigned = self._client.assignment()
        for partition, offset in offsets.items():
            if partition in assigned:
                self._client.seek(TopicPartition(*partition), offset)
                self._listener.positioned(partition)

    @override
    def assignment(self) -> frozenset[Partition]:
        return frozenset(Partition(*partition) for partition in self._client.assignment())

    @override
    def is_member(self) -> bool:
        return not self._closed and bool(self._client.group_metadata().state == MemberState.STABLE)

    @override
    def membership(self) -> Any:  # KIP-447
        return self._client.group_metadata()

    @override
    def pause(self, partitions: Collection[Partition]) -> None:
        self._client.pause(*self._assigned_of(partitions))

    @override
    def resume(self, partitions: Collection[Partition]) -> None:
        self._client.resume(*self._assigned_of(partitions))

    def _assigned_of(self, partitions: Collection[Partition]) -> list[Any]:
        assigned = self._client.assignment()
        return [TopicPartition(*partition) for partition in partitions if partition in assigned]

    @override
    def positions(self) -> Mapping[Partition, int]:
        positions: dict[Partition, int] = {}
        for partition in self._client.assignment():
            try:
                offset = self._client.position(partition, timeout_ms=0)
            except kafka_errors.KafkaError:  # no position yet, or taken away just now
                continue
            if offset is not None:
                positions[Partition(*partition)] = offset
        return positions

    @override
    def lag(self) -> Mapping[Partition, int]:
        lags: dict[Partition, int] = {}
        for partition, position in self.positions().items():
            try:
                end = self._client.highwater(TopicPartition(*partition))
            except kafka_errors.IllegalStateError:  # taken away just now
                continue
            if end is not None:
                lags[partition] = max(0, end - position)
        return lags

    @override
    def close(self, timeout_s: float) -> None:
        if self._closed:
            return
        self._closed = True
        timeout_ms = int(timeout_s * 1000)
        quietly(lambda: self._client.close(autocommit=False, timeout_ms=timeout_ms), timeout_s, "closing the consumer")


def as_kafka_offsets(offsets: Mapping[Partition, int]) -> dict[Any, Any]:
    """The client's form of offsets to commit."""
    return {TopicPartition(*partition): OffsetAndMetadata(offset, "", -1) for partition, offset in offsets.items()}
