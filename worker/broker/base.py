"""What the rooms above know of a broker. Two implementations keep one contract: kafka-python, and one in memory.

Nothing here raises a kafka exception; what can be raised is in worker.errors, sorted by what the caller does next.
None of these objects is thread-safe: one thread polls, sends and commits, except where a method says otherwise.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from worker.records import Outgoing, Partition, RawMessage

Polled = Mapping[Partition, Sequence[RawMessage]]
Offsets = Mapping[Partition, int]
Bounds = Mapping[Partition, tuple[int, int]]


class AssignmentChanges(NamedTuple):
    """Partitions that this member gained and lost since it was last asked; first it lost some, then it gained some.

    A partition that was taken away and given back is in both, as is one whose topic was deleted and created again:
    whatever was known about it is stale.
    """

    assigned: frozenset[Partition]
    revoked: frozenset[Partition]


class Unreadable(NamedTuple):
    """Records that could not be read and were passed over: first_offset to last_offset, both of them too."""

    partition: Partition
    first_offset: int
    last_offset: int
    why: str

    @property
    def records(self) -> int:
        """How many, as far as offsets tell."""
        return self.last_offset - self.first_offset + 1

    def __str__(self) -> str:
        (topic, number), first, last, why = self
        return f"offsets {first} to {last} of {topic}[{number}] can't be read: {why}"


class Consumer(Protocol):
    """A member of a consumer group, reading one or more topics."""

    def poll(self, timeout_ms: int, max_records: int, max_bytes: int | None = None) -> Polled:
        """Up to `max_records` new records, offset order within a partition; empty when none came in time.

        max_bytes: of memory that they take, about a megabyte more or one record; None = no such bound.

        Blocks up to `timeout_ms`, longer only while a rebalance is in progress (never beyond the client's request
        timeout). Partitions change owner only inside this call, so: nothing in flight when it is called, and read
        `assignment_changes()` right after it. Must be called at least every max_poll_interval_ms, paused or not.
        While the broker is away it returns empty; it heals by itself when the broker is back.
        The records are the client's own objects, unconverted. The value of one that can't be read is an
        UnreadableValue; what can't even be told apart is passed over: see `unreadable`.

        Raises OffsetOutOfRange (the committed offset is gone and no policy was set), FatalError (not authorised, a
        codec that is not installed, records that can't be read where that has to stop the process),
        BrokerUnavailable (calling again may help).
        """

    def polled_bytes(self) -> int:
        """Memory that the records of the last poll take, about."""

    def unreadable(self) -> Sequence[Unreadable]:
        """What the last polls have passed over, since it can't be read; each is reported once. Does not block."""

    def assignment_changes(self) -> AssignmentChanges:
        """What the last polls changed; each change is reported once. Does not block.

        Drop the state and the unfinished work of `revoked` first, then load the state of `assigned`.
        Records returned by the same poll already belong to the new assignment.
        """

    def commit(self, offsets: Offsets) -> None:
        """Stores the next offset to read for each partition; blocks for one round trip, at most the commit timeout.

        Raises CommitRefused when the group has moved on (these records may be another member's now: drop the
        partitions' unfinished work and poll on), BrokerUnavailable when there was no answer in time: then the
        commit can have happened or not, and committing the same or a later offset again is safe.
        """

    def committed(self, partitions: Collection[Partition]) -> Mapping[Partition, int | None]:
        """The group's stored next offsets; one round trip.

        None where it has none, where the stored one is only that of `begin`, and where it belongs to an earlier topic
        of the same name.
        Raises BrokerUnavailable, also when the answer is older than what this member knows to be committed.
        """

    def begin(self, partitions: Collection[Partition]) -> Offsets:
        """Where these assigned partitions begin, of which nothing is committed: at their oldest record.

        The offset is stored as the group's, so that it stays the same whoever asks later; it does not count as
        committed. Call it only once a `committed` of None is beyond doubt. Raises as `commit` does, and MissingTopic.
        """

    def topic_id(self, topic: str) -> str | None:
        """Which topic of this name the polled records are of: another one after it was deleted and created again.

        None where the broker does not say. Does not block.
        """

    def note_later(self, partitions: Collection[Partition]) -> None:
        """The group has read an earlier topic of their name. It is stored with what is committed from now on."""

    def is_later(self, partition: Partition) -> bool:
        """Whether the group has read an earlier topic of its name, as far as is known. Does not block."""

    def missing_topics(self) -> Sequence[str]:
        """Those to be read that have not been there for some seconds. Does not block."""

    def partition_count(self, topic: str) -> int:
        """The topic's partitions, as last heard; 0 while there is no such topic. Does not block; from any thread."""

    def note_committed(self, offsets: Offsets) -> None:
        """A transaction has committed these. Does not block."""

    def seek(self, offsets: Offsets) -> None:
        """Reads these assigned partitions from these offsets on at the next poll. Does not block.

        For reading a batch again after a delivery failed. Partitions that are no longer assigned are left out.
        """

    def membership(self) -> object:
        """What a transaction carries so that the broker can refuse the offsets of a stale member. Does not block."""

    def assignment(self) -> frozenset[Partition]:
        """The partitions of the last assignment. After max_poll_interval_ms it is stale: see `is_member`."""

    def is_member(self) -> bool:
        """Whether this member belongs to the current generation of the group. Does not block; from any thread."""

    def pause(self, partitions: Collection[Partition]) -> None:
        """Returns no records of these partitions until `resume`; keeps the membership. Unassigned: left out."""

    def resume(self, partitions: Collection[Partition]) -> None:
        """Undoes `pause`. Unassigned partitions are left out."""

    def positions(self) -> Offsets:
        """The next offset that poll would return, for each assigned partition that has one. Does not block.

        It lies behind markers of transactions and behind records that were aborted, deleted or passed over: committing
        it says that nothing before it is left to read. A position that a rebalance has left in doubt is none.
        """

    def lag(self) -> Offsets:
        """Records between the position and the end that the last fetch saw, per partition with both.

        No round trip. It counts offsets, so transaction markers and compacted records count too.
        """

    def close(self, timeout_s: float) -> None:
        """Leaves the group, so that the others take over at once; commits nothing.

        Returns within about `timeout_s` whatever the broker does, never raises, and may be called twice.
        """


class AnyProducer(Protocol):
    """What both kinds of producers have."""

    def fits(self, outgoing: Outgoing) -> bool:
        """Whether the client and the topic take a record of this size, as far as is known. Does not block."""

    def close(self, timeout_s: float) -> None:
        """Returns within about `timeout_s`; drops what was not flushed. Never raises; may be called twice."""


class Producer(AnyProducer, Protocol):
    """Sends records. After a DeliveryError it is dead: close it and build another."""

    def send(self, outgoing: Outgoing) -> None:
        """Hands one record over; it is published some time before the next `flush` returns.

        Blocks only while the buffer is full or the topic's partitions are unknown, at most the client's
        max_block_ms. A header whose value is None is sent with an empty value (the client cannot send null).

        Raises RecordTooLarge (this record was not sent; the producer lives on), DeliveryError (dead).
        """

    def flush(self, timeout_s: float) -> None:
        """Returns once every record sent since the last flush was acknowledged by all in-sync replicas.

        Raises DeliveryError when one was not, or not in time, and RecordTooLarge, naming the record, when the broker
        refused one for its size. This producer is dead then, and the records may have been written or not.
        """

    def acknowledged(self) -> Sequence[Outgoing]:
        """Of the records since the last flush that returned, those that were acknowledged. Does not block."""


class TransactionalProducer(AnyProducer, Protocol):
    """A producer whose records and offsets become visible together. Every call ends within its deadline.

    After CommitRefused it lives on. After any other error it is dead: close it and build another with the same
    transactional id, which ends what was left open.
    """

    def transact(self, outgoing: Sequence[Outgoing], offsets: Offsets, membership: object) -> None:
        """All records and the offsets of the group that `membership` belongs to, as one transaction.

        Raises CommitRefused (the group has moved on) and RecordTooLarge (naming the records), both after the
        transaction was aborted; DeliveryError when it was not committed; BrokerUnavailable when that is not known;
        Fenced when another producer has taken over the transactional id.
        """


class Delivery(Protocol):
    """Publishes a batch's results, then its state, and commits its offsets, in this order or as one."""

    def open(self) -> None:
        """Builds the producer now, not at the first publish. Call it before the first poll.

        exactly_once: it ends what a killed predecessor left open, for which the first poll would wait.
        Raises BrokerUnavailable, SettingsError, FatalError; may be called again.
        """

    def publish(self, outgoing: Sequence[Outgoing], next_offsets: Offsets, state: Sequence[Outgoing] = ()) -> None:
        """All of `outgoing` acknowledged, then all of `state`, then `next_offsets` committed; when it returns, all is.

        Records of `state` for one partition are written in their order. When it raises, nothing was committed, or
        (BrokerUnavailable) it is not known whether all of it was.

        - CommitRefused: these partitions may be another member's now; drop the batch and poll.
        - other TransientError: wait, then publish the same batch again until it works; producers are rebuilt
          inside, and what turns out to be committed already is not published twice by exactly_once. Meanwhile keep
          the membership by polling with everything paused; drop the batch if its partitions were revoked.
        - RecordTooLarge: `error.records` are the ones to shorten, until `fits` takes them; then publish the whole batch
          again with the short ones.
        - FatalError (Fenced, ...): stop.

        Records that were acknowledged are not published again by at_least_once, if the same objects are handed over.

        Blocks at most the delivery timeout plus the commit timeout, after an outage also the time to build a
        producer. Call it from the thread that polls.
        """

    def fits(self, outgoing: Outgoing) -> bool:
        """Whether a record of this size will be taken, as far as is known. Does not block."""

    def close(self, timeout_s: float) -> None:
        """Closes the producer, not the consumer. Returns within about `timeout_s`, never raises."""


class RangeReader(Protocol):
    """Reads parts of a topic outside of any group: for the trainer, replay and the commands.

    A topic is named as in `worker.broker.topic_names`: it may be several, or a pattern.
    """

    def partitions(self, topic: str) -> Sequence[Partition]:
        """All partitions, sorted. Raises MissingTopic where one is not there, BrokerUnavailable."""

    def start_offsets(self, topic: str) -> Offsets:
        """The oldest offset still there, per partition. Raises MissingTopic, BrokerUnavailable."""

    def end_offsets(self, topic: str) -> Offsets:
        """One past the newest readable offset, per partition. Raises MissingTopic, BrokerUnavailable."""

    def offsets_for_times(self, topic: str, timestamp_ms: int) -> Offsets:
        """The first offset at or after a time (ms since the epoch, UTC), per partition; the end where none is.

        Raises MissingTopic, BrokerUnavailable.
        """

    def read(self, bounds: Bounds) -> Iterator[Sequence[RawMessage]]:
        """Batches of the records with start <= offset < end, per partition, each in offset order.

        A start before the oldest record begins there; offsets that hold no record (compacted, transaction markers)
        are passed over. Ends when every partition has reached its end, or the end that the log had at the start.
        A batch is bounded in records and in bytes. While it is being consumed, ask this reader nothing else.
        Raises BrokerUnavailable when nothing arrives for the client's request timeout.
        """

    def unreadable(self) -> Sequence[Unreadable]:
        """What reading has passed over since it was last asked, since it can't be read."""

    def latest(self, topic: str, count: int) -> Sequence[RawMessage]:
        """About the newest `count` records: an equal share of every partition, more where others hold too few.

        Merged by timestamp, offset order kept within a partition. Fewer come where offsets hold no record.
        Raises MissingTopic, BrokerUnavailable.
        """

    def close(self, timeout_s: float) -> None:
        """Never raises; may be called twice."""
