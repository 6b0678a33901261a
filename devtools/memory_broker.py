"""An in-memory broker that keeps the contract of worker.broker.base, with failures on demand: for fast tests.

    broker = MemoryBroker({"input": 3, "alerts": 1})
    broker.append([Outgoing("input", b"key", b"{}")])
    broker.fail("flush", DeliveryError("acknowledgement lost"), after=True)   # written, yet reported as failed

Actions that can fail: "build", "poll", "send", "flush", "commit", "committed", "transact".
"""

import threading
import time
import zlib
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from typing import Literal, NamedTuple, Protocol

from worker.errors import CommitRefused, Fenced, MissingTopic, RecordTooLarge
from worker.records import Message, Outgoing, Partition

Action = Literal["build", "poll", "send", "flush", "commit", "committed", "transact"]


class _Failure(NamedTuple):
    error: Exception
    after: bool


class Membership(NamedTuple):
    """What a member knows of itself; a transaction with an old generation is refused."""

    group_id: str
    member: int
    generation: int


class Member(Protocol):
    """A group member, as the broker sees it."""

    topics: tuple[str, ...]
    group_id: str


class MemoryBroker:
    """Topics, groups and their offsets; safe to use from several threads.

    topics: number of partitions of each. now_ms: the clock of the records' timestamps.
    max_record_bytes: larger values are refused when they are flushed.
    """

    def __init__(
        self,
        topics: Mapping[str, int],
        *,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        max_record_bytes: int = 1 << 20,
    ) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.max_record_bytes = max_record_bytes
        self._now_ms = now_ms
        self._logs: dict[Partition, list[Message]] = {}
        self._starts: dict[Partition, int] = defaultdict(int)
        self._offsets: dict[str, dict[Partition, int]] = defaultdict(dict)
        self._members: dict[str, list[Member]] = defaultdict(list)
        self._generations: dict[str, int] = defaultdict(int)
        self._epochs: dict[str, int] = defaultdict(int)
        self._failures: dict[Action, deque[_Failure | None]] = defaultdict(deque)
        self._past: deque[Mapping[Partition, int]] = deque()
        self._topic_ids: dict[str, str] = {}
        self.later: dict[str, set[Partition]] = defaultdict(set)  # of each group, what it read of an earlier topic
        self._starts_of: dict[str, dict[Partition, int]] = defaultdict(dict)
        self._turn = count()
        for name, partitions in topics.items():
            self.create_topic(name, partitions)

    def create_topic(self, name: str, partitions: int) -> None:
        """Adds an empty topic, another one than there was before of this name."""
        with self.changed:
            self._topic_ids[name] = f"{name}-{next(self._turn)}"
            self._logs.update({Partition(name, number): [] for number in range(partitions)})
            self._move_members()

    def add_partitions(self, name: str, partitions: int) -> None:
        """As many as that in all."""
        with self.changed:
            for number in range(partitions):
                self._logs.setdefault(Partition(name, number), [])
            self._move_members()

    def delete_topic(self, name: str) -> None:
        """With its records, and the offsets that groups have of it."""
        with self.changed:
            for partition in self.partitions(name):
                del self._logs[partition]
                self._starts.pop(partition, None)
                for offsets in (*self._offsets.values(), *self._starts_of.values()):
                    offsets.pop(partition, None)
            del self._topic_ids[name]
            self._move_members()

    def _move_members(self) -> None:
        """Every group has a new generation: its members see other partitions."""
        for group_id in self._members:
            self._generations[group_id] += 1
        self.changed.notify_all()

    def topics(self) -> list[str]:
        """The names of those that there are."""
        return list(self._topic_ids)

    def topic_id(self, name: str) -> str | None:
        """Which topic of this name it is; None where there is none."""
        return self._topic_ids.get(name)

    def begin(self, group_id: str, starts: Mapping[Partition, int]) -> Mapping[Partition, int]:
        """Where a group begins partitions, as it was told first."""
        begun = self._starts_of[group_id]
        begun.update({partition: start for partition, start in starts.items() if partition not in begun})
        return {partition: begun[partition] for partition in starts}

    def begin_at_end(self, name: str, group_id: str) -> None:
        """As worker.broker.topic_ids.begin_at_end."""
        partitions = self.partitions(name)
        known = self._offsets[group_id].keys() | self._starts_of[group_id].keys()
        if not known & set(partitions) and not self._members[group_id]:
            self.begin(group_id, {partition: self.bounds(partition)[1] for partition in partitions})

    def position(self, group_id: str, partition: Partition) -> int:
        """Where a new owner reads on."""
        start = self._starts_of[group_id].get(partition, self.bounds(partition)[0])
        return self._offsets[group_id].get(partition, start)

    def fail(self, action: Action, error: Exception, times: int = 1, *, after: bool = False, skip: int = 0) -> None:
        """The next `times` calls of this action raise `error`, before their effect or after it; `skip` calls pass."""
        self._failures[action].extend([*[None] * skip, *[_Failure(error, after)] * times])

    def injected(self, action: Action, effect: Callable[[], None] = lambda: None) -> None:
        """Runs the effect, unless a failure is due: called by the clients."""
        with self.changed:
            failure = self._failures[action].popleft() if self._failures[action] else None
            if failure is None or failure.after:
                effect()
                self.changed.notify_all()
            if failure is not None:
                raise failure.error

    def append(self, records: Iterable[Outgoing]) -> None:
        """Writes records: the same partition for the same key, in turn without a key. Raises MissingTopic."""
        with self.changed:
            for record in records:
                partitions = self.partitions(record.topic)
                place = next(self._turn) if record.key is None else zlib.crc32(record.key)
                partition = partitions[place % len(partitions) if record.partition is None else record.partition]
                log = self._logs[partition]
                offset = self._starts[partition] + len(log)
                log.append(Message(*partition, offset, self._now_ms(), record.key, record.value, tuple(record.headers)))
            self.changed.notify_all()

    def partitions(self, topic: str) -> list[Partition]:
        """All partitions of a topic, sorted. Raises MissingTopic."""
        partitions = sorted(partition for partition in self._logs if partition.topic == topic)
        if not partitions:
            raise MissingTopic(f"no such topic: {topic}")
        return partitions

    def records(self, topic: str) -> list[Message]:
        """Everything in a topic, partition after partition."""
        with self.changed:
            return [message for partition in self.partitions(topic) for message in self._logs[partition]]

    def bounds(self, partition: Partition) -> tuple[int, int]:
        """The oldest offset and the one after the newest."""
        start = self._starts[partition]
        return start, start + len(self._logs[partition])

    def slice(self, partition: Partition, start: int, limit: int) -> list[Message]:
        """Up to `limit` records from `start` on."""
        first = start - self._starts[partition]
        return self._logs[partition][first : first + limit]

    def delete_before(self, partition: Partition, offset: int) -> None:
        """What retention does."""
        with self.changed:
            self._logs[partition] = self._logs[partition][offset - self._starts[partition] :]
            self._starts[partition] = offset

    def offsets(self, group_id: str) -> Mapping[Partition, int]:
        """The committed next offsets of a group."""
        return dict(self._offsets[group_id])

    def answer_from_the_past(self, *answers: Mapping[Partition, int]) -> None:
        """What the next questions for committed offsets are answered with, as by a broker that has just come back."""
        self._past.extend(answers)

    def answered_offsets(self, group_id: str) -> Mapping[Partition, int]:
        """What a member is told that its group has committed."""
        return self._past.popleft() if self._past else self.offsets(group_id)

    def join(self, member: Member) -> None:
        """A member joins: new generation."""
        self._members[member.group_id].append(member)
        self._generations[member.group_id] += 1
        self.changed.notify_all()

    def leave(self, member: Member) -> None:
        """A member leaves or is thrown out, as after max_poll_interval_ms: new generation. It rejoins when it polls."""
        with self.changed:
            if member in self._members[member.group_id]:
                self._members[member.group_id].remove(member)
                self._generations[member.group_id] += 1
                self.changed.notify_all()

    def generation(self, group_id: str) -> int:
        """The group's current generation."""
        return self._generations[group_id]

    def has_member(self, member: Member) -> bool:
        """Whether it is in its group."""
        return member in self._members[member.group_id]

    def share_of(self, member: Member) -> frozenset[Partition]:
        """The partitions that belong to a member in the current generation."""
        members = self._members[member.group_id]
        partitions = sorted(partition for partition in self._logs if partition.topic in member.topics)
        return frozenset(partitions[members.index(member) :: len(members)])

    def store_offsets(self, membership: Membership, offsets: Mapping[Partition, int]) -> None:
        """Commits. Raises CommitRefused for a member of an old generation or none."""
        members = [id(member) for member in self._members[membership.group_id]]
        if membership.member not in members or membership.generation != self._generations[membership.group_id]:
            raise CommitRefused("the group has a new generation")
        self._offsets[membership.group_id].update(offsets)

    def new_epoch(self, transactional_id: str) -> int:
        """Makes all older producers with this id outdated."""
        self._epochs[transactional_id] += 1
        return self._epochs[transactional_id]

    def require_epoch(self, transactional_id: str, epoch: int) -> None:
        """Raises Fenced for an outdated producer."""
        if self._epochs[transactional_id] != epoch:
            raise Fenced(f"another producer uses the transactional id {transactional_id}")

    def is_too_large(self, record: Outgoing) -> bool:
        """Whether it is above max_record_bytes."""
        return len(record.value or b"") > self.max_record_bytes

    def refuse_too_large(self, records: Sequence[Outgoing]) -> None:
        """Raises RecordTooLarge naming those above max_record_bytes."""
        if refused := [record for record in records if self.is_too_large(record)]:
            raise RecordTooLarge(f"{len(refused)} records are larger than {self.max_record_bytes} bytes", refused)
