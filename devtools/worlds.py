"""One way to use the in-memory broker and a real one, so that one contract test covers both."""

import itertools
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Literal, Protocol

from kafka import TopicPartition
from kafka.admin import MemberToRemove

from devtools.brokers import eventually, produce
from devtools.memory_broker import MemoryBroker
from devtools.memory_clients import MemoryConsumer, MemoryProducer, MemoryReader, MemoryTransactionalProducer
from worker.broker.admin import ensure_topics
from worker.broker.base import Consumer, Delivery, RangeReader
from worker.broker.client import Connection, admin_client
from worker.broker.consumer import GroupConsumer
from worker.broker.delivery import AtLeastOnce, ExactlyOnce
from worker.broker.producer import AcknowledgedProducer, TransactionalKafkaProducer
from worker.broker.ranges import TopicReader
from worker.broker.topic_ids import begin_at_end
from worker.records import Outgoing, Partition, RawMessage

Guarantee = Literal["at_least_once", "exactly_once"]
LIMIT_BYTES = 100_000

_numbers = itertools.count()


class World(Protocol):
    """A broker with its clients. Values above LIMIT_BYTES are too large."""

    fences_stale_members: bool

    def topic(self, partitions: int = 1) -> str: ...
    def group(self) -> str: ...
    def append(self, records: Sequence[Outgoing]) -> None: ...
    def consumer(self, topic: str, group: str, **options: Any) -> Consumer: ...
    def delivery(self, guarantee: Guarantee, consumer: Consumer, transactional_id: str = "worker-0") -> Delivery: ...
    def reader(self) -> RangeReader: ...
    def begin_at_end(self, topic: str, group: str) -> None:
        """A group without offsets begins at the topic's end as it is now."""

    def expel(self, consumer: Consumer, group: str) -> None:
        """Throws the member out of its group."""

    def delete_before(self, partition: Partition, offset: int) -> None:
        """What retention does."""

    def close(self) -> None: ...


class MemoryWorld:
    fences_stale_members = True

    def __init__(self) -> None:
        self.broker = MemoryBroker({}, max_record_bytes=LIMIT_BYTES)

    def topic(self, partitions: int = 1) -> str:
        name = f"contract-{next(_numbers)}"
        self.broker.create_topic(name, partitions)
        return name

    def group(self) -> str:
        return f"group-{next(_numbers)}"

    def append(self, records: Sequence[Outgoing]) -> None:
        self.broker.append(records)

    def consumer(self, topic: str, group: str, **options: Any) -> Consumer:
        options.pop("read_committed", None)
        return MemoryConsumer(self.broker, [topic], group, **options)

    def delivery(self, guarantee: Guarantee, consumer: Consumer, transactional_id: str = "worker-0") -> Delivery:
        if guarantee == "at_least_once":
            return AtLeastOnce(consumer, lambda: MemoryProducer(self.broker))
        return ExactlyOnce(consumer, lambda: MemoryTransactionalProducer(self.broker, transactional_id))

    def reader(self) -> RangeReader:
        return MemoryReader(self.broker)

    def begin_at_end(self, topic: str, group: str) -> None:
        self.broker.begin_at_end(topic, group)

    def expel(self, consumer: Consumer, group: str) -> None:
        assert isinstance(consumer, MemoryConsumer)
        assert consumer.group_id == group
        self.broker.leave(consumer)

    def delete_before(self, partition: Partition, offset: int) -> None:
        self.broker.delete_before(partition, offset)

    def close(self) -> None:
        pass


class KafkaWorld:
    def __init__(self, connection: Connection, *, fences_stale_members: bool) -> None:
        self.fences_stale_members = fences_stale_members
        self.connection = connection
        self._open = ExitStack()

    def topic(self, partitions: int = 1) -> str:
        name = f"contract-{next(_numbers)}"
        ensure_topics(self.connection, {name: partitions})
        return name

    def group(self) -> str:
        return f"group-{next(_numbers)}"

    def append(self, records: Sequence[Outgoing]) -> None:
        produce(self.connection, records)

    def consumer(self, topic: str, group: str, **options: Any) -> Consumer:
        consumer = GroupConsumer(self.connection, [topic], group, **options)
        self._open.callback(consumer.close, 2.0)
        return consumer

    def delivery(self, guarantee: Guarantee, consumer: Consumer, transactional_id: str = "worker-0") -> Delivery:
        delivery: Delivery
        if guarantee == "at_least_once":
            delivery = AtLeastOnce(
                consumer, lambda: AcknowledgedProducer(self.connection, max_request_size=LIMIT_BYTES)
            )
        else:
            delivery = ExactlyOnce(
                consumer,
                lambda: TransactionalKafkaProducer(self.connection, transactional_id, max_request_size=LIMIT_BYTES),
            )
        self._open.callback(delivery.close, 1.0)
        return delivery

    def reader(self) -> RangeReader:
        reader = TopicReader(self.connection)
        self._open.callback(reader.close, 1.0)
        return reader

    def begin_at_end(self, topic: str, group: str) -> None:
        begin_at_end(self.connection, topic, group)

    def expel(self, consumer: Consumer, group: str) -> None:
        assert isinstance(consumer, GroupConsumer)
        member = consumer.membership().group.member_id
        with admin_client(self.connection) as admin:
            admin.remove_group_members(group, [MemberToRemove(member_id=member)])

    def delete_before(self, partition: Partition, offset: int) -> None:
        with admin_client(self.connection) as admin:
            admin.delete_records({TopicPartition(*partition): offset})

    def close(self) -> None:
        self._open.close()


def numbered(topic: str, count: int, key: bytes | None = None, first: int = 0) -> list[Outgoing]:
    """Records whose values are b"0", b"1", ..."""
    return [Outgoing(topic, key, str(number).encode()) for number in range(first, first + count)]


def take(consumer: Consumer, count: int, timeout_s: float = 30.0) -> list[RawMessage]:
    """Polls until it has so many records; fails when they don't come."""
    records: list[RawMessage] = []

    def has_all() -> bool:
        for batch in consumer.poll(100, count - len(records)).values():
            records.extend(batch)
        return len(records) >= count

    eventually(has_all, timeout_s, f"{count} records")
    return records


def settle(consumer: Consumer, timeout_s: float = 30.0) -> frozenset[Partition]:
    """Polls until the member has an assignment; its partitions are paused then, and none of their records is passed."""

    def assigned() -> bool:
        consumer.pause(consumer.assignment())
        polled = consumer.poll(50, 1)
        consumer.pause(consumer.assignment())
        consumer.seek({partition: records[0].offset for partition, records in polled.items()})
        return bool(consumer.assignment()) and consumer.is_member()

    eventually(assigned, timeout_s, "an assignment")
    return consumer.assignment()


def whole(world: World, topic: str) -> list[RawMessage]:
    """Everything in a topic."""
    reader = world.reader()
    bounds = {partition: (0, end) for partition, end in reader.end_offsets(topic).items()}
    return [record for batch in reader.read(bounds) for record in batch]


def next_offsets(records: Sequence[RawMessage]) -> dict[Partition, int]:
    """What to commit once these are done."""
    return {Partition(record.topic, record.partition): record.offset + 1 for record in records}
