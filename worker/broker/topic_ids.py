"""Which topic of its name an offset belongs to: a deleted topic can come back with other records at the same offsets.

Every topic has an id of its own (KIP-516), also where its name was there before. A group's stored offset knows only the
name, so what is committed here carries the id, in the offset's metadata:

    read 5babe71b-a449-46f7-82ea-fa0b472a8c34     everything before this offset was handled
    start 5babe71b-a449-46f7-82ea-fa0b472a8c34    the group begins here, and has handled nothing yet
    read 5babe71b-a449-46f7-82ea-fa0b472a8c34 later   the group has read an earlier topic of this name before this one

Without metadata an offset is somebody else's, such as an operator's: it is followed. A broker before 2.8 tells no ids,
and `-` stands in their place: then an offset is taken for one of the topic that is there.
"""

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from kafka import TopicPartition
from kafka.structs import OffsetAndMetadata

from worker.broker.base import Offsets
from worker.broker.client import Connection, asked, build_consumer, quietly, translated
from worker.broker.topic_names import fitting_topics, topic_names
from worker.errors import CommitRefused, FatalError
from worker.records import Partition

_START: Final = "start"
_READ: Final = "read"
_LATER: Final = "later"
_UNKNOWN: Final = "-"
_CLOSE_S: Final = 2.0


class StoredOffset(NamedTuple):
    """An offset as the group has it stored.

    topic_id    of the topic that it was read from; None: not known
    is_start    nothing before it was handled, the group only begins there
    is_later    the group has read an earlier topic of this name
    """

    offset: int
    topic_id: str | None = None
    is_start: bool = False
    is_later: bool = False

    @classmethod
    def of(cls, answer: Any) -> "StoredOffset":
        """From the client's OffsetAndMetadata."""
        kind, *rest = (answer.metadata or "").split(" ")
        if kind not in {_READ, _START} or not rest:
            return cls(int(answer.offset))
        return cls(int(answer.offset), None if rest[0] == _UNKNOWN else rest[0], kind == _START, _LATER in rest)


class TopicIds:
    """The ids of the topics that a member reads, and which of its partitions had an earlier topic of the same name.

    by_topic   where the broker tells ids
    """

    def __init__(self) -> None:
        self.by_topic: dict[str, str] = {}
        self._renewed: set[str] = set()
        self._later: set[Partition] = set()

    def follow(self, topic: str, topic_id: str | None) -> bool:
        """Takes over what the broker says now; whether it is another topic than before."""
        known = self.by_topic.get(topic)
        if topic_id is None or topic_id == known:
            return False
        self.by_topic[topic] = topic_id
        if known is not None:
            self._renewed.add(topic)
        return known is not None

    def note_later(self, partitions: Collection[Partition]) -> None:
        """The group has read an earlier topic of their name."""
        self._later |= set(partitions)

    def is_later(self, partition: Partition) -> bool:
        """Whether the group has read an earlier topic of its name, as far as is known."""
        return partition in self._later or partition.topic in self._renewed

    def read(self, partition: Partition, answer: Any | None, topic_id: str | None) -> StoredOffset | None:
        """What the client's answer says of the topic that is there now; None where it has no offset of that one."""
        if answer is None:
            return None
        stored = StoredOffset.of(answer)
        is_other = None not in (stored.topic_id, topic_id) and stored.topic_id != topic_id
        if is_other or stored.is_later:
            self._later.add(partition)
        return None if is_other else stored

    def as_kafka_offsets(self, offsets: Offsets, *, is_start: bool = False) -> dict[Any, Any]:
        """The client's form of offsets to commit."""
        return {
            TopicPartition(*partition): OffsetAndMetadata(offset, self._metadata(partition, is_start=is_start), -1)
            for partition, offset in offsets.items()
        }

    def _metadata(self, partition: Partition, *, is_start: bool) -> str:
        words = [_START if is_start else _READ, self.by_topic.get(partition.topic, _UNKNOWN)]
        return " ".join([*words, _LATER] if self.is_later(partition) else words)


class GroupMembership(NamedTuple):
    """What a transaction carries: the client's own membership (KIP-447), and the topics that its offsets are of."""

    group: Any
    topic_ids: TopicIds


def known_topic_id(client: Any, topic: str) -> str | None:
    """What the metadata of a client says; None where it does not know the topic, or the broker no ids."""
    topic_id = client._cluster.topic_id(topic)  # noqa: SLF001  # there is no public way
    return str(topic_id) if topic_id is not None and topic_id.int else None


def refresh_metadata(client: Any, timeout_s: float) -> None:
    """Ask for the topics of a client anew. Raises BrokerUnavailable, FatalError."""
    refresh = client._cluster.refresh_metadata  # noqa: SLF001  # there is no public way
    asked(lambda: client._net.run(refresh), timeout_s, "looking up topics")  # noqa: SLF001


# Why a process looks before it joins.
#
# "latest" is for the first start of a group: what was in the topic before is none of its business. Whatever comes later
# is, partitions that are added included, so a partition without an offset always begins at its beginning. Therefore
# the ends of all partitions are stored as the group's offsets once, before there is a member. The broker takes offsets
# from outside only while the group has none: a process that comes second is refused, and its members find the offsets
# of the first one, or had started before there was a topic.


def begin_at_end(
    connection: Connection,
    topic: str,
    group_id: str,
    doubt: Callable[[Collection[Partition], Mapping[str, str]], Collection[Partition]] = lambda *_: (),
) -> Offsets:
    """Makes a group that has stored no offset begin at the end as it is now, and says where that is.

    topic   one, several or a pattern. Where the group has an offset of any of them, it has begun: another one that is
            named or created later is read from its beginning, as a new partition is
    doubt   called before, with the partitions and the topics' ids; raises where the group has a history after all, and
            says of which of them it has read an earlier topic of this name

    Empty where nothing was stored: the group has offsets or members already, or there is no such topic yet.
    Raises BrokerUnavailable, FatalError.
    """
    timeout_s, ids = connection.connect_timeout_s, TopicIds()
    with _outsider(connection, group_id) as client:
        stored = _stored(client, ids, topic, timeout_s)
        if not stored or any(stored.values()):
            return {}
        ours = [TopicPartition(*partition) for partition in stored]
        ends = asked(lambda: client.end_offsets(ours), timeout_s, "looking up offsets")
        starts = {Partition(*partition): int(offset) for partition, offset in ends.items()}
        ids.note_later(doubt(starts, ids.by_topic))
        try:
            with translated("storing where the group begins"):
                client.commit(ids.as_kafka_offsets(starts, is_start=True), timeout_ms=int(timeout_s * 1000))
        except CommitRefused:  # it has members
            return {}
        return starts


def later_topic_ids(connection: Connection, topic: str, group_id: str) -> dict[Partition, str]:
    """The id of its topic, for each partition of which the group has read an earlier topic of this name.

    Empty where the group may not be asked. Raises BrokerUnavailable.
    """
    ids = TopicIds()
    with contextlib.suppress(FatalError), _outsider(connection, group_id) as client:
        partitions = _stored(client, ids, topic, connection.connect_timeout_s)
        return {partition: ids.by_topic[partition.topic] for partition in partitions if ids.is_later(partition)}
    return {}


@contextlib.contextmanager
def _outsider(connection: Connection, group_id: str) -> Iterator[Any]:
    """A client that asks for a group's offsets and never joins it."""
    client = build_consumer(connection, group_id=group_id)
    try:
        yield client
    finally:
        quietly(lambda: client.close(autocommit=False), _CLOSE_S, "closing a client")


def _stored(client: Any, ids: TopicIds, topic: str, timeout_s: float) -> dict[Partition, StoredOffset | None]:
    """What the group has stored of each partition of the topics that are there now."""
    names = topic_names(topic) or fitting_topics(topic, asked(client.topics, timeout_s, "listing topics"))
    ours: list[TopicPartition] = []
    for name in names:
        numbers = asked(partial(client.partitions_for_topic, name), timeout_s, f"looking up {name}")
        ids.follow(name, known_topic_id(client, name))
        ours += [TopicPartition(name, number) for number in sorted(numbers)]
    fetch = client._coordinator.fetch_committed_offsets  # noqa: SLF001  # for all partitions in one round trip
    answers = asked(lambda: fetch(ours, int(timeout_s * 1000)), timeout_s, "reading committed offsets")
    return {Partition(*p): ids.read(Partition(*p), answers.get(p), ids.by_topic.get(p.topic)) for p in ours}
