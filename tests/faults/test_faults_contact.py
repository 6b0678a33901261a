"""Real processes whose broker goes away: what they say of themselves, and that a stop ends whatever they wait for."""

import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from devtools import traffic
from devtools.brokers import BlackHole, Broker, eventually, free_ports, frozen, produce
from devtools.sites import Site, WorkerProcess
from worker.broker.client import Connection
from worker.records import Outgoing

DEAD = "127.0.0.1:1"


@pytest.fixture
def black_hole() -> Iterator[BlackHole]:
    with closing(BlackHole()) as hole:
        yield hole


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.mark.timeout(400)  # four processes at once on a machine that may be busy
def test_a_stop_ends_every_wait_in_seconds(tmp_path: Path, black_hole: BlackHole) -> None:
    no_model = {"WORKER_MODEL_STORE": str(tmp_path / "empty")}
    with closing(Site(tmp_path, Connection(DEAD), "nowhere")) as site:
        site.put_model()
        waits: dict[str, tuple[WorkerProcess, str]] = {}
        for name, arguments, servers, settings, line in (
            ("a dead broker", ("run",), DEAD, {}, "no contact with the broker"),
            ("one that never answers", ("run",), black_hole.bootstrap_servers, {}, "no contact with the broker"),
            ("a first model", ("run",), DEAD, no_model, "waiting for a model"),
            (
                "a trainer's first records",
                ("train",),
                black_hole.bootstrap_servers,
                no_model,
                "no contact with the broker",
            ),
        ):
            chosen = {"WORKER_KAFKA__BOOTSTRAP_SERVERS": servers, **settings}
            waits[name] = site.start(*arguments, settings=chosen), line
        took: dict[str, float] = {}
        for name, (worker, line) in waits.items():
            worker.wait_for(line, 150)
            started = time.monotonic()
            assert worker.stop() == 0, name
            took[name] = time.monotonic() - started

    assert max(took.values()) < 20, took  # 5 on a quiet machine


@pytest.mark.broker
def test_a_worker_and_a_trainer_with_nothing_to_read_say_that_their_broker_is_away_and_that_it_is_back(
    own_broker: Broker, tmp_path: Path
) -> None:
    ports = dict(zip(("worker", "trainer"), free_ports(2), strict=True))
    with closing(Site(tmp_path, Connection(own_broker.bootstrap_servers), "in")) as site:
        site.create_topics()
        site.put_model()
        produce(site.connection, [Outgoing("in", m.key, m.value) for m in traffic.messages(100)])
        settings = {"WORKER_TRAIN__STATE_FILE": str(tmp_path / "state.npz")}
        trainer = site.start("train", settings={**settings, "WORKER_HTTP__PORT": str(ports["trainer"])})
        worker = site.start(settings={"WORKER_HTTP__PORT": str(ports["worker"])})
        trainer.wait_for('"started"')
        worker.wait_for('"rebalanced"')
        trainer.process.send_signal(signal.SIGUSR1)
        trainer.wait_for("check on request", 30)
        site.wait_until_drained()
        eventually(lambda: all(get(port, "/readyz")[0] == 200 for port in ports.values()), 30, "ready")

        with frozen(own_broker.pid):
            eventually(lambda: all(get(port, "/readyz")[0] == 503 for port in ports.values()), 40, "not ready")
            reasons = {name: get(port, "/readyz")[1] for name, port in ports.items()}
            metrics = {name: get(port, "/metrics")[1] for name, port in ports.items()}
        eventually(lambda: all(get(port, "/readyz")[0] == 200 for port in ports.values()), 30, "ready again")

        lines = [
            (process.count("no contact with the broker"), process.count("the broker answers again"))
            for process in (worker, trainer)
        ]
        with frozen(own_broker.pid):
            started = time.monotonic()
            assert worker.stop() == trainer.stop() == 0
            assert time.monotonic() - started < 30  # 10 on a quiet machine

    assert all("no answer from" in reason for reason in reasons.values())
    assert 'worker_lag_records{partition="0",topic="in"} NaN' in metrics["worker"]
    for name, gauge in (
        ("worker", "worker_last_contact_seconds "),
        ("trainer", "worker_trainer_last_contact_seconds "),
    ):
        (line,) = (line for line in metrics[name].splitlines() if line.startswith(gauge))
        assert float(line.removeprefix(gauge)) >= 10
    assert lines == [(1, 1), (1, 1)]
    assert '"decision":"waiting","reasons":["100 records since the last check, of 1000 that one takes"]' in (
        trainer.log.read_text()
    )
