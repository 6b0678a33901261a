"""What metrics and health say of the loop's events."""

import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from devtools import traffic
from devtools.memory_broker import MemoryBroker
from devtools.memory_clients import MemoryConsumer
from worker.errors import DeliveryError, RegistryUnavailable
from worker.features.schema import parse_schema
from worker.formats.json_objects import JsonDecoder
from worker.ops.health import Health
from worker.ops.metrics import Metrics
from worker.pipeline import Model, Pipeline
from worker.processes.first_records import FirstRecords
from worker.processes.signals import GARBAGE_OBJECTS, LoopSignals
from worker.records import Partition


@pytest.fixture
def consumer() -> Iterator[MemoryConsumer]:
    consumer = MemoryConsumer(MemoryBroker({"in": 1}), ["in"], "group")
    yield consumer
    consumer.close(1.0)


def test_alerts_that_were_not_published_are_counted_by_what_kept_them_back(consumer: MemoryConsumer) -> None:
    metrics = Metrics()
    pipeline = Pipeline(Model(traffic.bundle()), threshold_factory=traffic.plain_threshold())
    outcome = pipeline.process(traffic.messages(1000))
    outcome = replace(outcome, silenced={"pigeons": 3, "nights": 1}, grouped=7, rate_limited=5, unexpected={"at": 2})

    LoopSignals(consumer, pipeline, metrics, Health()).batch(outcome, process_s=0.1, deliver_s=0.1)

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(f"{name}_total", labels)

    assert value("worker_alerts_silenced", rule="pigeons") == 3
    assert value("worker_alerts_silenced", rule="nights") == 1
    assert value("worker_unexpected_values", field="at") == 2
    assert value("worker_alerts_grouped") == 7
    assert value("worker_alerts_rate_limited") == 5
    published = sum(value("worker_alerts", severity=name) or 0 for name in ("info", "warning", "critical"))
    assert published == len(outcome.alerts)


def test_it_is_ready_only_while_it_is_a_member_of_its_group(consumer: MemoryConsumer) -> None:
    health = Health()
    observer = LoopSignals(
        consumer, Pipeline(Model(traffic.bundle()), threshold_factory=traffic.plain_threshold()), Metrics(), health
    )
    health.ready()
    waits = []
    for change in (
        lambda: None,
        lambda: consumer.poll(0, 1),
        lambda: consumer._broker.leave(consumer),
        lambda: consumer.poll(0, 1),
    ):
        change()
        observer.beat()
        waits.append(list(health.reasons()))

    assert waits == [["group"], [], ["group"], []]


def test_it_is_not_ready_while_a_schema_registry_is_away_and_says_so_once(consumer: MemoryConsumer) -> None:
    pipeline = Pipeline(Model(traffic.bundle()), threshold_factory=traffic.plain_threshold())
    health, metrics = Health(), Metrics()
    health.ready()
    with capture_logs() as logs:
        signals = LoopSignals(consumer, pipeline, metrics, health)
        for attempt in (1, 2, 3):
            signals.retrying(RegistryUnavailable("the registry is away"), attempt)
        reasons = health.reasons()
        signals.batch(pipeline.process(traffic.messages(10)), process_s=0.1, deliver_s=0.1)

    assert reasons == {"registry": "the registry is away"}
    assert health.reasons() == {}
    assert metrics.registry_retries._value.get() == 3
    assert metrics.broker_retries._value.get() == 0
    assert [line["event"] for line in logs] == ["retrying, nothing is lost"]


class Knot:
    """Garbage that only the collector can free."""

    def __init__(self) -> None:
        self.own = [self]


def test_garbage_is_collected_between_two_batches_where_there_is_a_lot_of_it(consumer: MemoryConsumer) -> None:
    pipeline = Pipeline(Model(traffic.bundle()), threshold_factory=traffic.plain_threshold())
    signals, outcome = LoopSignals(consumer, pipeline, Metrics(), Health()), pipeline.process(traffic.messages(10))
    threshold = gc.get_threshold()
    gc.set_threshold(10 * GARBAGE_OBJECTS)
    try:
        gc.collect()
        knot = weakref.ref(Knot())

        signals.batch(outcome, process_s=0.1, deliver_s=0.1)
        assert knot() is not None

        knots = [Knot() for _ in range(GARBAGE_OBJECTS)]
        signals.batch(outcome, process_s=0.1, deliver_s=0.1)
    finally:
        gc.set_threshold(*threshold)
    assert knot() is None
    assert len(knots) == GARBAGE_OBJECTS


def test_a_row_of_the_table_logs_its_events_parameters_and_counts(consumer: MemoryConsumer) -> None:
    metrics = Metrics()
    pipeline = Pipeline(Model(traffic.bundle()), threshold_factory=traffic.plain_threshold())

    with capture_logs() as logs:
        signals = LoopSignals(consumer, pipeline, metrics, Health())
        signals.checkpoint_restored(Partition("in", 0), 17)
        signals.checkpoint_rebuilt(Partition("in", 1), why="too old")
        signals.retrying(DeliveryError("no answer"), attempt=2)
        signals.rebalanced([Partition("in", 1), Partition("in", 0)], [])

    assert logs[0] == {"event": "threshold restored", "log_level": "info", "partition": "in-0", "next_offset": 17}
    assert (logs[1]["log_level"], logs[1]["partition"], logs[1]["why"]) == ("warning", "in-1", "too old")
    assert (str(logs[2]["error"]), logs[2]["kind"], logs[2]["attempt"]) == ("no answer", "DeliveryError", 2)
    assert (logs[3]["assigned"], logs[3]["revoked"]) == (["in-0", "in-1"], [])
    values = [metrics.checkpoint_restores.labels("restored"), metrics.checkpoint_restores.labels("rebuilt")]
    assert [value._value.get() for value in [*values, metrics.delivery_failures, metrics.broker_retries]] == [
        1,
        1,
        1,
        0,
    ]


def test_fields_that_the_first_records_spell_otherwise_are_said_once() -> None:
    schema = parse_schema(traffic.SCHEMA_TEXT.replace("[fields.amount]", "[fields.amuont]"))
    first = FirstRecords(schema, JsonDecoder())
    messages = traffic.messages(1500)

    assert first.note(messages[:900]) is None
    assert first.note(messages[900:]) == "none of 1,000 records has a value in 'amuont' (did you mean 'amount'?)"
    assert first.note(messages) is None
    assert FirstRecords(traffic.schema(), JsonDecoder()).note(messages) is None
