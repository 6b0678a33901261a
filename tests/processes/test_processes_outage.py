"""What the watchdog's thread sees to: health and log follow the contact, and a stop ends any wait."""

import logging
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from worker.ops.health import Health
from worker.ops.metrics import Metrics
from worker.processes.outage import LastResort, OutageWatch


class Broker:
    """A contact whose silence the test sets; the clock is its."""

    def __init__(self) -> None:
        self.now, self.heard, self.asking = 1000.0, 1000.0, True

    def silence_s(self) -> float:
        return self.now - self.heard

    def is_asking(self) -> bool:
        return self.asking


@pytest.fixture
def broker() -> Iterator[Broker]:
    yield Broker()
    logging.getLogger("kafka").setLevel(logging.NOTSET)


def watch(broker: Broker, health: Health, metrics: Metrics | None = None) -> OutageWatch:
    return OutageWatch(
        broker,  # type: ignore[arg-type]  # all of a Contact that it asks
        "one:9092,two:9092",
        health,
        on_outage=(metrics or Metrics()).forget_lag,
        clock=lambda: broker.now,
    )


def seconds(broker: Broker, watched: OutageWatch, count: int, *, answers: bool) -> None:
    for _ in range(2 * count):
        broker.now += 0.5
        if answers:
            broker.heard = broker.now
        watched.check()


@pytest.mark.parametrize(
    ("phases", "lines", "reasons"),
    [
        ([(True, 300)], [], []),
        ([(False, 9), (True, 1)], [], []),
        ([(False, 12)], ["no contact with the broker"], ["no answer from one:9092,two:9092 for 12 s"]),
        ([(False, 120)], ["no contact with the broker"] * 2, ["no answer from one:9092,two:9092 for 120 s"]),
        ([(False, 42), (True, 1)], ["no contact with the broker", "the broker answers again"], []),
        ([(False, 20), (True, 5)] * 2, ["no contact with the broker", "the broker answers again"] * 2, []),
    ],
)
def test_an_outage_is_a_reason_after_ten_seconds_and_a_line_a_minute(
    broker: Broker, phases: Sequence[tuple[bool, int]], lines: list[str], reasons: list[str]
) -> None:
    health = Health()
    health.ready()
    watched = watch(broker, health)

    with capture_logs() as logs:
        for answers, count in phases:
            seconds(broker, watched, count, answers=answers)

    assert [entry["event"] for entry in logs] == lines
    assert list(health.reasons().values()) == reasons


def test_a_client_that_began_to_ask_later_does_not_shorten_the_outage(broker: Broker) -> None:
    watched = watch(broker, Health())

    with capture_logs() as logs:
        seconds(broker, watched, 100, answers=False)
        broker.heard = broker.now - 20  # all others are answered, and it is not yet
        seconds(broker, watched, 2, answers=False)
        seconds(broker, watched, 1, answers=True)

    assert [round(entry["outage_s"]) for entry in logs if "outage_s" in entry] == [102]


def test_a_process_without_clients_and_one_that_was_paused_have_no_outage(broker: Broker) -> None:
    health = Health()
    watched = watch(broker, health)

    with capture_logs() as logs:
        broker.asking = False
        seconds(broker, watched, 60, answers=False)
        broker.asking = True
        watched.check()  # after a minute that this process did not see; its clients read what has come meanwhile
        seconds(broker, watched, 5, answers=True)

    assert logs == []
    assert "contact" not in health.reasons()


def test_the_lag_of_an_outage_is_not_known(broker: Broker) -> None:
    metrics = Metrics()
    for partition in "01":
        metrics.lag_records.labels("in", partition).set(0)
    seconds(broker, watch(broker, Health(), metrics), 12, answers=False)

    lags = [sample.value for sample in next(iter(metrics.lag_records.collect())).samples]
    assert len(lags) == 2
    assert all(map(math.isnan, lags))


def test_the_clients_lines_are_left_out_while_nobody_answers(broker: Broker) -> None:
    client = logging.getLogger("kafka.net.connection")
    watched = watch(broker, Health())
    heard = []
    for answers, count in ((True, 1), (False, 5), (True, 1)):
        seconds(broker, watched, count, answers=answers)
        heard.append(client.isEnabledFor(logging.ERROR))

    assert heard == [True, False, True]


@pytest.mark.parametrize(
    ("waited_s", "finishing", "silence_s", "ends"),
    [
        (0.0, False, 100.0, False),
        (3.4, False, 100.0, False),
        (4.1, False, 0.1, True),
        (4.1, False, 100.0, True),
        (4.1, True, 0.1, False),
        (4.1, True, 5.0, True),
        (19.0, True, 0.1, False),
        (20.1, True, 0.1, True),
    ],
)
def test_a_stop_waits_only_for_what_can_be_finished(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, waited_s: float, finishing: bool, silence_s: float, ends: bool
) -> None:
    exits: list[int] = []
    monkeypatch.setattr(os, "_exit", exits.append)
    broker.heard = broker.now - silence_s
    stop: Any = SimpleNamespace(waited_s=lambda: waited_s)

    with capture_logs() as logs:
        LastResort(stop, broker, lambda: finishing).check()  # type: ignore[arg-type]

    assert exits == [0] * ends
    assert len(logs) == ends


# A stop that comes again and again while the main thread waits for it, as fast as it can be sent.
WAITER = """
import os, signal, threading
from worker.processes.process import Stop
stop = Stop()
waits = 0
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
while not stop.wait(0.001):
    waits += 1
for _ in range(200):
    os.kill(os.getpid(), signal.SIGTERM)
    stop.wait(0)
print("stopped", waits > 0, stop(), 0 <= stop.waited_s() < 60)
"""


def test_a_stop_is_seen_in_the_middle_of_a_wait_however_often_it_comes() -> None:
    done = subprocess.run([sys.executable, "-c", WAITER], capture_output=True, text=True, timeout=60, check=False)

    assert done.stderr == ""
    assert done.stdout == "stopped True True True\n"
