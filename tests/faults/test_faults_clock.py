"""The wall clock jumps by an hour in mid-stream: what is scored, alerted and committed stays the same."""

import time
from random import Random

import pytest

from devtools import traffic
from devtools.stage import GROUP, Guarantee, Stage, assert_as_undisturbed
from worker.ops.health import Health
from worker.ops.metrics import Metrics
from worker.processes.signals import LoopSignals
from worker.records import Message

HOUR_S = 3600
START_S = 1_767_225_600


@pytest.fixture
def jumping_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the wall clock finds it an hour later or earlier; the monotonic clock goes on."""
    rng = Random(0)

    def now() -> int:
        return START_S + rng.choice((-HOUR_S, 0, HOUR_S))

    monkeypatch.setattr(time, "time", lambda: float(now()))
    monkeypatch.setattr(time, "time_ns", lambda: now() * 1_000_000_000)


def jumping(count: int = 1500) -> list[Message]:
    """Traffic whose append times jump back and forth by an hour."""
    shifted = []
    for number, message in enumerate(traffic.messages(count, partitions=2)):
        timestamp = (START_S + number + (HOUR_S, 0, -HOUR_S)[number // 100 % 3]) * 1000
        shifted.append(Message(message.topic, message.partition, message.offset, timestamp, message.key, message.value))
    return shifted


@pytest.mark.usefixtures("jumping_clock")
@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_an_hour_forth_and_back_changes_no_score_and_no_alert(guarantee: Guarantee) -> None:
    stage = Stage(partitions=2, guarantee=guarantee).feed(jumping())
    worker = stage.worker()
    worker.loop.wall_clock = lambda: f"{time.time():.0f}"
    health = Health(stall_s=60.0)
    worker.loop.events = LoopSignals(worker.consumer, worker.pipeline, Metrics(), health)

    alive = set()
    while not stage.is_drained():
        worker.loop.step()
        alive.add(health.is_alive())

    assert_as_undisturbed(stage)
    assert alive == {True}
    assert sum(stage.broker.offsets(GROUP).values()) == 1500
    assert len({alert["detected_at"] for alert in stage.published("alerts")}) > 1
