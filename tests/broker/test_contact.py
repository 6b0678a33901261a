"""Contact with the broker is what it answers, when; and a client whose brokers have moved finds them by its list."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from devtools.brokers import (
    JOIN_FAST,
    ApacheBroker,
    Broker,
    eventually,
    free_ports,
    frozen,
    produce_values,
    read_all,
    start_broker,
    values_of,
)
from devtools.worlds import next_offsets, settle, take
from worker.broker.admin import ensure_topics, topic_partitions
from worker.broker.client import Connection
from worker.broker.consumer import GroupConsumer
from worker.broker.contact import Contact, _Metadata
from worker.broker.delivery import AtLeastOnce, ExactlyOnce
from worker.broker.producer import AcknowledgedProducer, TransactionalKafkaProducer
from worker.broker.ranges import TopicReader
from worker.records import Outgoing, Partition


class Client:
    """What Contact knows of one."""

    heard_at = 0.0


class History:
    """A Contact whose clock is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.contact = Contact(lambda: self.now)
        self.one, self.other = Client(), Client()

    def wait(self, seconds: float) -> None:
        self.now += seconds


def silent_from_the_start(on: History) -> None:
    on.contact.opened(on.one)
    on.wait(30)


def heard_lately(on: History) -> None:
    silent_from_the_start(on)
    on.contact.heard(on.one)
    on.wait(2)


def one_of_two_hears_nothing(on: History) -> None:
    silent_from_the_start(on)
    on.contact.opened(on.other)
    on.contact.heard(on.other)


def closed_in_vain(on: History) -> None:
    silent_from_the_start(on)
    on.contact.closed(on.one)
    on.wait(10)


def built_again_in_vain(on: History) -> None:
    closed_in_vain(on)
    on.contact.opened(on.other)
    on.wait(5)


def built_again_and_answered(on: History) -> None:
    built_again_in_vain(on)
    on.contact.heard(on.other)


def closed_after_an_answer(on: History) -> None:
    heard_lately(on)
    on.contact.closed(on.one)
    on.contact.heard(on.one)
    on.wait(50)


def never_asked(on: History) -> None:
    on.wait(70)


@pytest.mark.parametrize(
    ("history", "silence_s", "is_asking"),
    [
        (silent_from_the_start, 30, True),
        (heard_lately, 2, True),
        (one_of_two_hears_nothing, 30, True),
        (closed_in_vain, 40, True),
        (built_again_in_vain, 45, True),
        (built_again_and_answered, 0, True),
        (closed_after_an_answer, 50, False),
        (never_asked, 70, False),
    ],
)
def test_silence_counts_from_the_last_answer_to_whoever_waits_longest(
    history: Callable[[History], None], silence_s: float, is_asking: bool
) -> None:
    on = History()

    history(on)

    assert (on.contact.silence_s(), on.contact.is_asking()) == (silence_s, is_asking)


def test_a_topic_that_is_asked_for_while_an_answer_is_on_its_way_is_not_forgotten() -> None:
    metadata = _Metadata(bootstrap_servers=["localhost:9092"])
    broker = (1, "localhost", 9092, None)
    answer = SimpleNamespace(brokers=[broker], topics=[], API_VERSION=1, controller_id=1)

    metadata.metadata_request()
    metadata.set_topics(["in"])
    metadata.update_metadata(answer)
    forgotten = not metadata.need_update
    metadata.metadata_request()
    metadata.update_metadata(answer)

    assert not forgotten
    assert not metadata.need_update


@pytest.fixture
def own_topic(own_broker: Broker) -> str:
    ensure_topics(Connection(own_broker.bootstrap_servers), {"in": 1, "out": 1})
    return "in"


def build_all(make_link: Callable[[], Connection], topic: str) -> dict[str, tuple[Any, Connection]]:
    """Every sort of client, each with a contact of its own; the consumers have joined."""
    builds: Mapping[str, Callable[[Connection], Any]] = {
        "consumer": lambda link: GroupConsumer(link, [topic], "group"),
        "transactional consumer": lambda link: GroupConsumer(link, [topic], "committed", read_committed=True),
        "producer": AcknowledgedProducer,
        "transactional producer": lambda link: TransactionalKafkaProducer(link, "id"),
        "reader": TopicReader,
        "reader of what is committed": lambda link: TopicReader(link, read_committed=True),
    }
    clients = {name: (build(link), link) for name, build in builds.items() for link in (make_link(),)}
    for client, _ in clients.values():
        if isinstance(client, GroupConsumer):
            settle(client)
            client.resume(client.assignment())
    return clients


@pytest.mark.broker
def test_every_client_hears_from_its_broker_though_idle_and_from_none_that_is_frozen(
    own_broker: Broker, own_topic: str
) -> None:
    options = {**JOIN_FAST, "reconnect_backoff_max_ms": 2000}
    clients = build_all(lambda: Connection(own_broker.bootstrap_servers, options=options), own_topic)

    def silences() -> dict[str, float]:
        return {name: link.contact.silence_s() for name, (_, link) in clients.items()}

    with ExitStack() as stack:
        for client, _ in clients.values():
            stack.callback(client.close, 1.0)
        with frozen(own_broker.pid):
            eventually(lambda: min(silences().values()) > 4, 30, "none hears")
            still_open = {name for name, (_, link) in clients.items() if link.contact.is_asking()}
            outages = [link.contact.since_outage_s() for _, link in clients.values()]
        eventually(lambda: max(silences().values()) < 3, 30, "all hear again")
        started = time.monotonic()
        max_silence: dict[str, float] = {}

        def idle() -> bool:
            for name, silence in silences().items():
                max_silence[name] = max(silence, max_silence.get(name, 0.0))
            return time.monotonic() - started > 3

        eventually(idle, 30, "some seconds without records")

    assert still_open == set(clients)
    assert max(outages) < 10  # each has asked in vain just now
    assert max(max_silence.values()) < 10
    assert not any(link.contact.is_asking() for _, link in clients.values())


@pytest.fixture
def moving_broker() -> Iterator[ApacheBroker]:
    broker = start_broker()
    assert isinstance(broker, ApacheBroker)
    yield broker
    broker.close()


@pytest.mark.kafka
def test_brokers_that_have_all_moved_are_found_by_the_next_address_of_the_list(moving_broker: ApacheBroker) -> None:
    (port,) = free_ports(1)
    servers = f"{moving_broker.bootstrap_servers},127.0.0.1:{port}"
    ensure_topics(Connection(servers), {"in": 1, "once": 1, "repeating": 1})
    produce_values(Connection(servers), "in", [b"0"])
    # A session that outlasts the move on a busy machine: else the members are no longer members when they are back.
    options = {**JOIN_FAST, "session_timeout_ms": 30_000}
    clients = build_all(lambda: Connection(servers, options=options, rebootstrap_s=5), "in")
    consumers = {"repeating": clients["consumer"][0], "once": clients["transactional consumer"][0]}
    deliveries = {
        "repeating": AtLeastOnce(consumers["repeating"], lambda: clients["producer"][0]),
        "once": ExactlyOnce(consumers["once"], lambda: clients["transactional producer"][0]),
    }
    with ExitStack() as stack:
        for client, _ in clients.values():
            stack.callback(client.close, 1.0)
        batches = {name: take(consumer, 1, 90) for name, consumer in consumers.items()}

        moving_broker.move(port)  # which takes longer than the 5 s
        now = Connection(moving_broker.bootstrap_servers)
        eventually(lambda: all(link.contact.silence_s() < 3 for _, link in clients.values()), 60, "all hear again")
        for name, delivery in deliveries.items():
            delivery.publish([Outgoing(name, None, b"alert")], next_offsets(batches[name]))
        produce_values(now, "in", [b"1"])

        assert {name: values_of(take(consumer, 1, 90)) for name, consumer in consumers.items()} == {
            name: [b"1"] for name in consumers
        }
        assert {name: values_of(read_all(now, name, read_committed=True)) for name in deliveries} == {
            name: [b"alert"] for name in deliveries
        }
        for name in ("reader", "reader of what is committed"):
            assert clients[name][0].end_offsets("in") == {Partition("in", 0): 2}
        assert topic_partitions(Connection(servers, connect_timeout_s=20))["in"] == 1
