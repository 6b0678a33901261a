"""Group membership on a real broker, where the in-memory one can't show it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace

import pytest
from kafka import TopicPartition
from kafka import errors as kafka_errors
from kafka.admin import NewPartitions

from devtools.brokers import Broker, eventually, produce, produce_values, values_of
from devtools.worlds import numbered, settle, take
from worker.broker.client import Connection, admin_client
from worker.broker.consumer import GroupConsumer
from worker.broker.contact import Contact
from worker.errors import CommitRefused, Fenced
from worker.records import Message, Outgoing, Partition

pytestmark = pytest.mark.broker


def test_a_record_is_handed_over_as_the_client_made_it(connection: Connection, topic: str, group: str) -> None:
    produce_values(connection, topic, [b"0"])
    consumer = GroupConsumer(connection, [topic], group)

    record = take(consumer, 1)[0]

    assert not isinstance(record, Message)
    assert type(record).__module__.startswith("kafka")
    consumer.close(1)


def test_a_member_that_was_expelled_is_none_until_it_polls_again(
    connection: Connection, topic: str, group: str, kafka_broker: Broker
) -> None:
    if kafka_broker.kind == "embedded":
        pytest.skip("the embedded broker can't shorten the poll interval")
    fast = Connection(connection.bootstrap_servers, options={**connection.options, "max_poll_interval_ms": 6000})
    consumer = GroupConsumer(fast, [topic], group)
    partitions = settle(consumer)

    eventually(lambda: not consumer.is_member(), 20, "it left because it did not poll")
    assert consumer.assignment() == partitions
    settle(consumer)
    assert consumer.assignment_changes().revoked == partitions
    consumer.close(1)


@pytest.mark.kafka
def test_new_partitions_are_read_although_the_rebalance_outlasts_a_poll(
    connection: Connection, make_topic: Callable[[int], str], group: str
) -> None:
    topic = make_topic(1)
    quick = Connection(connection.bootstrap_servers, options={**connection.options, "metadata_max_age_ms": 500})
    leader, other = GroupConsumer(quick, [topic], group), GroupConsumer(quick, [topic], group)
    settle(leader)
    stop = threading.Event()

    def poll_slowly() -> None:  # the leader's rebalance has to wait for this member
        while not stop.is_set():
            other.poll(10, 10)
            stop.wait(0.3)

    slow = threading.Thread(target=poll_slowly)
    slow.start()
    add_partitions(connection, topic, 4)

    def shared() -> bool:
        leader.poll(10, 10)
        return len(leader.assignment() | other.assignment()) == 4 and leader.is_member() and other.is_member()

    eventually(shared, 30, "four partitions on two members")
    stop.set()
    slow.join()
    leader.close(1)
    other.close(1)
    alone = GroupConsumer(quick, [topic], group)
    produce(connection, [record for key in range(20) for record in numbered(topic, 1, str(key).encode())])
    assert len(take(alone, 20)) == 20
    alone.close(1)


@pytest.mark.kafka
def test_an_answer_of_the_group_that_comes_between_two_polls_is_taken(
    connection: Connection, topic: str, group: str
) -> None:
    leader = GroupConsumer(connection, [topic], group)
    settle(leader)
    coordinator = leader._client._coordinator
    coordinator.request_rejoin()
    leader.poll(0, 1)
    join = coordinator._join_task
    eventually(lambda: join.is_done, 30, "the answer")
    generation = coordinator._generation.generation_id

    poll_until(leader, leader.is_member)

    assert coordinator._generation.generation_id == generation
    assert leader.assignment() == {Partition(topic, 0)}
    leader.close(1)


@pytest.mark.kafka
@pytest.mark.parametrize("when", ["while it is away", "after it came back"])
def test_partitions_that_are_added_are_read_when_the_leader_had_been_started_again(
    connection: Connection, make_topic: Callable[[int], str], group: str, when: str
) -> None:
    topic = make_topic(2)
    quick = Connection(connection.bootstrap_servers, options={**connection.options, "metadata_max_age_ms": 500})
    with ExitStack() as stack:
        lives = {name: stack.enter_context(ExitStack()) for name in "ab"}

        def start(name: str) -> GroupConsumer:
            return lives[name].enter_context(polled(GroupConsumer(quick, [topic], group, instance_id=name)))

        members = {name: start(name) for name in lives}

        def is_shared(count: int) -> bool:
            return sorted(p.partition for member in members.values() for p in member.assignment()) == list(range(count))

        eventually(lambda: is_shared(2), 30, "two partitions on two members")
        name = next(name for name, member in members.items() if member._client._coordinator._is_leader)
        generation = members[name]._client._coordinator._generation.generation_id
        both = [Partition(topic, 0), Partition(topic, 1)]
        eventually(lambda: None not in members[name]._stored(both).values(), 30, "both are begun")
        lives[name].close()  # without leaving the group: a static member is expected back
        if when == "while it is away":
            add_partitions(connection, topic, 4)
        members[name] = start(name)
        eventually(lambda: bool(members[name].positions()), 30, "its partitions came back")
        if when == "after it came back":
            eventually(lambda: members[name]._joining._shared_counts == {topic: 2}, 30, "it sees both partitions")
            assert members[name]._client._coordinator._generation.generation_id == generation, (
                "a restart without rebalance"
            )
            add_partitions(connection, topic, 4)

        eventually(lambda: is_shared(4), 30, "four partitions on two members")


@contextmanager
def polled(consumer: GroupConsumer) -> Iterator[GroupConsumer]:
    """A member that polls in a thread of its own, as in a process of its own; closed at the end."""
    stop = threading.Event()

    def poll() -> None:
        while not stop.is_set():
            consumer.poll(100, 10)
            consumer.begin(consumer.assignment_changes().assigned)

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield consumer
    finally:
        stop.set()
        thread.join()
        consumer.close(1)


def add_partitions(connection: Connection, topic: str, count: int) -> None:
    with admin_client(connection) as admin:
        admin.create_partitions({topic: NewPartitions(count)})


def test_what_was_taken_away_is_gone_though_the_client_keeps_it_until_the_next_assignment(
    connection: Connection, topic: str, group: str
) -> None:
    produce_values(connection, topic, [b"0"])
    consumer = GroupConsumer(connection, [topic], group)
    take(consumer, 1)
    partition = TopicPartition(topic, 0)

    consumer._listener.on_partitions_revoked([partition])
    produce_values(connection, topic, [b"1"])

    assert partition in consumer._client.assignment()
    assert consumer.assignment() == frozenset()
    assert consumer.positions() == consumer.lag() == {}
    assert consumer.poll(500, 10) == {}
    consumer._listener.on_partitions_assigned([partition])
    assert values_of(take(consumer, 2)) == [b"0", b"1"]
    consumer.close(1)


def test_a_close_hands_the_partitions_over_at_once(connection: Connection, topic: str, group: str) -> None:
    first, second = GroupConsumer(connection, [topic], group), GroupConsumer(connection, [topic], group)
    settle(first)
    first.close(5)
    first.close(5)

    settle(second)
    assert second.assignment() == {Partition(topic, 0)}
    assert not first.is_member()
    second.close(1)


def test_an_empty_header_takes_the_place_of_a_null_one(connection: Connection, topic: str, group: str) -> None:
    produce(connection, [Outgoing(topic, b"key", b"value", (("null", None), ("full", b"x")))])
    consumer = GroupConsumer(connection, [topic], group)

    record = take(consumer, 1)[0]

    assert list(record.headers) == [("null", b""), ("full", b"x")]
    assert values_of([record]) == [b"value"]
    consumer.close(1)


@pytest.mark.kafka
def test_a_member_whose_name_another_one_took_ends_and_only_then(
    connection: Connection, topic: str, group: str
) -> None:
    produce_values(connection, topic, [b"0"])
    first = GroupConsumer(connection, [topic], group, instance_id="name")
    take(first, 1)
    second = GroupConsumer(connection, [topic], group, instance_id="name")
    settle(second)

    with pytest.raises(CommitRefused):
        first.commit({Partition(topic, 0): 1})
    with pytest.raises(Fenced, match="instance_id"):
        poll_until(first, lambda: False)

    assert second.is_member()
    for consumer in (first, second):
        consumer.close(1)


@pytest.fixture
def refused(connection: Connection, topic: str, group: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[GroupConsumer]:
    """Once a member, with a session of 30 s, whose name the broker keeps saying another one has."""

    def fenced(**_: object) -> None:
        raise kafka_errors.FencedInstanceIdError

    slow = replace(connection, options={**connection.options, "session_timeout_ms": 30_000}, contact=Contact())
    consumer = GroupConsumer(slow, [topic], group, instance_id="name")
    consumer._joining._was_member = True
    monkeypatch.setattr(consumer._joining, "keep", lambda: None)  # a broker that fences makes no stable member
    monkeypatch.setattr(consumer._client, "poll", fenced)
    yield consumer
    consumer.close(1)


@pytest.mark.parametrize(("lasted_s", "ends"), [(0.0, False), (20.0, False), (36.0, True)])
def test_a_member_that_a_broker_forgot_waits_until_it_has_given_a_dead_owner_of_its_name_up(
    refused: GroupConsumer, lasted_s: float, ends: bool
) -> None:
    refused._joining._displaced_since = time.monotonic() - lasted_s
    with pytest.raises(Fenced) if ends else nullcontext():
        refused.poll(50, 1)


def test_a_member_that_a_broker_keeps_refusing_after_an_outage_takes_its_name_again_and_once(
    refused: GroupConsumer,
) -> None:
    coordinator = refused._client._coordinator
    coordinator.reset_generation("the id that the broker has forgotten")
    refused._joining._contact.note_outage()

    refused._joining._displaced_since = time.monotonic() - 36
    refused.poll(0, 1)

    assert coordinator._generation.member_id == ""
    refused._joining._displaced_since = time.monotonic() - 36
    with pytest.raises(Fenced):
        refused.poll(50, 1)


@pytest.mark.kafka
def test_a_new_process_takes_its_name_also_when_the_answer_to_its_first_attempt_was_lost(
    connection: Connection, topic: str, group: str
) -> None:
    old = GroupConsumer(connection, [topic], group, instance_id="name")
    settle(old)
    new = GroupConsumer(connection, [topic], group, instance_id="name")
    new._client._coordinator.reset_generation("the id that an attempt was given before another one")

    poll_until(new, new.is_member)

    assert new.assignment() == {Partition(topic, 0)}
    for consumer in (old, new):
        consumer.close(1)


@pytest.mark.kafka
def test_a_member_whose_heartbeats_ended_joins_again(connection: Connection, topic: str, group: str) -> None:
    consumer = GroupConsumer(connection, [topic], group, instance_id="name")
    settle(consumer)
    coordinator = consumer._client._coordinator
    coordinator._disable_heartbeat()  # what the client does when it is told, rightly or not, that the name is taken

    poll_until(consumer, lambda: coordinator._heartbeat_enabled and consumer.is_member())

    assert consumer.assignment() == {Partition(topic, 0)}
    consumer.close(1)


def poll_until(consumer: GroupConsumer, condition: Callable[[], bool]) -> None:
    def polled() -> bool:
        consumer.poll(100, 1)
        return condition()

    eventually(polled, 30, "as it should be")
