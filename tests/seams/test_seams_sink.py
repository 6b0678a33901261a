"""A new sink is one file and one registration: it gets what the alerts topic gets, before the offsets are committed."""

from collections.abc import Collection
from contextlib import closing
from pathlib import Path

import orjson
import pytest
from typing_extensions import override

from devtools import traffic
from devtools.brokers import Broker, produce, read_all
from devtools.sites import Site
from devtools.stage import GROUP, Guarantee, Stage, assert_as_undisturbed
from worker.broker.client import Connection
from worker.errors import BrokerUnavailable, CommitRefused, DeliveryError, FatalError, SettingsError, TransientError
from worker.records import Outcome, Outgoing, Partition
from worker.settings import load_settings
from worker.stream.sinks.base import SINKS, Sink

GUARANTEES: tuple[Guarantee, ...] = ("at_least_once", "exactly_once")
REPOSITORY = Path(__file__).parents[2]


class ListSink(Sink):
    """Keeps in memory what it was given; raises what it is told to."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.sent: list[tuple[Partition, int]] = []
        self.flushes = 0
        self._added: list[tuple[Partition, int]] = []

    @override
    def add(self, outcome: Outcome) -> None:
        for message in outcome.scores.messages:
            self._added.append((Partition(message.topic, message.partition), message.offset))

    @override
    def flush(self, timeout_s: float) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.flushes += 1
        self.sent += self._added
        self._added = []

    @override
    def discard(self, partitions: Collection[Partition]) -> None:
        self._added = [entry for entry in self._added if entry[0] not in partitions]


@pytest.mark.broker
def test_a_worker_with_a_registered_sink_sends_it_every_alert(kafka_broker: Broker, tmp_path: Path) -> None:
    lines = tmp_path / "alerts.jsonl"
    settings = {
        "PYTHONPATH": str(REPOSITORY),
        "ALERTS_FILE": str(lines),
        "WORKER_SINKS": "json-lines",
        "WORKER_BATCH__SIZE": "200",
    }
    with closing(Site(tmp_path, Connection(kafka_broker.bootstrap_servers), "sink-in", **settings)) as site:
        site.create_topics()
        site.put_model()
        produce(site.connection, [Outgoing("sink-in", m.key, m.value) for m in traffic.messages(1000)])
        worker = site.start("run", module="tests.seams.json_lines_sink")
        site.wait_until_drained()
        assert worker.stop() == 0
        published = [orjson.loads(record.value or b"") for record in read_all(site.connection, site.alerts)]

    assert published
    assert [orjson.loads(line) for line in lines.read_bytes().splitlines()] == published
    assert worker.count("the file is busy") == 1


def test_a_name_that_nobody_registered_is_refused_with_the_nearest_one() -> None:
    SINKS.register("webhook", ListSink)
    try:
        settings = load_settings({"WORKER_SINKS": "webhook,webhook"})
        with pytest.raises(SettingsError, match=r"WORKER_SINKS.*unknown sink 'webhok' \(did you mean 'webhook'\?\)"):
            load_settings({"WORKER_SINKS": "webhok"})
    finally:
        SINKS.pop("webhook")

    assert settings.sinks == ("webhook",)


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_nothing_is_published_or_committed_before_every_sink_has_the_batch(
    guarantee: Guarantee, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(guarantee=guarantee).feed(traffic.messages(300))
    fast, slow = ListSink(), ListSink(*[TransientError("busy")] * 7)
    worker = stage.worker(sinks=[fast, slow])
    monkeypatch.setattr("worker.stream.loop.MAX_BACKOFF_MS", 0)
    for _ in range(7):
        worker.loop.step()

    assert (len(fast.sent), len(slow.sent)) == (100, 0)
    assert stage.broker.offsets(GROUP) == {}
    assert stage.broker.records("scores") == []
    worker.drain()
    assert worker.seen.lost == []
    assert fast.sent == slow.sent == [(Partition("in", 0), offset) for offset in range(300)]
    assert_as_undisturbed(stage)


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_a_batch_that_was_flushed_is_not_flushed_again_when_its_delivery_is_repeated(guarantee: Guarantee) -> None:
    stage = Stage(guarantee=guarantee).feed(traffic.messages(300))
    sink = ListSink()
    worker = stage.worker(sinks=[sink])
    action = "flush" if guarantee == "at_least_once" else "transact"
    stage.broker.fail(action, DeliveryError("lost"), times=3)  # type: ignore[arg-type]

    worker.drain()

    assert sink.flushes == 3
    assert sink.sent == [(Partition("in", 0), offset) for offset in range(300)]


def test_what_was_not_flushed_of_a_revoked_partition_is_left_to_its_new_owner() -> None:
    stage = Stage(partitions=2).feed(traffic.messages(400, partitions=2))
    sink, other = ListSink(TransientError("busy"), TransientError("busy")), ListSink()
    first, second = stage.worker("a", sinks=[sink], batch_size=400), stage.worker("b", sinks=[other])
    first.loop.step()
    second.loop.step()
    first.loop.step()
    kept = first.consumer.assignment()

    while not stage.is_drained():
        first.loop.step()
        second.loop.step()

    assert first.seen.lost == ["their partitions were revoked"]
    assert {partition for partition, _ in sink.sent} == kept
    assert {partition for partition, _ in other.sent} == second.consumer.assignment()
    assert len(sink.sent) + len(other.sent) == 400


def test_what_was_flushed_is_flushed_again_when_the_commit_was_refused() -> None:
    stage = Stage().feed(traffic.messages(100))
    sink = ListSink()
    worker = stage.worker(sinks=[sink], stateful=False)
    stage.broker.fail("commit", CommitRefused("the group has a new generation"))

    worker.drain()

    assert sink.sent == [(Partition("in", 0), offset) for offset in range(100)] * 2


def test_a_sink_can_end_the_worker_with_its_offsets_uncommitted() -> None:
    stage = Stage().feed(traffic.messages(100))
    worker = stage.worker(sinks=[ListSink(FatalError("the address is wrong"))])

    with pytest.raises(FatalError, match="address"):
        worker.loop.step()

    assert stage.broker.offsets(GROUP) == {}


def test_a_stop_waits_for_a_sink_as_it_does_for_the_broker() -> None:
    stage = Stage().feed(traffic.messages(100))
    sink = ListSink(BrokerUnavailable("busy"))
    worker = stage.worker(sinks=[sink])

    worker.loop.run(lambda: bool(worker.seen.retries))

    assert len(sink.sent) == 100
    assert sum(stage.broker.offsets(GROUP).values()) == 100
