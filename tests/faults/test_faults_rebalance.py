"""Rebalances: what was polled and not committed is read again, by whoever has the partition then."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import pytest

from devtools.brokers import eventually, produce
from devtools.worlds import Guarantee, KafkaWorld, next_offsets, numbered, take
from worker.broker.client import ASSIGNORS, Connection
from worker.broker.consumer import GroupConsumer
from worker.errors import CommitRefused
from worker.records import Outgoing, Partition


class Member(NamedTuple):
    """What an assignor is told of a member."""

    member_id: str
    group_instance_id: str | None
    metadata: Any


@dataclass(frozen=True)
class Topics:
    """What an assignor asks of the cluster."""

    partitions: int

    def partitions_for_topic(self, topic: str) -> set[int]:  # noqa: ARG002  # all topics are alike
        return set(range(self.partitions))


@pytest.mark.parametrize("assignor", ["range", "roundrobin"])
@pytest.mark.parametrize("kinds", list(product([True, False], repeat=3)))
def test_every_member_gets_partitions_whatever_the_order_of_static_and_dynamic_ones(
    assignor: str, kinds: tuple[bool, ...]
) -> None:
    chosen = ASSIGNORS[assignor]
    subscription = chosen.metadata({"in"})
    members = [Member(f"m{i}", f"static-{i}" if static else None, subscription) for i, static in enumerate(kinds)]

    assigned = chosen.assign(Topics(6), members)

    assert [len(assigned[member.member_id].partitions()) for member in members] == [2, 2, 2]


@pytest.mark.broker
@pytest.mark.parametrize("committed", [0, 2])
def test_a_partition_that_was_taken_away_and_given_back_goes_on_at_its_committed_offset(
    connection: Connection, make_topic: Callable[[int], str], group: str, committed: int
) -> None:
    topic = make_topic(2)
    places = [Partition(topic, 0), Partition(topic, 1)]
    produce(connection, [Outgoing(topic, None, b"", partition=number % 2) for number in range(8)])
    first = GroupConsumer(connection, [topic], group)
    take(first, 8)
    if committed:
        first.commit(dict.fromkeys(places, committed))
    guest = GroupConsumer(connection, [topic], group)
    offsets_read: dict[Partition, list[int]] = {place: [] for place in places}
    done = threading.Event()

    def read(member: GroupConsumer) -> None:  # each on its own thread: a join needs both at once
        while not done.is_set():
            for place, records in member.poll(50, 100).items():
                offsets_read[place] += [record.offset for record in records]

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read, member) for member in (first, guest)]
        try:
            eventually(lambda: all(3 in offsets for offsets in offsets_read.values()), 60, "both partitions read again")
        finally:
            done.set()
        for reader in readers:
            reader.result(10)

    assert first.assignment_changes().assigned
    for offsets in offsets_read.values():
        assert offsets[0] == committed
        assert set(offsets) == set(range(committed, 4))
    first.close(2.0)
    guest.close(2.0)


@pytest.mark.broker
@pytest.mark.kafka
@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_a_member_that_knows_it_was_thrown_out_can_not_commit_either(
    connection: Connection, guarantee: Guarantee
) -> None:
    world = KafkaWorld(connection, fences_stale_members=True)
    topic, out, group = world.topic(), world.topic(), world.group()
    world.append(numbered(topic, 1))
    consumer = world.consumer(topic, group, read_committed=True)
    offsets = next_offsets(take(consumer, 1))
    delivery = world.delivery(guarantee, consumer)
    world.expel(consumer, group)
    eventually(lambda: not consumer.is_member(), 10, "the heartbeat tells it")

    with pytest.raises(CommitRefused):
        delivery.publish([Outgoing(out, None, b"late")], offsets)

    assert consumer.committed([Partition(topic, 0)]) == {Partition(topic, 0): None}
    world.close()
