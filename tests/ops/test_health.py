"""Health: beats, reasons, the watchdog and the HTTP server."""

import json
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import pytest
from structlog.testing import capture_logs

from devtools.brokers import eventually
from worker.errors import SettingsError
from worker.ops.health import GuardedThread, Health, Watchdog, all_stacks
from worker.ops.metrics import Metrics
from worker.ops.server import HealthServer
from worker.records import Partition


class Clock:
    """Monotonic seconds, moved by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Probe:
    """A health server and its client."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.health = Health(stall_s=60, clock=self.clock)
        self.metrics = Metrics()
        self.server = HealthServer(self.health, self.metrics.registry, host="127.0.0.1", port=0)

    def get(self, path: str, accept: str = "*/*") -> tuple[int, str]:
        url = f"http://127.0.0.1:{self.server.port}{path}"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept}), timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


@pytest.fixture
def probe() -> Iterator[Probe]:
    probe = Probe()
    with probe.server:
        yield probe


def test_alive_until_no_beat_came_for_too_long(probe: Probe) -> None:
    probe.clock.now += 60
    in_time = probe.get("/livez")
    probe.clock.now += 1
    late = probe.get("/livez")
    probe.health.beat()
    again = probe.get("/livez")

    assert in_time[0] == 200
    assert (late[0], json.loads(late[1])) == (503, {"alive": False, "silence_s": 61.0})
    assert again[0] == 200


def test_ready_once_nothing_is_waited_for(probe: Probe) -> None:
    starting = probe.get("/readyz")
    probe.health.waiting("model", "no model in the store yet")
    probe.health.ready()
    waiting = probe.get("/readyz")
    probe.health.ready("model")
    ready = probe.get("/readyz")

    assert (starting[0], json.loads(starting[1])["reasons"]) == (503, {"start": "starting"})
    assert (waiting[0], json.loads(waiting[1])["reasons"]) == (503, {"model": "no model in the store yet"})
    assert (ready[0], json.loads(ready[1])) == (200, {"ready": True, "reasons": {}})


def test_metrics_are_served_in_the_prometheus_format(probe: Probe) -> None:
    probe.metrics.records_scored.inc(3)
    probe.metrics.threshold.labels("t", "0").set(1.5)
    probe.metrics.use_model("old")
    probe.metrics.use_model("new")

    lines = probe.get("/metrics")[1].splitlines()

    assert "worker_records_scored_total 3.0" in lines
    assert 'worker_threshold{partition="0",topic="t"} 1.5' in lines
    assert 'worker_dead_letters_total{code="invalid_json"} 0.0' in lines
    assert [line for line in lines if line.startswith("worker_model_info{")] == ['worker_model_info{version="new"} 1.0']


def test_openmetrics_is_served_to_those_who_ask(probe: Probe) -> None:
    assert probe.get("/metrics", accept="application/openmetrics-text; version=1.0.0")[1].endswith("# EOF\n")


def test_a_lost_partition_leaves_no_series(probe: Probe) -> None:
    probe.metrics.threshold.labels("t", "0").set(1.5)
    probe.metrics.lag_records.labels("t", "1").set(5)

    probe.metrics.forget(Partition("t", 0))

    text = probe.get("/metrics")[1]
    assert "worker_threshold{" not in text
    assert 'worker_lag_records{partition="1",topic="t"} 5.0' in text


def test_two_processes_in_one_have_their_own_metrics() -> None:
    one, other = Metrics(), Metrics()

    one.records_scored.inc()

    assert other.registry.get_sample_value("worker_records_scored_total") == 0


def test_an_unknown_path_is_not_found(probe: Probe) -> None:
    assert probe.get("/")[0] == 404


def test_a_port_in_use_is_named(probe: Probe) -> None:
    with pytest.raises(SettingsError, match=rf"\[http.port\] = {probe.server.port} on .*in use"):
        HealthServer(probe.health, probe.metrics.registry, host="127.0.0.1", port=probe.server.port)


def test_the_watchdog_logs_all_stacks_once_per_stall() -> None:
    clock = Clock()
    health = Health(stall_s=60, clock=clock)
    watchdog = Watchdog(health)

    with capture_logs() as logs:
        watchdog.check()
        clock.now += 61
        watchdog.check()
        watchdog.check()
        health.beat()
        watchdog.check()

    assert [entry["event"] for entry in logs] == ["stalled", "moving again"]
    assert "test_the_watchdog_logs_all_stacks_once_per_stall" in logs[0]["stacks"]


def test_the_watchdog_stops_when_it_is_closed() -> None:
    with Watchdog(Health()):
        names = [thread.name for thread in threading.enumerate()]

    assert "watchdog" in names
    assert "watchdog" not in [thread.name for thread in threading.enumerate()]


def out_of_memory() -> None:
    raise MemoryError


def a_surprise() -> None:
    raise KeyError("format")


def an_exit() -> None:
    raise SystemExit("a library gave up")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (a_surprise, "KeyError: 'format'"),
        (out_of_memory, "MemoryError: "),
        (an_exit, "SystemExit: a library gave up"),
        (lambda: None, None),
    ],
)
def test_a_thread_that_dies_fails_liveness_and_is_named_once(
    probe: Probe, target: Callable[[], None], said: str | None
) -> None:
    with capture_logs() as logs:
        thread = GuardedThread(probe.health, target, "model-watcher")
        thread.start()
        thread.join()
    probe.health.beat()
    status, answer = probe.get("/livez")

    assert (status, json.loads(answer).get("died")) == ((503, {"model-watcher": said}) if said else (200, None))
    assert [entry["thread"] for entry in logs if entry["log_level"] == "error"] == ["model-watcher"] * bool(said)


def test_a_check_of_the_watchdog_that_fails_is_told_as_its_death() -> None:
    health = Health()
    with capture_logs() as logs, Watchdog(health, [a_surprise]):
        eventually(lambda: not health.is_alive(), 10, "not alive")

    assert list(health.deaths()) == ["watchdog"]
    assert [entry["thread"] for entry in logs] == ["watchdog"]


def test_the_watchdog_needs_no_folder_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    clock = Clock()
    health = Health(stall_s=1, clock=clock)
    with capture_logs() as logs, Watchdog(health):
        clock.now += 2
        eventually(lambda: len(logs) == 1, 10, "stalled")

    assert health.deaths() == {}
    assert "Thread watchdog:" in logs[0]["stacks"]


def test_stacks_show_every_thread() -> None:
    done = threading.Event()

    def waiting_thread() -> None:
        done.wait()

    thread = threading.Thread(target=waiting_thread)
    thread.start()
    stacks = all_stacks()
    done.set()
    thread.join()

    assert "waiting_thread" in stacks
