"""Exactly once on Apache Kafka: what the broker fences, hides and lets go of."""

import os
import signal
import subprocess
import sys

import pytest

from devtools.brokers import produce_values, read_all, values_of
from devtools.worlds import next_offsets, take
from worker.broker.admin import ensure_topics
from worker.broker.client import Connection
from worker.broker.consumer import GroupConsumer
from worker.broker.delivery import AtLeastOnce, ExactlyOnce
from worker.broker.producer import AcknowledgedProducer, TransactionalKafkaProducer
from worker.broker.ranges import TopicReader
from worker.errors import Fenced, RecordTooLarge
from worker.records import Outgoing, Partition

pytestmark = pytest.mark.kafka

# Publishes inside a transaction, with its offsets, and then waits to be killed.
OPEN_TRANSACTION = """
import sys
from kafka import KafkaProducer, TopicPartition
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata
bootstrap, topic, out, group, transactional_id = sys.argv[1:]
producer = KafkaProducer(bootstrap_servers=bootstrap, transactional_id=transactional_id)
producer.init_transactions()
producer.begin_transaction()
producer.send(out, b"never").get(10)
offsets = {TopicPartition(topic, 0): OffsetAndMetadata(1, "", -1)}
producer.send_offsets_to_transaction(offsets, ConsumerGroupMetadata(group_id=group))
print("open", flush=True)
sys.stdin.read()
"""


def transactional(connection: Connection, transactional_id: str) -> TransactionalKafkaProducer:
    return TransactionalKafkaProducer(connection, transactional_id, timeout_s=10)


def test_the_second_producer_with_an_id_fences_the_first(connection: Connection, topic: str, group: str) -> None:
    produce_values(connection, topic, [b"0", b"1"])
    consumer = GroupConsumer(connection, [topic], group, read_committed=True)
    first = ExactlyOnce(consumer, lambda: transactional(connection, group))
    second = ExactlyOnce(consumer, lambda: transactional(connection, group))
    records = take(consumer, 2)
    first.publish([], next_offsets(records[:1]))
    second.open()

    with pytest.raises(Fenced):
        first.publish([Outgoing(topic, None, b"zombie")], next_offsets(records))

    assert consumer.committed([Partition(topic, 0)]) == {Partition(topic, 0): 1}
    assert values_of(read_all(connection, topic, read_committed=True)) == [b"0", b"1"]
    for client in (first, second, consumer):
        client.close(1)


def test_opening_ends_what_a_killed_predecessor_left_open(connection: Connection, topic: str, group: str) -> None:
    out = f"{topic}-out"
    ensure_topics(connection, {out: 1})
    produce_values(connection, topic, [b"0", b"1"])
    command = [sys.executable, "-c", OPEN_TRANSACTION, connection.bootstrap_servers, topic, out, group, group]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as predecessor:
        assert predecessor.stdout is not None
        assert predecessor.stdout.readline() == b"open\n"
        os.kill(predecessor.pid, signal.SIGKILL)

    consumer = GroupConsumer(connection, [topic], group, read_committed=True)
    delivery = ExactlyOnce(consumer, lambda: transactional(connection, group))
    delivery.open()
    records = take(consumer, 2, timeout_s=8)  # the transaction itself would time out after 60 s
    delivery.publish([Outgoing(out, None, record.value) for record in records], next_offsets(records))

    assert values_of(read_all(connection, out, read_committed=True)) == [b"0", b"1"]
    assert values_of(read_all(connection, out)) == [b"never", b"0", b"1"]
    consumer.close(1)
    delivery.close(1)


def test_a_range_ends_behind_transaction_markers(connection: Connection, topic: str, group: str) -> None:
    out = f"{topic}-out"
    ensure_topics(connection, {out: 1})
    produce_values(connection, topic, [b"0", b"1", b"2"])
    consumer = GroupConsumer(connection, [topic], group, read_committed=True)
    delivery = ExactlyOnce(consumer, lambda: transactional(connection, group))
    for record in take(consumer, 3):
        delivery.publish([Outgoing(out, None, record.value)], next_offsets([record]))

    reader = TopicReader(connection, timeout_s=10)
    assert reader.end_offsets(out) == {Partition(out, 0): 6}
    assert values_of(read_all(connection, out)) == [b"0", b"1", b"2"]
    assert values_of(reader.latest(out, 2)) == [b"2"]
    for client in (reader, consumer, delivery):
        client.close(1)


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_a_record_that_only_the_broker_refuses_is_named(
    connection: Connection, topic: str, group: str, guarantee: str
) -> None:
    out = f"{topic}-{guarantee}"
    ensure_topics(connection, {out: 1}, configs={"max.message.bytes": "10000"})
    produce_values(connection, topic, [b"0"])
    consumer = GroupConsumer(connection, [topic], group, read_committed=True)
    delivery: AtLeastOnce | ExactlyOnce = (
        AtLeastOnce(consumer, lambda: AcknowledgedProducer(connection))
        if guarantee == "at_least_once"
        else ExactlyOnce(consumer, lambda: transactional(connection, group))
    )
    offsets = next_offsets(take(consumer, 1))
    small = [Outgoing(out, None, b"%d" % number) for number in range(3)]
    large = Outgoing(out, None, b"x" * 20_000)

    with pytest.raises(RecordTooLarge) as caught:
        delivery.publish([*small[:2], large, small[2]], offsets)

    assert caught.value.records == (large,)
    assert consumer.committed([Partition(topic, 0)]) == {Partition(topic, 0): None}
    short = Outgoing(out, None, b"short")
    delivery.publish([*small[:2], short, small[2]], offsets)
    published = values_of(read_all(connection, out, read_committed=True))
    assert published[-4:] == [b"0", b"1", b"short", b"2"]
    assert guarantee == "at_least_once" or len(published) == 4
    consumer.close(1)
    delivery.close(1)


def test_small_records_of_one_large_batch_all_arrive(connection: Connection, topic: str) -> None:
    out = f"{topic}-small"
    ensure_topics(connection, {out: 1}, configs={"max.message.bytes": "10000"})
    values = [b"%04d" % number * 100 for number in range(500)]

    produce_values(connection, out, values)  # the broker refuses batches of 256 KiB; the client splits them

    assert sorted(value or b"" for value in values_of(read_all(connection, out))) == values
