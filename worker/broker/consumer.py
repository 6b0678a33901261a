"""A member of a consumer group on Kafka: batches of unconverted records, offsets committed when told to."""

import contextlib
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal

from kafka import TopicPartition
from kafka import errors as kafka_errors
from kafka.structs import MemberState
from typing_extensions import override

from worker.broker.assignments import AssignmentListener
from worker.broker.base import AssignmentChanges, Consumer, Offsets, Polled, Unreadable
from worker.broker.client import ASK_TIMEOUT_MS, ASSIGNORS, Connection, Welcome, build_consumer, quietly, translated
from worker.broker.fetching import BoundedFetcher
from worker.broker.joining import Joining
from worker.broker.topic_ids import (
    GroupMembership,
    StoredOffset,
    TopicIds,
    known_topic_id,
    refresh_metadata,
)
from worker.broker.topic_names import is_pattern, topic_names
from worker.errors import BrokerUnavailable, CommitRefused, Displaced, OffsetOutOfRange
from worker.records import Partition

OutOfRange = Literal["stop", "earliest", "latest"]

_COMMIT_TIMEOUT_MS: Final = 15_000
_MISSING_S: Final = 2.0  # the first answer about topics takes a moment


class GroupConsumer(Consumer):
    """A Consumer on Kafka.

    topics            names, or a pattern alone: then of all topics that fit, those that are created later, too
    out_of_range      what a committed offset whose records were deleted leads to: "stop" raises OffsetOutOfRange
    read_committed    skip records of open and aborted transactions, and wait for offsets that a transaction is about
                      to commit; exactly-once needs it
    assignor          how the group shares partitions out, by its name in ASSIGNORS, the same for all members;
                      "cooperative-sticky" takes away only those that move, the others take away all and give back
    instance_id       a static member, whose partitions wait for it through a restart within the session timeout
    tell              is told where reading goes on at another offset than the one that was next, and why

    Raises (on creation) BrokerUnavailable, SettingsError, FatalError.
    """

    def __init__(
        self,
        connection: Connection,
        topics: Sequence[str],
        group_id: str,
        *,
        out_of_range: OutOfRange = "stop",
        read_committed: bool = False,
        assignor: str = "range",
        instance_id: str | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._out_of_range = out_of_range
        self._welcome = Welcome(connection)
        self._tell = tell
        self._topic_ids = TopicIds()  # of the topics that records are polled from
        self._subscribed = ",".join(topics)
        self._missing_since: dict[str, float] = {}
        self._listener = AssignmentListener()
        self._closed = False
        self._client = build_consumer(
            connection,
            group_id=group_id,
            group_instance_id=instance_id,
            partition_assignment_strategy=[ASSIGNORS[assignor]],
            **({"isolation_level": "read_committed"} if read_committed else {}),
        )
        self._joining = Joining(self._client, connection.contact)
        self._fetcher: BoundedFetcher = self._client._fetcher  # noqa: SLF001  # build_consumer put it there
        with translated("subscribing"):
            named = (
                {"pattern": self._subscribed}
                if is_pattern(self._subscribed)
                else {"topics": topic_names(self._subscribed)}
            )
            self._client.subscribe(**named, listener=self._listener)

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
                    self._joining.require_own_name()
                # The client heals by itself; an empty poll keeps the caller's loop, and its clock, going.
                time.sleep(min(left_ms, 100) / 1000)
                polled = {}
            if polled:
                return polled
            self._welcome.require()
            if time.monotonic() >= deadline:
                return polled

    def _poll_once(self, timeout_ms: int, max_records: int) -> Polled:
        self._joining.keep()
        self._follow_topics()
        self._joining.follow(lambda: {topic: self.partition_count(topic) for topic in self._here(self._subscribed)})
        for partition, stored in self._stored(self._listener.needs_seek & self.assignment()).items():
            if stored is None:
                self._client.seek_to_beginning(*self._assigned_of([partition]))
                self._listener.positioned(partition)
            else:
                self.seek({partition: stored.offset})
        try:
            polled = self._client.poll(timeout_ms=timeout_ms, max_records=max_records)
        except kafka_errors.NoOffsetForPartitionError as error:
            self._client.seek_to_beginning(*self._assigned_of(error.args[0]))
            return {}
        except kafka_errors.LogTruncationError as error:
            self._resolve_out_of_range(error.divergent_offsets)
            return {}
        except kafka_errors.OffsetOutOfRangeError as error:
            self._resolve_out_of_range(dict.fromkeys(error.args[0]))
            return {}
        self._follow_topics()
        unsure = self._listener.needs_seek | self._listener.gone
        return {Partition(*p): records for p, records in polled.items() if Partition(*p) not in unsure}

    def _follow_topics(self) -> None:
        """Notices a topic that was deleted and created again, also where no partition changed its owner for it."""
        for topic in self._here(self._subscribed):
            if self._topic_ids.follow(topic, known_topic_id(self._client, topic)):
                self._tell(f"the topic {topic} was deleted and created again: it is read from its beginning")
                self._listener.recreated([partition for partition in self.assignment() if partition.topic == topic])

    def _resolve_out_of_range(self, positions: Mapping[Any, Any]) -> None:
        """Where partitions go on whose position is not in their log.

        positions   of the client; with a value where the broker has cut the log off and said where it ends now

        A position beyond the end is none that records were deleted before: the log is shorter than what was read. It
        goes on at the end, for what was cut off can't be read, and what comes next is new.
        """
        refresh_metadata(self._client, ASK_TIMEOUT_MS / 1000)
        self._follow_topics()
        listed = [Partition(*partition) for partition in positions]
        here = [p for p in self._assigned_of(listed) if Partition(*p) not in self._listener.needs_seek]
        stored, deleted = self._stored([Partition(*partition) for partition in here]), []
        for partition in here:
            position, cutoff = self._client.position(partition, timeout_ms=0), positions[partition]
            end = self._client.end_offsets([partition], timeout_ms=ASK_TIMEOUT_MS)[partition]
            place = f"{partition.topic}[{partition.partition}]"
            if stored[Partition(*partition)] is None:
                self._client.seek_to_beginning(partition)
            elif cutoff is not None or position > end:
                ends = end if cutoff is None else cutoff.offset
                self._client.seek(partition, ends)
                self._tell(f"{place} ends at offset {ends}, though {position} was to be read next: it goes on there")
            else:
                deleted.append(partition)
        if deleted:
            self._resolve_deleted(deleted)

    def _resolve_deleted(self, partitions: Sequence[Any]) -> None:
        offsets = {partition: self._client.position(partition, timeout_ms=0) for partition in sorted(partitions)}
        places = ", ".join(f"{p.topic}[{p.partition}] at {offset}" for p, offset in offsets.items())
        if self._out_of_range == "stop":
            raise OffsetOutOfRange(
                f"the next offset to read is no longer in the log: {places}; records were deleted before they were "
                "read. Choose where to go on with [kafka.offset_out_of_range] (earliest or latest)"
            )
        edge = self._client.seek_to_beginning if self._out_of_range == "earliest" else self._client.seek_to_end
        edge(*partitions)
        self._tell(f"records were deleted before they were read: {places}; it goes on at the {self._out_of_range}")

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
        if offsets:
            self._commit(offsets)
            self.note_committed(offsets)

    def _commit(self, offsets: Offsets, *, is_start: bool = False) -> None:
        theirs = self._topic_ids.as_kafka_offsets(offsets, is_start=is_start)
        try:
            with translated("committing offsets"):
                self._client.commit(theirs, timeout_ms=_COMMIT_TIMEOUT_MS)
        except Displaced as error:  # poll finds out whether it is true
            raise CommitRefused(str(error)) from error

    @override
    def note_committed(self, offsets: Offsets) -> None:
        self._listener.committed.note(offsets)

    @override
    def committed(self, partitions: Collection[Partition]) -> Mapping[Partition, int | None]:
        stored = self._stored(partitions)
        return {p: None if offset is None or offset.is_start else offset.offset for p, offset in stored.items()}

    def _stored(self, partitions: Collection[Partition]) -> dict[Partition, StoredOffset | None]:
        """The group's offsets of the topics that are there now. Raises as `committed` does."""
        fetch = self._client._coordinator.fetch_committed_offsets  # noqa: SLF001  # one round trip for all
        with translated("reading committed offsets"):
            answers = fetch([TopicPartition(*partition) for partition in partitions], ASK_TIMEOUT_MS)
        stored = {p: self._topic_ids.read(p, answers.get(p), self.topic_id(p.topic)) for p in partitions}
        handled = {p: None if offset is None or offset.is_start else offset.offset for p, offset in stored.items()}
        self._listener.committed.require_not_below(handled)
        self._listener.committed.note(handled)
        return stored

    @override
    def begin(self, partitions: Collection[Partition]) -> Offsets:
        stored = self._stored(partitions)
        if late := [partition for partition, offset in stored.items() if offset is not None and not offset.is_start]:
            raise BrokerUnavailable(f"offsets of {late} are committed after all: asking again")
        begun = {partition: offset.offset for partition, offset in stored.items() if offset is not None}
        if new := [TopicPartition(*partition) for partition in partitions if partition not in begun]:
            with translated("looking up offsets"):
                oldest = self._client.beginning_offsets(new, timeout_ms=ASK_TIMEOUT_MS)
            starts = {Partition(*partition): int(offset) for partition, offset in oldest.items()}
            self._commit(starts, is_start=True)
            begun |= starts
        return begun

    @override
    def topic_id(self, topic: str) -> str | None:
        return self._topic_ids.by_topic.get(topic) or known_topic_id(self._client, topic)

    @override
    def note_later(self, partitions: Collection[Partition]) -> None:
        self._topic_ids.note_later(partitions)

    @override
    def is_later(self, partition: Partition) -> bool:
        return self._topic_ids.is_later(partition)

    @override
    def missing_topics(self) -> Sequence[str]:
        now = time.monotonic()
        names = topic_names(self._subscribed) or [self._subscribed]
        missing = [topic for topic in names if not self.partition_count(topic)]
        self._missing_since = {topic: self._missing_since.get(topic, now) for topic in missing}
        return [topic for topic in missing if now - self._missing_since[topic] > _MISSING_S]

    @override
    def partition_count(self, topic: str) -> int:
        cluster = self._client._cluster  # noqa: SLF001  # the client's own question asks and blocks
        return sum(len(cluster.partitions_for_topic(name) or ()) for name in self._here(topic))

    def _here(self, topic: str) -> Sequence[str]:
        """The topics that this text names; of a pattern those that the client knows to fit."""
        return sorted(self._client.subscription() or ()) if is_pattern(topic) else topic_names(topic)

    @override
    def seek(self, offsets: Offsets) -> None:
        for partition in self._assigned_of(offsets):
            self._client.seek(partition, offsets[partition])
            self._listener.positioned(partition)

    @override
    def assignment(self) -> frozenset[Partition]:
        return frozenset(Partition(*partition) for partition in self._client.assignment()) - self._listener.gone

    @override
    def is_member(self) -> bool:
        return not self._closed and bool(self._client.group_metadata().state == MemberState.STABLE)

    @override
    def membership(self) -> Any:  # KIP-447
        return GroupMembership(self._client.group_metadata(), self._topic_ids)

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
        unsure = self._listener.needs_seek | self._listener.gone
        return {key: place.offset for key, place in positions.items() if place is not None and key not in unsure}

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
