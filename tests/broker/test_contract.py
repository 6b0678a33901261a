"""What every broker promises, the in-memory one and the real one alike."""

from collections.abc import Iterator

import pytest

from devtools.brokers import Broker, eventually, values_of
from devtools.worlds import (
    LIMIT_BYTES,
    Guarantee,
    KafkaWorld,
    MemoryWorld,
    World,
    next_offsets,
    numbered,
    settle,
    take,
    whole,
)
from worker.broker.base import AssignmentChanges
from worker.broker.client import Connection
from worker.errors import CommitRefused, MissingTopic, OffsetOutOfRange, RecordTooLarge
from worker.records import Outgoing, Partition


@pytest.fixture(params=["memory", pytest.param("broker", marks=pytest.mark.broker)])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    world: World
    if request.param == "memory":
        world = MemoryWorld()
    else:
        broker: Broker = request.getfixturevalue("kafka_broker")
        connection: Connection = request.getfixturevalue("connection")
        world = KafkaWorld(connection, fences_stale_members=broker.kind == "apache")
    yield world
    world.close()


@pytest.fixture(params=["at_least_once", "exactly_once"])
def guarantee(request: pytest.FixtureRequest) -> Guarantee:
    return request.param  # type: ignore[no-any-return]


def test_records_arrive_in_offset_order_with_all_their_parts(world: World) -> None:
    topic = world.topic()
    world.append([Outgoing(topic, b"k", b"v", (("name", b"header"), ("empty", b"")))])
    world.append(numbered(topic, 99))

    records = take(world.consumer(topic, world.group()), 100)

    first = records[0]
    assert (first.topic, first.partition, first.offset, first.key, first.value) == (topic, 0, 0, b"k", b"v")
    assert list(first.headers) == [("name", b"header"), ("empty", b"")]
    assert first.timestamp > 0
    assert [record.offset for record in records] == list(range(100))


def test_a_poll_returns_no_more_records_than_asked_for(world: World) -> None:
    topic = world.topic(2)
    world.append(numbered(topic, 100))
    consumer = world.consumer(topic, world.group())
    sizes: list[int] = []

    def read_everything() -> bool:
        sizes.append(sum(len(batch) for batch in consumer.poll(100, 7).values()))
        return sum(sizes) == 100

    eventually(read_everything, 30, "100 records")
    assert max(sizes) == 7


def test_a_new_group_begins_at_the_oldest_record_or_at_the_end(world: World) -> None:
    topic = world.topic()
    world.append(numbered(topic, 3))
    group = world.group()
    world.begin_at_end(topic, group)
    latest = world.consumer(topic, group)
    eventually(lambda: not latest.poll(50, 10) and bool(latest.positions()), 30, "a position at the end")
    world.append(numbered(topic, 1, first=3))

    assert values_of(take(latest, 1)) == [b"3"]
    assert values_of(take(world.consumer(topic, world.group()), 4)) == [b"0", b"1", b"2", b"3"]


def test_a_change_of_partitions_is_reported_once(world: World) -> None:
    topic = world.topic(2)
    consumer = world.consumer(topic, world.group())
    partitions = settle(consumer)

    assert partitions == {Partition(topic, 0), Partition(topic, 1)}
    assert consumer.assignment_changes() == (partitions, frozenset())
    assert consumer.assignment_changes() == (frozenset(), frozenset())


def test_a_second_member_takes_over_half_of_the_partitions(world: World) -> None:
    topic, group = world.topic(2), world.group()
    first = world.consumer(topic, group)
    settle(first)
    first.assignment_changes()
    second = world.consumer(topic, group)

    def shared() -> bool:
        first.poll(20, 1)
        second.poll(20, 1)
        return len(first.assignment()) == 1 and len(second.assignment()) == 1

    eventually(shared, 30, "both have one partition")
    assigned, revoked = first.assignment_changes()
    assert first.assignment() | second.assignment() == {Partition(topic, 0), Partition(topic, 1)}
    assert second.assignment() <= revoked
    assert assigned == first.assignment()


def test_paused_partitions_return_nothing_until_they_are_resumed(world: World) -> None:
    topic = world.topic()
    consumer = world.consumer(topic, world.group())
    partitions = settle(consumer)
    world.append(numbered(topic, 1))

    assert not consumer.poll(300, 10)
    assert consumer.is_member()
    consumer.resume([*partitions, Partition("not assigned", 0)])
    assert values_of(take(consumer, 1)) == [b"0"]


def test_a_seek_reads_records_again(world: World) -> None:
    topic = world.topic()
    world.append(numbered(topic, 10))
    consumer = world.consumer(topic, world.group())
    take(consumer, 10)
    consumer.seek({Partition(topic, 0): 4, Partition("not assigned", 0): 1})

    assert values_of(take(consumer, 6)) == [b"4", b"5", b"6", b"7", b"8", b"9"]


def test_the_lag_is_the_distance_to_the_end(world: World) -> None:
    topic = world.topic()
    world.append(numbered(topic, 10))
    consumer = world.consumer(topic, world.group())
    take(consumer, 4)

    assert consumer.positions() == {Partition(topic, 0): 4}
    assert consumer.lag() == {Partition(topic, 0): 6}


def test_published_records_and_offsets_are_both_there(world: World, guarantee: Guarantee) -> None:
    topic, out, group = world.topic(), world.topic(), world.group()
    world.append(numbered(topic, 5))
    consumer = world.consumer(topic, group, read_committed=True)
    delivery = world.delivery(guarantee, consumer)
    delivery.open()

    delivery.publish(numbered(out, 3), next_offsets(take(consumer, 4)))

    assert values_of(whole(world, out)) == [b"0", b"1", b"2"]
    assert consumer.committed([Partition(topic, 0)]) == {Partition(topic, 0): 4}
    consumer.close(5.0)
    assert values_of(take(world.consumer(topic, group, read_committed=True), 1)) == [b"4"]


def test_offsets_are_committed_when_there_is_nothing_to_publish(world: World, guarantee: Guarantee) -> None:
    topic = world.topic()
    world.append(numbered(topic, 2))
    consumer = world.consumer(topic, world.group(), read_committed=True)

    world.delivery(guarantee, consumer).publish([], next_offsets(take(consumer, 2)))

    assert consumer.committed([Partition(topic, 0)]) == {Partition(topic, 0): 2}


def test_an_oversized_record_is_named_and_nothing_is_committed(world: World, guarantee: Guarantee) -> None:
    topic, out = world.topic(), world.topic()
    world.append(numbered(topic, 1))
    consumer = world.consumer(topic, world.group(), read_committed=True)
    delivery = world.delivery(guarantee, consumer)
    offsets = next_offsets(take(consumer, 1))
    good, large = Outgoing(out, None, b"good"), Outgoing(out, None, b"x" * (LIMIT_BYTES + 1))

    with pytest.raises(RecordTooLarge) as caught:
        delivery.publish([good, large], offsets)

    assert caught.value.records == (large,)
    assert consumer.committed([Partition(topic, 0)]) == {Partition(topic, 0): None}
    delivery.publish([good, Outgoing(out, None, b"short")], offsets)
    assert values_of(whole(world, out))[-2:] == [b"good", b"short"]
    assert consumer.committed([Partition(topic, 0)]) == {Partition(topic, 0): 1}


def test_a_stale_member_can_not_commit(world: World, guarantee: Guarantee) -> None:
    if not world.fences_stale_members:
        pytest.skip("the embedded broker does not fence stale members")
    topic, out, group = world.topic(), world.topic(), world.group()
    world.append(numbered(topic, 1))
    consumer = world.consumer(topic, group, read_committed=True)
    offsets = next_offsets(take(consumer, 1))
    delivery = world.delivery(guarantee, consumer)
    world.expel(consumer, group)

    with pytest.raises(CommitRefused):
        delivery.publish([Outgoing(out, None, b"late")], offsets)

    assert consumer.committed([Partition(topic, 0)]) == {Partition(topic, 0): None}


def test_a_stale_member_joins_again_when_it_polls(world: World, guarantee: Guarantee) -> None:
    if not world.fences_stale_members:
        pytest.skip("the embedded broker does not fence stale members")
    topic, out, group = world.topic(), world.topic(), world.group()
    world.append(numbered(topic, 1))
    consumer = world.consumer(topic, group, read_committed=True)
    delivery = world.delivery(guarantee, consumer)
    take(consumer, 1)
    consumer.assignment_changes()
    world.expel(consumer, group)
    eventually(lambda: not consumer.is_member(), 10, "the member notices")

    again = take(consumer, 1)
    assert consumer.assignment_changes() == AssignmentChanges(
        frozenset({Partition(topic, 0)}), frozenset({Partition(topic, 0)})
    )
    delivery.publish([Outgoing(out, None, b"in time")], next_offsets(again))
    assert consumer.committed([Partition(topic, 0)]) == {Partition(topic, 0): 1}
    assert b"in time" in values_of(whole(world, out))


def test_a_deleted_committed_offset_is_an_operators_decision(world: World) -> None:
    if not world.fences_stale_members:
        pytest.skip("the embedded broker does not report offsets out of range")
    topic, group = world.topic(), world.group()
    world.append(numbered(topic, 10))
    consumer = world.consumer(topic, group)
    take(consumer, 2)
    consumer.commit({Partition(topic, 0): 2})
    consumer.close(5.0)
    world.delete_before(Partition(topic, 0), 5)

    stopped = world.consumer(topic, group)
    with pytest.raises(OffsetOutOfRange, match="2"):
        take(stopped, 1)
    stopped.close(5.0)
    assert values_of(take(world.consumer(topic, world.group()), 1)) == [b"5"]
    assert values_of(take(world.consumer(topic, group, out_of_range="earliest"), 1)) == [b"5"]


def test_a_range_is_read_between_its_bounds(world: World) -> None:
    topic = world.topic(2)
    world.append(numbered(topic, 30, key=b"a") + numbered(topic, 30, key=b"b", first=30))
    reader = world.reader()
    ends = reader.end_offsets(topic)

    bounds = {partition: (min(3, end), min(20, end)) for partition, end in ends.items()}
    read = [(r.partition, r.offset) for batch in reader.read(bounds) for r in batch]

    assert sum(ends.values()) == 60
    assert sorted(read) == [(p.partition, o) for p, (start, end) in sorted(bounds.items()) for o in range(start, end)]
    assert list(reader.read({Partition(topic, 0): (5, 5)})) == []


def test_bounds_beyond_the_log_end_at_its_end(world: World) -> None:
    topic = world.topic()
    world.append(numbered(topic, 10))

    batches = list(world.reader().read({Partition(topic, 0): (4, 1 << 60)}))

    assert values_of([record for batch in batches for record in batch]) == [b"4", b"5", b"6", b"7", b"8", b"9"]


def test_a_time_leads_to_the_first_offset_at_or_after_it(world: World) -> None:
    topic = world.topic()
    world.append(numbered(topic, 3))
    world.append(numbered(topic, 3))
    reader = world.reader()
    last = whole(world, topic)[-1].timestamp

    assert reader.offsets_for_times(topic, 0) == {Partition(topic, 0): 0}
    assert reader.offsets_for_times(topic, last + 100_000) == {Partition(topic, 0): 6}


def test_the_latest_records_come_from_every_partition(world: World) -> None:
    topic = world.topic(3)
    world.append([record for n in range(30) for record in numbered(topic, 1, key=str(n).encode(), first=n)])
    reader = world.reader()

    latest = reader.latest(topic, 9)
    everything = reader.latest(topic, 1000)

    assert len(latest) == 9
    assert {record.partition for record in latest} == {0, 1, 2}
    assert len(everything) == 30


def test_several_topics_and_those_that_fit_a_pattern_are_read_as_one(world: World) -> None:
    first, second = world.topic(), world.topic(2)
    world.append([*numbered(first, 3), *numbered(second, 1, key=b"1"), *numbered(second, 1, key=b"2")])
    reader, places = world.reader(), sorted([Partition(first, 0), Partition(second, 0), Partition(second, 1)])

    assert list(reader.partitions(f"{second},{first}")) == places
    assert list(reader.partitions(f"^({first}|{second})$")) == places
    assert sum(reader.end_offsets(f"{first},{second}").values()) == 5
    assert {record.topic for record in reader.latest(f"{first},{second}", 5)} == {first, second}


@pytest.mark.parametrize("topic", ["nowhere", "^nowhere"])
def test_a_missing_topic_is_named(world: World, topic: str) -> None:
    with pytest.raises(MissingTopic, match="nowhere"):
        world.reader().end_offsets(topic)


def test_of_several_topics_one_that_is_missing_is_named(world: World) -> None:
    with pytest.raises(MissingTopic, match="nowhere"):
        world.reader().end_offsets(f"{world.topic()},nowhere")
