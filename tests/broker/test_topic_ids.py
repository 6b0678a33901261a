"""Topics that are deleted and created again, and groups whose offsets somebody moved, on Apache Kafka."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from kafka import TopicPartition
from kafka.admin import NewPartitions
from kafka.structs import OffsetAndMetadata

from devtools.brokers import Broker, eventually, produce_values, start_broker, values_of
from devtools.worlds import next_offsets, settle, take
from worker.broker.admin import ensure_topics, topic_partitions
from worker.broker.client import Connection, admin_client
from worker.broker.consumer import GroupConsumer
from worker.broker.delivery import ExactlyOnce
from worker.broker.limits import RecordLimits
from worker.broker.producer import TransactionalKafkaProducer
from worker.broker.topic_ids import begin_at_end, later_topic_ids
from worker.errors import OffsetOutOfRange
from worker.records import Partition

pytestmark = pytest.mark.kafka


@pytest.fixture
def joined(connection: Connection) -> Iterator[Callable[..., GroupConsumer]]:
    with ExitStack() as stack:

        def join(topic: str, group: str, **options: object) -> GroupConsumer:
            consumer = GroupConsumer(connection, [topic], group, **options)  # type: ignore[arg-type]
            stack.callback(consumer.close, 1.0)
            return consumer

        yield join


def delete(connection: Connection, topic: str) -> None:
    with admin_client(connection) as admin:
        admin.delete_topics([topic])


def recreate(connection: Connection, topic: str, reader: GroupConsumer | None = None) -> None:
    """reader: a member that goes on polling."""
    delete(connection, topic)

    def is_gone() -> bool:
        if reader is not None:
            reader.poll(50, 10)
        return topic not in topic_partitions(connection)

    eventually(is_gone, 20, "it is gone")
    ensure_topics(connection, {topic: 1})


def numbers(first: int, last: int) -> list[bytes]:
    return [str(number).encode() for number in range(first, last)]


@pytest.mark.parametrize("length", [5, 10, 30])
def test_a_topic_that_was_created_again_is_read_whole_by_the_next_member(
    connection: Connection, topic: str, group: str, joined: Callable[..., GroupConsumer], length: int
) -> None:
    place = Partition(topic, 0)
    produce_values(connection, topic, numbers(0, 10))
    first = joined(topic, group)
    first.commit(next_offsets(take(first, 10)))
    earlier = first.topic_id(topic)
    recreate(connection, topic)
    produce_values(connection, topic, numbers(100, 100 + length))
    first.commit({place: 10})  # of the batch that was in the air, by a name that is another topic's now
    first.close(5)

    second = joined(topic, group)

    assert values_of(take(second, length)) == numbers(100, 100 + length)
    assert second.committed([place]) == {place: None}
    assert second.topic_id(topic) not in (None, earlier)
    assert second.is_later(place)


def test_a_topic_that_is_created_again_under_a_member_is_read_from_its_beginning(
    connection: Connection, topic: str, group: str
) -> None:
    said: list[str] = []
    consumer = GroupConsumer(connection, [topic], group, tell=said.append)
    produce_values(connection, topic, numbers(0, 10))
    consumer.commit(next_offsets(take(consumer, 10)))
    consumer.assignment_changes()
    recreate(connection, topic, consumer)
    produce_values(connection, topic, numbers(100, 130))

    assert values_of(take(consumer, 30)) == numbers(100, 130)
    assigned, revoked = consumer.assignment_changes()
    assert Partition(topic, 0) in assigned & revoked
    assert [text for text in said if "created again" in text]
    consumer.close(1)


def test_what_is_committed_says_that_there_was_an_earlier_topic(
    connection: Connection, topic: str, group: str, joined: Callable[..., GroupConsumer]
) -> None:
    place = Partition(topic, 0)
    produce_values(connection, topic, numbers(0, 3))
    first = joined(topic, group)
    first.commit(next_offsets(take(first, 3)))
    assert later_topic_ids(connection, topic, group) == {}
    recreate(connection, topic, first)
    produce_values(connection, topic, numbers(0, 3))
    records = take(first, 3)
    delivery = ExactlyOnce(first, lambda: TransactionalKafkaProducer(connection, group, RecordLimits()))
    delivery.publish([], next_offsets(records))
    delivery.close(1)

    assert later_topic_ids(connection, topic, group) == {place: first.topic_id(topic)}
    first.close(5)
    second = joined(topic, group)
    settle(second)
    assert second.committed([place]) == {place: 3}
    assert second.is_later(place)


@pytest.mark.parametrize("offset", [0, 4, 10])
def test_an_offset_that_an_operator_has_set_is_followed(
    connection: Connection, topic: str, group: str, joined: Callable[..., GroupConsumer], offset: int
) -> None:
    place = Partition(topic, 0)
    produce_values(connection, topic, numbers(0, 12))
    first = joined(topic, group)
    first.commit(next_offsets(take(first, 6)))
    first.close(5)
    with admin_client(connection) as admin:
        admin.alter_group_offsets(group, {TopicPartition(*place): OffsetAndMetadata(offset, "", -1)})

    second = joined(topic, group)

    assert values_of(take(second, 12 - offset)) == numbers(offset, 12)
    assert second.committed([place]) == {place: offset}


def test_an_offset_beyond_the_end_goes_on_at_the_end_and_says_so(
    connection: Connection, topic: str, group: str
) -> None:
    said: list[str] = []
    produce_values(connection, topic, numbers(0, 5))
    with admin_client(connection) as admin:
        admin.alter_group_offsets(group, {TopicPartition(topic, 0): OffsetAndMetadata(500, "", -1)})
    consumer = GroupConsumer(connection, [topic], group, tell=said.append)
    eventually(lambda: not consumer.poll(100, 10) and bool(said), 20, "it says so")
    produce_values(connection, topic, numbers(5, 8))

    assert values_of(take(consumer, 3)) == numbers(5, 8)
    assert said == [f"{topic}[0] ends at offset 5, though 500 was to be read next: it goes on there"]
    consumer.close(1)


def test_an_offset_whose_records_were_deleted_still_stops(
    connection: Connection, topic: str, group: str, joined: Callable[..., GroupConsumer]
) -> None:
    produce_values(connection, topic, numbers(0, 10))
    first = joined(topic, group)
    first.commit(next_offsets(take(first, 3)))
    first.close(5)
    with admin_client(connection) as admin:
        admin.delete_records({TopicPartition(topic, 0): 8})

    with pytest.raises(OffsetOutOfRange, match=rf"{topic}\[0\] at 3"):
        take(joined(topic, group), 1)


def test_where_a_group_begins_is_fixed_once(
    connection: Connection, make_topic: Callable[[int], str], group: str, joined: Callable[..., GroupConsumer]
) -> None:
    topic = make_topic(2)
    produce_values(connection, topic, numbers(0, 10))

    starts = begin_at_end(connection, topic, group)
    produce_values(connection, topic, numbers(10, 20))
    again = begin_at_end(connection, topic, group)

    assert sum(starts.values()) == 10
    assert again == {}
    with admin_client(connection) as admin:
        admin.create_partitions({topic: NewPartitions(4)})
    consumer = joined(topic, group)
    eventually(lambda: len(settle(consumer)) == 4, 60, "it has the new partitions")
    places = consumer.assignment()
    assert set(consumer.committed(places).values()) == {None}
    assert consumer.begin(places) == {**starts, Partition(topic, 2): 0, Partition(topic, 3): 0}


def test_a_group_with_members_begins_at_its_beginning(
    connection: Connection, topic: str, group: str, joined: Callable[..., GroupConsumer]
) -> None:
    produce_values(connection, topic, numbers(0, 3))
    settle(joined(topic, group))

    assert begin_at_end(connection, topic, group) == {}
    assert begin_at_end(connection, "no-such-topic", f"{group}-other") == {}


@pytest.fixture(scope="module")
def eager_broker() -> Iterator[Broker]:
    """A broker that creates topics on request."""
    broker = start_broker({"auto.create.topics.enable": "true"})
    yield broker
    broker.close()


def test_a_deleted_topic_does_not_come_back_by_being_read(eager_broker: Broker) -> None:
    link = Connection(eager_broker.bootstrap_servers, options={"metadata_max_age_ms": 300, "session_timeout_ms": 6000})
    ensure_topics(link, {"in": 3})
    consumer = GroupConsumer(link, ["in"], "group")
    settle(consumer)
    delete(link, "in")
    eventually(lambda: not consumer.poll(100, 10) and consumer.missing_topics() == ["in"], 30, "it is missed")

    assert "in" not in topic_partitions(link)
    assert consumer.partition_count("in") == 0
    ensure_topics(link, {"in": 3})
    consumer.resume(consumer.assignment())
    eventually(lambda: not consumer.poll(100, 10) and len(consumer.assignment()) == 3, 30, "it is read again")
    assert consumer.missing_topics() == []
    consumer.close(1)
