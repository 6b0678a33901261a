"""What is committed follows the position: lag reaches 0 on any input, also where no record comes any more."""

from collections.abc import Iterator
from contextlib import closing

import kafka
import pytest

from devtools import traffic
from devtools.brokers import ApacheBroker, Broker
from devtools.kafka_stage import KafkaStage, step_until
from devtools.record_batches import spoil
from devtools.stage import Guarantee
from worker.broker.client import Connection
from worker.broker.ranges import TopicReader
from worker.records import Message, Partition

pytestmark = [pytest.mark.broker, pytest.mark.kafka]


@pytest.fixture(params=["at_least_once", "exactly_once"])
def stage(request: pytest.FixtureRequest, connection: Connection, group: str) -> Iterator[KafkaStage]:
    guarantee: Guarantee = request.param
    stage = KafkaStage(connection, group, guarantee, "range")
    with closing(stage.open):
        yield stage


def in_transaction(stage: KafkaStage, messages: list[Message], *, commit: bool) -> None:
    producer = kafka.KafkaProducer(
        bootstrap_servers=stage.connection.bootstrap_servers, transactional_id=f"{stage.input}-writer"
    )
    producer.init_transactions()
    producer.begin_transaction()
    for message in messages:
        producer.send(stage.input, message.value, message.key, partition=message.partition)
    (producer.commit_transaction if commit else producer.abort_transaction)()
    producer.close()


def is_at_the_end(stage: KafkaStage) -> bool:
    reader = TopicReader(stage.connection)
    ends = {partition: end for partition, end in reader.end_offsets(stage.input).items() if end}
    reader.close(1)
    return stage.watcher.committed(ends) == ends


def test_behind_a_marker_and_behind_aborted_records_the_lag_is_0_and_the_threshold_goes_on(stage: KafkaStage) -> None:
    messages = traffic.messages(400, partitions=4)
    in_transaction(stage, messages[:200], commit=True)
    first = stage.worker()
    step_until([first], lambda: is_at_the_end(stage), "committed behind the markers")

    in_transaction(stage, messages[200:240], commit=False)
    step_until([first], lambda: is_at_the_end(stage), "committed behind the aborted records")
    first.die()
    in_transaction(stage, messages[240:], commit=True)
    second = stage.worker()
    step_until([second], lambda: is_at_the_end(stage), "committed by the next owner")

    assert second.seen.rebuilt == {}
    assert len(second.seen.restored) == 4
    assert set(second.consumer.lag().values()) == {0}


def test_an_input_that_holds_only_aborted_records_has_no_lag(stage: KafkaStage) -> None:
    in_transaction(stage, traffic.messages(40, partitions=4), commit=False)

    step_until([stage.worker()], lambda: is_at_the_end(stage), "committed behind what was aborted")


def test_behind_what_cannot_be_read_the_lag_is_0(stage: KafkaStage, kafka_broker: Broker) -> None:
    assert isinstance(kafka_broker, ApacheBroker)
    for _ in range(2):
        stage.feed([message for message in traffic.messages(40, partitions=4) if message.partition == 0])

    def use_unknown_codec(batch: bytearray) -> None:
        batch[22] = 7  # an unknown codec

    spoil(kafka_broker.log_file(stage.input), use_unknown_codec)
    worker = stage.worker()

    step_until([worker], lambda: is_at_the_end(stage), "committed behind the broken batch")

    places = [place for place in worker.seen.passed_over if place.partition == Partition(stage.input, 0)]
    assert [(place.first_offset, place.last_offset) for place in places] == [(10, 19)]
    assert len(stage.published("scores")) == 10
