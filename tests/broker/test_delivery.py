"""Each step of a delivery fails in turn: nothing is committed that was not published, and it works the next time."""

import pytest

from devtools.brokers import values_of
from devtools.memory_broker import Action, MemoryBroker
from devtools.memory_clients import MemoryConsumer, MemoryProducer, MemoryTransactionalProducer
from devtools.worlds import next_offsets, numbered, take
from worker.broker.base import Delivery
from worker.broker.delivery import AtLeastOnce, ExactlyOnce
from worker.errors import BrokerUnavailable, CommitRefused, DeliveryError, FatalError, Fenced
from worker.records import Outgoing, Partition

PARTITION = Partition("in", 0)


@pytest.fixture
def broker() -> MemoryBroker:
    broker = MemoryBroker({"in": 1, "out": 1})
    broker.append(numbered("in", 5))
    return broker


def at_least_once(broker: MemoryBroker) -> tuple[Delivery, MemoryConsumer]:
    consumer = MemoryConsumer(broker, ["in"], "group")
    return AtLeastOnce(consumer, lambda: MemoryProducer(broker)), consumer


def exactly_once(broker: MemoryBroker) -> tuple[Delivery, MemoryConsumer]:
    consumer = MemoryConsumer(broker, ["in"], "group")
    return ExactlyOnce(consumer, lambda: MemoryTransactionalProducer(broker, "id")), consumer


@pytest.mark.parametrize("after", [False, True], ids=["not written", "written but not acknowledged"])
@pytest.mark.parametrize("step", ["send", "flush", "build"])
def test_an_alert_that_was_not_acknowledged_means_no_commit(broker: MemoryBroker, step: Action, after: bool) -> None:
    delivery, consumer = at_least_once(broker)
    offsets = next_offsets(take(consumer, 5))
    broker.fail(step, DeliveryError("lost"), after=after)

    with pytest.raises(DeliveryError):
        delivery.publish(numbered("out", 2), offsets)
    assert broker.offsets("group") == {}
    delivery.publish(numbered("out", 2), offsets)

    assert broker.offsets("group") == {PARTITION: 5}
    assert values_of(broker.records("out"))[-2:] == [b"0", b"1"]


def test_a_failed_commit_is_repeated_with_the_same_batch(broker: MemoryBroker) -> None:
    delivery, consumer = at_least_once(broker)
    offsets = next_offsets(take(consumer, 5))
    broker.fail("commit", BrokerUnavailable("no answer"))

    with pytest.raises(BrokerUnavailable):
        delivery.publish(numbered("out", 1), offsets)
    delivery.publish(numbered("out", 1), offsets)

    assert broker.offsets("group") == {PARTITION: 5}
    assert values_of(broker.records("out")) == [b"0", b"0"]


@pytest.mark.parametrize("after", [False, True], ids=["aborted", "committed"])
def test_a_transaction_of_unknown_outcome_is_not_published_twice(broker: MemoryBroker, after: bool) -> None:
    delivery, consumer = exactly_once(broker)
    offsets = next_offsets(take(consumer, 5))
    broker.fail("transact", BrokerUnavailable("no answer"), after=after)

    with pytest.raises(BrokerUnavailable):
        delivery.publish(numbered("out", 2), offsets)
    publish_until_done(delivery, numbered("out", 2), offsets)

    assert values_of(broker.records("out")) == [b"0", b"1"]
    assert broker.offsets("group") == {PARTITION: 5}


def publish_until_done(delivery: Delivery, outgoing: list[Outgoing], offsets: dict[Partition, int]) -> None:
    """What the record loop does."""
    for _ in range(10):
        try:
            delivery.publish(outgoing, offsets)
        except BrokerUnavailable:
            continue
        return
    raise AssertionError("not published in 10 attempts")


@pytest.mark.parametrize("past", [[{}, {}], [{PARTITION: 2}] * 3, [{}, {PARTITION: 1}, {PARTITION: 2}, {}]])
def test_a_broker_that_answers_from_the_past_makes_nothing_published_twice(
    broker: MemoryBroker, past: list[dict[Partition, int]]
) -> None:
    delivery, consumer = exactly_once(broker)
    records = take(consumer, 5)
    delivery.publish(numbered("out", 1), next_offsets(records[:3]))
    broker.fail("transact", BrokerUnavailable("no answer"), after=True)
    with pytest.raises(BrokerUnavailable):
        delivery.publish(numbered("out", 2, first=1), next_offsets(records))
    broker.answer_from_the_past(*past)

    publish_until_done(delivery, numbered("out", 2, first=1), next_offsets(records))

    assert values_of(broker.records("out")) == [b"0", b"1", b"2"]
    assert broker.offsets("group") == {PARTITION: 5}


def test_that_a_transaction_is_not_committed_has_to_be_said_twice(broker: MemoryBroker) -> None:
    delivery, consumer = exactly_once(broker)
    records = take(consumer, 5)
    delivery.publish([], next_offsets(records[:3]))
    broker.fail("transact", BrokerUnavailable("no answer"), after=True)
    with pytest.raises(BrokerUnavailable):
        delivery.publish(numbered("out", 1), next_offsets(records))
    broker.answer_from_the_past({PARTITION: 3})  # not older than what is known

    publish_until_done(delivery, numbered("out", 1), next_offsets(records))

    assert values_of(broker.records("out")) == [b"0"]


def test_the_outcome_stays_unknown_until_the_broker_answers(broker: MemoryBroker) -> None:
    delivery, consumer = exactly_once(broker)
    offsets = next_offsets(take(consumer, 5))
    broker.fail("transact", BrokerUnavailable("no answer"), after=True)
    with pytest.raises(BrokerUnavailable):
        delivery.publish(numbered("out", 2), offsets)

    for step in ("build", "committed", "build", "committed"):
        broker.fail(step, BrokerUnavailable("still away"))
    for _ in range(4):
        with pytest.raises(BrokerUnavailable):
            delivery.publish(numbered("out", 2), offsets)
    publish_until_done(delivery, numbered("out", 2), offsets)

    assert values_of(broker.records("out")) == [b"0", b"1"]


def test_another_batch_is_published_although_the_last_outcome_is_unknown(broker: MemoryBroker) -> None:
    delivery, consumer = exactly_once(broker)
    records = take(consumer, 5)
    broker.fail("transact", BrokerUnavailable("no answer"))
    with pytest.raises(BrokerUnavailable):
        delivery.publish(numbered("out", 1), next_offsets(records[:2]))

    delivery.publish(numbered("out", 1, first=1), next_offsets(records))

    assert values_of(broker.records("out")) == [b"1"]
    assert broker.offsets("group") == {PARTITION: 5}


def test_a_refused_commit_keeps_the_transactional_producer(broker: MemoryBroker) -> None:
    delivery, consumer = exactly_once(broker)
    offsets = next_offsets(take(consumer, 5))
    delivery.open()
    broker.fail("transact", CommitRefused("rebalanced"))
    broker.fail("build", FatalError("it was built anew"))

    with pytest.raises(CommitRefused):
        delivery.publish([], offsets)
    delivery.publish([], offsets)

    assert broker.offsets("group") == {PARTITION: 5}


def test_a_process_with_the_same_id_stops_this_one(broker: MemoryBroker) -> None:
    delivery, consumer = exactly_once(broker)
    offsets = next_offsets(take(consumer, 5))
    delivery.open()
    MemoryTransactionalProducer(broker, "id")

    with pytest.raises(Fenced):
        delivery.publish([Outgoing("out", None, b"zombie")], offsets)

    assert broker.records("out") == []
    assert broker.offsets("group") == {}


def test_closing_twice_is_allowed_and_a_closed_delivery_can_be_used_again(broker: MemoryBroker) -> None:
    delivery, consumer = at_least_once(broker)
    delivery.close(1)
    delivery.open()
    delivery.close(1)
    delivery.close(1)

    delivery.publish(numbered("out", 1), next_offsets(take(consumer, 5)))

    assert values_of(broker.records("out")) == [b"0"]
