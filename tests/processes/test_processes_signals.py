"""What metrics and health say of the loop's events."""

import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace

import pytest

from devtools import traffic
from devtools.memory_broker import MemoryBroker
from devtools.memory_clients import MemoryConsumer
from worker.ops.health import Health
from worker.ops.metrics import Metrics
from worker.pipeline import Model, Pipeline
from worker.processes.loop_signals import GARBAGE_OBJECTS, Observer


@pytest.fixture
def consumer() -> Iterator[MemoryConsumer]:
    consumer = MemoryConsumer(MemoryBroker({"in": 1}), ["in"], "group")
    yield consumer
    consumer.close(1.0)


def test_alerts_that_were_not_published_are_counted_by_what_kept_them_back(consumer: MemoryConsumer) -> None:
    metrics = Metrics()
    pipeline = Pipeline(Model(traffic.bundle()), threshold_factory=traffic.plain_threshold())
    outcome = pipeline.process(traffic.messages(1000))
    outcome = replace(outcome, silenced={"pigeons": 3, "nights": 1}, grouped=7, rate_limited=5)

    Observer(consumer, pipeline, metrics, Health()).batch(outcome, process_s=0.1, deliver_s=0.1)

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(f"{name}_total", labels)

    assert value("worker_alerts_silenced", rule="pigeons") == 3
    assert value("worker_alerts_silenced", rule="nights") == 1
    assert value("worker_alerts_grouped") == 7
    assert value("worker_alerts_rate_limited") == 5
    published = sum(value("worker_alerts", severity=name) or 0 for name in ("info", "warning", "critical"))
    assert published == len(outcome.alerts)


def test_it_is_ready_only_while_it_is_a_member_of_its_group(consumer: MemoryConsumer) -> None:
    health = Health()
    observer = Observer(
        consumer, Pipeline(Model(traffic.bundle()), threshold_factory=traffic.plain_threshold()), Metrics(), health
    )
    health.ready()
    found = []
    for change in (
        lambda: None,
        lambda: consumer.poll(0, 1),
        lambda: consumer._broker.leave(consumer),
        lambda: consumer.poll(0, 1),
    ):
        change()
        observer.beat()
        found.append(list(health.reasons()))

    assert found == [["group"], [], ["group"], []]


class Knot:
    """Garbage that only the collector can free."""

    def __init__(self) -> None:
        self.own = [self]


def test_garbage_is_collected_between_two_batches_where_there_is_enough_of_it(consumer: MemoryConsumer) -> None:
    pipeline = Pipeline(Model(traffic.bundle()), threshold_factory=traffic.plain_threshold())
    observer = Observer(consumer, pipeline, Metrics(), Health())
    threshold = gc.get_threshold()
    gc.set_threshold(10 * GARBAGE_OBJECTS)
    try:
        gc.collect()
        knot = weakref.ref(Knot())

        observer.tidy()
        assert knot() is not None

        knots = [Knot() for _ in range(GARBAGE_OBJECTS)]
        observer.tidy()
    finally:
        gc.set_threshold(*threshold)
    assert knot() is None
    assert len(knots) == GARBAGE_OBJECTS
