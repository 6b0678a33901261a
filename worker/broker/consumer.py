"""A member of a consumer group on Kafka: batches of unconverted records, offsets committed when told to."""

import contextlib
import sys
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal

from kafka import ConsumerRebalanceListener, TopicPartition
from kafka import errors as kafka_errors
from kafka.structs import MemberState, OffsetAndMetadata
from typing_extensions import override

from worker.broker.base import AssignmentChanges, Consumer, Offsets, Polled, Unreadable
from worker.broker.client import ASSIGNORS, Connection, Welcome, build_consumer, quietly, translated
from worker.broker.fetching import BoundedFetcher
from worker.errors import BrokerUnavailable, CommitRefused, Displaced, Fenced, OffsetOutOfRange
from worker.records import Partition

Start = Literal["earliest", "latest"]
OutOfRange = Literal["stop", "earliest", "latest"]

_COMMIT_TIMEOUT_MS: Final = 15_000
_DISPLACED_S: Final = 5.0

# Why a member remembers what it has committed, though the broker stores it.
#
# Invariant: while a group has members, its committed offsets do not go back.
#
# Apache Kafka 4.3.1 can say otherwise. A node that comes back after a crash loads a group twice, once for the
# leadership that it had before and once for the new one, and answers meanwhile: for a moment a group has no offsets, or
# those of minutes ago, or a member is not one of its own. A member that believed it would read again what it has
# committed, publish it twice, and with exactly_once take a transaction that was committed for lost.
#
# So an answer below the watermark is not an answer: BrokerUnavailable, and the caller asks again. It is forgotten with
# the partition: a new owner has none, and is protected by the offset in the checkpoint (worker.stream.checkpoints). An
# operator who moves offsets back has to stop the group first, which Kafka's own tools demand, too.


class CommittedWatermark:
    """The offsets that this member knows to be committed. Any thread may call any method."""

    def __init__(self) -> None:
        self._offsets: dict[Partition, int] = {}

    def note(self, offsets: Mapping[Partition, int | None]) -> None:
        """These are committed; None = nothing is."""
        self._offsets |= {partition: offset for partition, offset in offsets.items() if offset is not None}

    def forget(self, partitions: Collection[Partition]) -> None:
        """They belong to others now."""
        for partition in partitions:
            self._offsets.pop(partition, None)

    def require_not_below(self, offsets: Mapping[Partition, int | None]) -> None:
        """Raises BrokerUnavailable when one of these answers is older than what is known."""
        for partition, offset in offsets.items():
            known = self._offsets.get(partition)
            if known is not None and (offset is None or offset < known):
                raise BrokerUnavailable(
                    f"the broker says that offset {offset} of {partition.topic}[{partition.partition}] is committed, "
                    f"though {known} is: it may not have loaded all of them yet"
                )


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
    """Notes what changed, on the client's IO thread. needs_seek: partitions whose position there can't be trusted."""

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
            self._assigned, self._revoked = set(), set()
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
        self._welcome = Welcome(connection)
        self._closed = False
        self._displaced_since: float | None = None
        self._was_member = False
        self._client = build_consumer(
            connection,
            group_id=group_id,
            group_instance_id=instance_id,
            partition_assignment_strategy=[ASSIGNORS[assignor]],
            **({"isolation_level": "read_committed"} if read_committed else {}),
        )
        self._fetcher: BoundedFetcher = self._client._fetcher  # noqa: SLF001  # build_consumer put it there
        with translated("subscribing"):
            self._client.subscribe(list(topics), listener=self._listener)

    @override
    def poll(self, timeout_ms: int, max_records: int, max_bytes: int | None = None) -> Polled:
        self._fetcher.max_bytes = sys.maxsize if max_bytes is None else max_bytes
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
            if polled:
                return polled
            self._welcome.require()
            if time.monotonic() >= deadline:
                return polled

    def _poll_once(self, timeout_ms: int, max_records: int) -> Polled:
        self._keep_joining()
        for partition, offset in self.committed(self._listener.needs_seek & self.assignment()).items():
            if offset is None:
                self._seek_to_edge(self._start, [partition])
                self._listener.positioned(partition)
            else:
                self.seek({partition: offset})
        try:
            polled = self._client.poll(timeout_ms=timeout_ms, max_records=max_records)
        except kafka_errors.NoOffsetForPartitionError as error:
            self._seek_to_edge(self._start, error.args[0])
            return {}
        except (kafka_errors.OffsetOutOfRangeError, kafka_errors.LogTruncationError) as error:
            self._resolve_out_of_range(getattr(error, "divergent_offsets", error.args[0]))
            return {}
        needs_seek = self._listener.needs_seek
        return {Partition(*p): records for p, records in polled.items() if Partition(*p) not in needs_seek}

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

        A broker that has just come back says so of the only one for a moment (CommittedWatermark). One that never
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
        if assigned := self._assigned_of(partitions):
            (self._client.seek_to_beginning if edge == "earliest" else self._client.seek_to_end)(*assigned)

    @override
    def polled_bytes(self) -> int:
        return self._fetcher.handed_bytes

    @override
    def unreadable(self) -> Sequence[Unreadable]:
        return self._fetcher.take_unreadable()

    @override
    def assignment_changes(self) -> AssignmentChanges:
        return self._listener.take()

    @override
    def commit(self, offsets: Offsets) -> None:
        if not offsets:
            return
        try:
            with translated("committing offsets"):
                self._client.commit(as_kafka_offsets(offsets), timeout_ms=_COMMIT_TIMEOUT_MS)
        except Displaced as error:  # poll finds out whether it is true
            raise CommitRefused(str(error)) from error
        self.note_committed(offsets)

    @override
    def note_committed(self, offsets: Offsets) -> None:
        self._listener.committed.note(offsets)

    @override
    def committed(self, partitions: Collection[Partition]) -> Mapping[Partition, int | None]:
        with translated("reading committed offsets"):
            offsets = {p: self._client.committed(TopicPartition(*p), timeout_ms=_COMMIT_TIMEOUT_MS) for p in partitions}
        self._listener.committed.require_not_below(offsets)
        self._listener.committed.note(offsets)
        return offsets

    @override
    def seek(self, offsets: Offsets) -> None:
        for partition in self._assigned_of(offsets):
            self._client.seek(partition, offsets[partition])
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
    def positions(self) -> Offsets:
        # The client's own question takes 20 times as long for each partition, and asks the broker where there is none.
        states = list(self._client._subscription.assignment.items())  # noqa: SLF001
        positions = {Partition(*partition): state.position for partition, state in states}
        needs_seek = self._listener.needs_seek
        return {key: place.offset for key, place in positions.items() if place is not None and key not in needs_seek}

    @override
    def lag(self) -> Offsets:
        lags: dict[Partition, int] = {}
        for partition, position in self.positions().items():
            with contextlib.suppress(kafka_errors.IllegalStateError):  # taken away just now
                if (end := self._client.highwater(TopicPartition(*partition))) is not None:
                    lags[partition] = max(0, end - position)
        return lags

    @override
    def close(self, timeout_s: float) -> None:
        if not self._closed:
            self._closed = True
            close = partial(self._client.close, autocommit=False, timeout_ms=int(timeout_s * 1000))
            quietly(close, timeout_s, "closing the consumer")


def as_kafka_offsets(offsets: Offsets) -> dict[Any, Any]:
    """The client's form of offsets to commit."""
    return {TopicPartition(*partition): OffsetAndMetadata(offset, "", -1) for partition, offset in offsets.items()}
