"""What can't be read on Apache Kafka: in logs that were changed on its disk, and in names that other clients send."""

from collections.abc import Callable

import kafka
import pytest

from devtools.brokers import ApacheBroker, Broker, eventually, produce, produce_values, read_all, values_of
from devtools.record_batches import spoil
from worker.broker.base import Unreadable
from worker.broker.client import Connection
from worker.broker.consumer import GroupConsumer
from worker.broker.ranges import TopicReader
from worker.broker.record_batch import HeaderName
from worker.errors import FatalError
from worker.records import Outgoing, Partition, RawMessage, UnreadableValue

VALUES = [b"%d" % number * 50 for number in range(6)]
ATTRIBUTES, CRC, BODY = 21, 17, 61

TAMPERED: dict[str, tuple[int, bytes, bool]] = {  # position in the second batch, what stands there, with its checksum
    "a flipped byte": (BODY + 20, b"\x7f", False),
    "a flipped checksum": (CRC, b"\0\0\0\1", False),
    "an unknown codec": (ATTRIBUTES, b"\0\x07", True),
    "garbage that is said to be gzip": (ATTRIBUTES, b"\0\x01", True),
    "a length of nothing": (BODY, b"\0", True),
    "a negative length": (BODY, b"\x03", True),
    "a value that is said to be short": (BODY + 6, b"\x02", True),
    "an unknown format": (16, b"\x05", False),
    "a first offset far ahead": (7, b"\x63", True),
    "a first offset that was there before": (7, b"\x02", True),
}
LOST: dict[str, tuple[int, bytes]] = {  # from here on the broker can't read its log itself
    "a length of nothing": (8, b"\0\0\0\0"),
    "a length below 0": (8, b"\xff\xff\xff\xf0"),
    "a length of less than a head": (8, b"\0\0\0\x14"),
}


def put(raw: bytes, position: int) -> Callable[[bytearray], None]:
    def edit(batch: bytearray) -> None:
        batch[position : position + len(raw)] = raw

    return edit


def produce_batches(connection: Connection, topic: str, partitions: int, times: int) -> None:
    """So many record batches in each partition; each holds all VALUES."""
    producer = kafka.KafkaProducer(bootstrap_servers=connection.bootstrap_servers, linger_ms=60_000)
    for _ in range(times):
        for partition in range(partitions):
            for value in VALUES:
                producer.send(topic, value, b"k", partition=partition)
        producer.flush(60)
    producer.close()


@pytest.fixture
def tampered(connection: Connection, make_topic: Callable[[int], str], kafka_broker: Broker) -> str:
    """A topic with three record batches in each partition; the second one is spoilt, each in another way."""
    assert isinstance(kafka_broker, ApacheBroker)
    topic = make_topic(len(TAMPERED))
    produce_batches(connection, topic, len(TAMPERED), 3)
    for partition, (position, raw, checksum) in enumerate(TAMPERED.values()):
        spoil(kafka_broker.log_file(topic, partition), put(raw, position), checksum=checksum)
    return topic


def require_each_once(topic: str, records: list[RawMessage], unreadable: list[Unreadable]) -> None:
    for number, name in enumerate(TAMPERED):
        mine = [record for record in records if record.partition == number]
        sound = [record.offset for record in mine if not isinstance(record.value, UnreadableValue)]
        named = [place for place in unreadable if place.partition == Partition(topic, number)]
        offsets = [offset for place in named for offset in range(place.first_offset, place.last_offset + 1)]
        assert sorted([*(record.offset for record in mine), *offsets]) == [*range(18)], name
        assert set(sound) >= {0, 1, 2, 3, 4, 5, 12, 13, 14, 15, 16, 17}, name
        assert len(sound) < 18, name


@pytest.mark.kafka
def test_a_group_reads_past_what_it_cannot_read_and_its_neighbours_stay(
    connection: Connection, tampered: str, group: str
) -> None:
    consumer = GroupConsumer(connection, [tampered], group)
    records: list[RawMessage] = []
    unreadable: list[Unreadable] = []

    def at_the_end() -> bool:
        records.extend(record for part in consumer.poll(100, 1000).values() for record in part)
        unreadable.extend(consumer.unreadable())
        positions = consumer.positions()
        return len(positions) == len(TAMPERED) and set(positions.values()) == {18}

    eventually(at_the_end, 60, "all partitions read to their end")
    consumer.close(1)
    require_each_once(tampered, records, unreadable)


@pytest.mark.kafka
def test_where_the_broker_cannot_read_its_log_each_offset_is_named_and_the_reading_goes_on(
    connection: Connection, make_topic: Callable[[int], str], group: str, kafka_broker: Broker
) -> None:
    assert isinstance(kafka_broker, ApacheBroker)
    topic = make_topic(len(LOST))
    produce_batches(connection, topic, len(LOST), 2)
    for partition, (position, raw) in enumerate(LOST.values()):
        spoil(kafka_broker.log_file(topic, partition), put(raw, position), checksum=False)
    consumer = GroupConsumer(connection, [topic], group)
    records: list[RawMessage] = []
    unreadable: list[Unreadable] = []

    def at_the_end() -> bool:
        records.extend(record for part in consumer.poll(100, 1000).values() for record in part)
        unreadable.extend(consumer.unreadable())
        return [*consumer.positions().values()] == [12] * len(LOST)

    eventually(at_the_end, 60, "all partitions read to their end")
    consumer.close(1)
    for number, name in enumerate(LOST):
        named = [place for place in unreadable if place.partition.partition == number]
        offsets = [offset for place in named for offset in range(place.first_offset, place.last_offset + 1)]
        assert [record.offset for record in records if record.partition == number] == [0, 1, 2, 3, 4, 5], name
        assert offsets == [6, 7, 8, 9, 10, 11], name


@pytest.mark.kafka
def test_a_range_reads_past_what_it_cannot_read(connection: Connection, tampered: str) -> None:
    reader = TopicReader(connection)
    bounds = {partition: (0, end) for partition, end in reader.end_offsets(tampered).items()}

    records = [record for batch in reader.read(bounds) for record in batch]

    require_each_once(tampered, records, list(reader.unreadable()))
    reader.close(1)


@pytest.mark.kafka
def test_where_nothing_may_be_passed_over_the_place_is_named(connection: Connection, tampered: str) -> None:
    strict = Connection(connection.bootstrap_servers, options=connection.options, unreadable="stop")
    reader = TopicReader(strict)
    partition = Partition(tampered, [*TAMPERED].index("an unknown codec"))

    with pytest.raises(FatalError, match=rf"offsets 6 to 11 of {tampered}\[2\] can't be read: its codec 7 is unknown"):
        list(reader.read({partition: (0, 18)}))

    reader.close(1)


@pytest.mark.broker
@pytest.mark.parametrize("raw", [b"\xff\xfe\xfd", b"\x80", b"ok-\xc3", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\0"])
def test_a_header_name_of_any_bytes_is_read_and_published_as_it_was(
    connection: Connection, make_topic: Callable[[int], str], topic: str, raw: bytes
) -> None:
    produce(connection, [Outgoing(topic, None, b"v", ((HeaderName(raw), b"1"), ("plain", b"2")))])
    other = make_topic(1)

    first = read_all(connection, topic)[0]
    produce(connection, [Outgoing(other, first.key, first.value, first.headers)])

    again = read_all(connection, other)[0]
    assert [name.encode() for name, _ in again.headers] == [raw, b"plain"]
    assert again.value == b"v"


@pytest.mark.kafka
@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_every_codec_of_kafka_is_read(connection: Connection, topic: str, codec: str) -> None:
    values = [str(number).encode() * 1000 for number in range(300)]
    producer = kafka.KafkaProducer(
        bootstrap_servers=connection.bootstrap_servers, compression_type=codec, linger_ms=50, batch_size=1 << 20
    )
    for value in values:
        producer.send(topic, value)
    producer.flush()
    producer.close()

    assert values_of(read_all(connection, topic)) == values


@pytest.mark.broker
def test_a_poll_is_bounded_in_bytes(connection: Connection, topic: str, group: str) -> None:
    produce_values(connection, topic, [bytes(300_000)] * 40)
    consumer = GroupConsumer(connection, [topic], group)
    sizes: list[int] = []
    seen: list[RawMessage] = []

    def all_read() -> bool:
        records = [record for part in consumer.poll(200, 8192, 1 << 20).values() for record in part]
        sizes.append(sum(len(record.value or b"") for record in records))
        assert consumer.polled_bytes() >= sizes[-1]
        seen.extend(records)
        return len(seen) == 40

    eventually(all_read, 60, "40 records")
    consumer.close(1)
    assert max(sizes) <= 2 << 20
