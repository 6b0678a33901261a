"""A member of a consumer group on Kafka: batches of unconverted records, offsets committed when told to."""

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Literal

from kafka import TopicPartition
from kafka import errors as kafka_errors
from kafka.structs import MemberState, OffsetAndMetadata

from worker.broker.assignors import ASSIGNORS, Assignor
from worker.broker.base import AssignmentChanges, Polled
from worker.broker.client import Connection, build_consumer
from worker.broker.deadline import bounded
from worker.broker.listener import Listener
from worker.broker.translate import translated
from worker.errors import BrokerUnavailable, CommitRefused, Displaced, Fenced, OffsetOutOfRange
from worker.records import Partition

Start = Literal["earliest", "latest"]
OutOfRange = Literal["stop", "earliest", "latest"]

_COMMIT_TIMEOUT_S: Final = 15.0
_DISPLACED_S: Final = 5.0


class GroupConsumer:
    """worker.broker.base.Consumer on Kafka.

    start: where a partition without a committed offset begins.
    out_of_range: what a committed offset that no longer exists leads to: "stop" raises OffsetOutOfRange.
    read_committed: skip records of open and aborted transactions, and wait for offsets that a transaction is about
    to commit; exactly-once needs it.
    assignor: how the group shares partitions out; "cooperative-sticky" takes away only those that move, the others
    take away all and give back. Every member of a group has to use the same one.
    instance_id: a static member, whose partitions wait for it through a restart shorter than the session timeout.
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
        assignor: Assignor = "range",
        instance_id: str | None = None,
        commit_timeout_s: float = _COMMIT_TIMEOUT_S,
    ) -> None:
        self._start = start
        self._out_of_range = out_of_range
        self._commit_timeout_s = commit_timeout_s
        self._listener = Listener()
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

    def poll(self, timeout_ms: int, max_records: int) -> Polled:
        """See Consumer.poll."""
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
        self._place()
        try:
            polled = self._client.poll(timeout_ms=timeout_ms, max_records=max_records)
        except kafka_errors.NoOffsetForPartitionError as error:
            self._move(self._start, error.args[0])
            return {}
        except kafka_errors.OffsetOutOfRangeError as error:
            self._resolve_out_of_range(error.args[0])
            return {}
        except kafka_errors.LogTruncationError as error:
            self._resolve_out_of_range(error.divergent_offsets)
            return {}
        found = {Partition(*partition): records for partition, records in polled.items()}
        return {partition: records for partition, records in found.items() if partition not in self._listener.misplaced}

    def _place(self) -> None:
        """Moves partitions that were taken away and given back to their committed offset."""
        misplaced = self._listener.misplaced & self.assignment()
        for partition, offset in self.committed(misplaced).items():
            if offset is None:
                self._move(self._start, [TopicPartition(*partition)])
            else:
                self._client.seek(TopicPartition(*partition), offset)
            self._listener.placed([partition])

    def _keep_joining(self) -> None:
        """Makes the client finish a rebalance that outlasts one poll, and notice that its heartbeats have ended.

        kafka-python 3.0.12 rejoins when a topic's partitions change, and forgets why as soon as the group's answer
        is there: if that comes between two polls, the assignment is never taken over, heartbeats stay off and poll
        returns nothing for ever (seen in 1 of 10 first joins with polls of 100 ms). After a heartbeat that was
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
        """Raises Fenced once the broker has said for long enough that another member has this one's instance id.

        A broker that has just come back says so of the only one for a moment (worker.broker.watermark). One that never
        was a member is the newest with this name: it takes it, whatever became of the answer to its first attempt.
        """
        if not self._was_member:
            self._client._coordinator.reset_generation()  # noqa: SLF001  # there is no public way
            return
        self._displaced_since = self._displaced_since or time.monotonic()
        if time.monotonic() - self._displaced_since > _DISPLACED_S:
            raise Fenced("another process has joined the group with this WORKER_INSTANCE_ID: this one ends")

    def _resolve_out_of_range(self, offsets: Mapping[Any, Any]) -> None:
        if self._out_of_range == "stop":
            places = ", ".join(f"{p.topic}[{p.partition}] at {offset}" for p, offset in sorted(offsets.items()))
            raise OffsetOutOfRange(
                f"the next offset to read is no longer in the log: {places}; records were deleted before they were "
                "read. Choose where to go on with WORKER_KAFKA__OFFSET_OUT_OF_RANGE (earliest or latest)"
            )
        self._move(self._out_of_range, offsets)

    def _move(self, where: Start, partitions: Collection[Any]) -> None:
        assigned = [partition for partition in partitions if partition in self._client.assignment()]
        if assigned:
            seek = self._client.seek_to_beginning if where == "earliest" else self._client.seek_to_end
            seek(*assigned)

    def assignment_changes(self) -> AssignmentChanges:
        """See Consumer.assignment_changes."""
        return self._listener.take()

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """See Consumer.commit."""
        if not offsets:
            return
        try:
            with translated("committing offsets"):
                self._client.commit(as_kafka_offsets(offsets), timeout_ms=int(self._commit_timeout_s * 1000))
        except Displaced as error:  # poll finds out whether it is true
            raise CommitRefused(str(error)) from error
        self.note_committed(offsets)

    def note_committed(self, offsets: Mapping[Partition, int]) -> None:
        """See Consumer.note_committed."""
        self._listener.floor.note(offsets)

    def committed(self, partitions: Collection[Partition]) -> Mapping[Partition, int | None]:
        """See Consumer.committed."""
        timeout_ms = int(self._commit_timeout_s * 1000)
        with translated("reading committed offsets"):
            found = {p: self._client.committed(TopicPartition(*p), timeout_ms=timeout_ms) for p in partitions}
        self._listener.floor.require_not_below(found)
        self._listener.floor.note(found)
        return found

    def seek(self, offsets: Mapping[Partition, int]) -> None:
        """See Consumer.seek."""
        assigned = self._client.assignment()
        for partition, offset in offsets.items():
            if partition in assigned:
                self._client.seek(TopicPartition(*partition), offset)
                self._listener.placed([partition])

    def assignment(self) -> frozenset[Partition]:
        """See Consumer.assignment."""
        return frozenset(Partition(*partition) for partition in self._client.assignment())

    def is_member(self) -> bool:
        """See Consumer.is_member."""
        return not self._closed and bool(self._client.group_metadata().state == MemberState.STABLE)

    def membership(self) -> Any:
        """What a transaction carries so that the broker can refuse the offsets of a stale member (KIP-447)."""
        return self._client.group_metadata()

    def pause(self, partitions: Collection[Partition]) -> None:
        """See Consumer.pause."""
        self._client.pause(*self._assigned_of(partitions))

    def resume(self, partitions: Collection[Partition]) -> None:
        """See Consumer.resume."""
        self._client.resume(*self._assigned_of(partitions))

    def _assigned_of(self, partitions: Collection[Partition]) -> list[Any]:
        assigned = self._client.assignment()
        return [TopicPartition(*partition) for partition in partitions if partition in assigned]

    def positions(self) -> Mapping[Partition, int]:
        """See Consumer.positions."""
        positions: dict[Partition, int] = {}
        for partition in self._client.assignment():
            try:
                offset = self._client.position(partition, timeout_ms=0)
            except kafka_errors.KafkaError:  # no position yet, or taken away just now
                continue
            if offset is not None:
                positions[Partition(*partition)] = offset
        return positions

    def lag(self) -> Mapping[Partition, int]:
        """See Consumer.lag."""
        lags: dict[Partition, int] = {}
        for partition, position in self.positions().items():
            try:
                end = self._client.highwater(TopicPartition(*partition))
            except kafka_errors.IllegalStateError:  # taken away just now
                continue
            if end is not None:
                lags[partition] = max(0, end - position)
        return lags

    def close(self, timeout_s: float) -> None:
        """See Consumer.close."""
        if self._closed:
            return
        self._closed = True
        timeout_ms = int(timeout_s * 1000)
        try:
            bounded(
                lambda: self._client.close(autocommit=False, timeout_ms=timeout_ms), timeout_s, "closing the consumer"
            )
        except (BrokerUnavailable, kafka_errors.KafkaError, RuntimeError, OSError):
            return  # the group notices by the session timeout


def as_kafka_offsets(offsets: Mapping[Partition, int]) -> dict[Any, Any]:
    """The client's form of offsets to commit."""
    return {TopicPartition(*partition): OffsetAndMetadata(offset, "", -1) for partition, offset in offsets.items()}
