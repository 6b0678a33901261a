"""Failures between reading a record and committing its offset, judged by the oracle of make chaos."""

from collections.abc import Sequence

import pytest

from devtools import traffic
from devtools.memory_broker import Action, MemoryBroker
from devtools.memory_clients import MemoryConsumer, MemoryTransactionalProducer
from devtools.stage import GROUP, Guarantee, Killed, Stage
from devtools.worlds import numbered
from tests.chaos.oracle import Place, Result, Seen, Verdict, judge
from worker.broker.delivery import ExactlyOnce
from worker.errors import BrokerUnavailable, CommitRefused, DeliveryError, FatalError, OffsetOutOfRange, WorkerError
from worker.records import Message, Partition

BROKEN = [b"{", b'{"amount": "much"}', b"[1]", None]


def mixed(count: int = 600, partitions: int = 2) -> list[Message]:
    """Ordinary records, outliers, broken records and tombstones."""
    messages: list[Message] = traffic.messages(count, partitions=partitions)
    for number in range(20, count, 23):
        old = messages[number]
        messages[number] = Message(
            old.topic, old.partition, old.offset, old.timestamp, old.key, BROKEN[number % len(BROKEN)]
        )
    return messages


def verdict(stage: Stage) -> Verdict:
    """What the oracle says about everything in the topics of a stage."""

    def results(topic: str) -> Sequence[Result]:
        results = []
        for document in stage.published(topic):
            place = Place(document["source"]["partition"], document["source"]["offset"])
            results.append(Result(place, 0, document.get("alert_id", ""), document.get("alert", False)))
        return results

    headers = [dict(message.headers) for message in stage.broker.records("dead")]
    seen = Seen(
        records={Place(m.partition, m.offset) for m in stage.fed if m.value is not None},
        tombstones={Place(m.partition, m.offset) for m in stage.fed if m.value is None},
        scores=list(results("scores")),
        alerts=list(results("alerts")),
        dead_letters=[
            Result(Place(int(h["source.partition"] or b""), int(h["source.offset"] or b""))) for h in headers
        ],
        committed={partition.partition: offset for partition, offset in stage.broker.offsets(GROUP).items()},
    )
    return judge(seen, exactly_once=stage.guarantee == "exactly_once")


FAILURES = (Killed("killed"), DeliveryError("not acknowledged"), BrokerUnavailable("no answer"))
STEPS: list[tuple[Guarantee, Action, bool, Exception]] = [
    *[("at_least_once", "flush", after, error) for after in (False, True) for error in FAILURES],
    *[("at_least_once", "commit", after, error) for after in (False, True) for error in FAILURES],
    *[("exactly_once", "transact", False, error) for error in FAILURES],
    # A transaction that was committed is never reported as not acknowledged.
    *[("exactly_once", "transact", True, error) for error in FAILURES if not isinstance(error, DeliveryError)],
]


@pytest.mark.parametrize(("guarantee", "action", "after", "error"), STEPS)
def test_whatever_fails_between_publish_and_commit_nothing_is_lost(
    guarantee: Guarantee, action: Action, after: bool, error: Exception
) -> None:
    stage = Stage(partitions=2, guarantee=guarantee).feed(mixed())
    worker = stage.worker()
    worker.loop.step()
    stage.broker.fail(action, error, after=after)
    try:
        worker.loop.step()
    except Killed:
        worker.die()
        worker = stage.worker()
    before = verdict(stage)

    worker.drain()

    assert not [problem for problem in before.problems if "lost" not in problem]
    assert verdict(stage).problems == []
    assert verdict(stage).lost == 0


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_a_commit_that_is_refused_after_a_rebalance_is_left_to_the_new_owner(guarantee: Guarantee) -> None:
    stage = Stage(partitions=2, guarantee=guarantee).feed(mixed())
    first = stage.worker("first")
    for _ in range(3):
        first.loop.step()
    first.loop._collect()
    first.loop._process()
    second = stage.worker("second")
    second.consumer.poll(0, 1)  # it joins: a new generation that the first has not heard of

    first.loop.step()

    assert first.seen.lost
    assert first.loop._batch is None
    first.die()
    stage.worker("third").drain()
    assert verdict(stage).problems == []


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_dead_letters_without_a_topic_hold_everything_until_there_is_one(guarantee: Guarantee) -> None:
    stage = Stage(partitions=2, guarantee=guarantee).feed(mixed())
    topic = stage.broker._logs.pop(Partition("dead", 0))
    worker = stage.worker(batch_size=1000)
    for _ in range(2):
        worker.loop.step()
    committed, retries = dict(stage.broker.offsets(GROUP)), list(worker.seen.retries)

    stage.broker._logs[Partition("dead", 0)] = topic
    worker.drain()

    assert committed == {}
    assert [str(error) for error in retries] == ["no such topic: dead"] * 2
    assert verdict(stage).problems == []


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_dead_letters_that_are_refused_stop_the_worker_with_nothing_committed(guarantee: Guarantee) -> None:
    stage = Stage(guarantee=guarantee).feed(mixed(partitions=1))
    refused = FatalError("sending to dead: TopicAuthorizationFailedError")
    stage.broker.fail("flush" if guarantee == "at_least_once" else "transact", refused)

    with pytest.raises(FatalError, match="sending to dead"):
        stage.worker().drain()

    assert stage.broker.offsets(GROUP) == {}


def test_records_that_were_deleted_before_they_were_read_stop_the_worker() -> None:
    stage = Stage().feed(mixed(partitions=1))
    worker = stage.worker()
    worker.loop.step()
    worker.die()
    stage.broker.delete_before(Partition("in", 0), 300)

    with pytest.raises(OffsetOutOfRange, match="100"):
        stage.worker().drain()

    assert stage.broker.offsets(GROUP) == {Partition("in", 0): 100}


@pytest.mark.parametrize("committed", [True, False])
def test_what_is_left_of_a_batch_of_unknown_outcome_is_published_once(committed: bool) -> None:
    broker = MemoryBroker({"in": 2, "out": 1})
    consumer = MemoryConsumer(broker, ["in"], "group")
    consumer.poll(0, 1)
    delivery = ExactlyOnce(consumer, lambda: MemoryTransactionalProducer(broker, "id"))
    kept, revoked = Partition("in", 0), Partition("in", 1)
    broker.fail("transact", BrokerUnavailable("no answer"), after=committed)
    with pytest.raises(WorkerError):
        delivery.publish(numbered("out", 2), {kept: 1, revoked: 1})

    if not committed:
        with pytest.raises(BrokerUnavailable):  # it asks twice before it believes that
            delivery.publish(numbered("out", 1), {kept: 1})
    delivery.publish(numbered("out", 1), {kept: 1})

    assert len(broker.records("out")) == (2 if committed else 1)
    assert broker.offsets("group")[kept] == 1


def test_a_refused_commit_leaves_no_trace_in_transactions() -> None:
    stage = Stage(guarantee="exactly_once").feed(mixed(partitions=1))
    stage.broker.fail("transact", CommitRefused("the group has a new generation"))
    worker = stage.worker()
    worker.loop.step()

    assert stage.broker.records("scores") == []
    assert stage.broker.records("state") == []
    worker.drain()
    assert verdict(stage).problems == []
