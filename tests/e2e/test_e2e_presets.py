"""Every preset once through `worker train --once`, a running worker that swaps to it and back, and `worker replay`."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import orjson
import pytest
import structlog

from devtools import traffic
from devtools.brokers import JOIN_FAST, Broker, produce, read_all
from devtools.sites import Site, WorkerProcess
from tests.contracts import VALID_ALERT, VALID_SCORE
from worker.broker.client import Connection
from worker.cli import main
from worker.model.presets import PRESETS
from worker.model.store.model_store import ModelStore
from worker.records import Outgoing

pytestmark = pytest.mark.broker

HISTORY, SENT = 600, 400
NARROW = {name for name in PRESETS if "latent" in PRESETS[name].values}


class Running:
    """One worker that stays up while models come and go, and what it publishes."""

    def __init__(self, site: Site, worker: WorkerProcess) -> None:
        self.site, self.worker = site, worker
        self.base = traffic.bundle().version
        self._sent = 0

    def sends(self, seed: int) -> list[bytes]:
        """Publishes a stretch of traffic and waits until it is committed; the payloads."""
        values = [message.value or b"" for message in traffic.messages(SENT, seed=seed)]
        produce(self.site.connection, [Outgoing(self.site.input_topic, None, value) for value in values])
        self.site.wait_until_drained()
        self._sent += SENT
        return values

    def latest(self, topic: str) -> list[dict[str, Any]]:
        """What was published about the stretch that was sent last, in input order."""
        published = [orjson.loads(record.value or b"") for record in read_all(self.site.connection, topic)]
        latest = [entry for entry in published if entry["source"]["offset"] >= self._sent - SENT]
        return sorted(latest, key=lambda entry: entry["source"]["offset"])

    def waits_for_swap_to(self, version: str, times: int = 1) -> None:
        """Until the worker has swapped to this version so many times."""
        self.worker.wait_for_count(f'"new":"{version}"', times)


@pytest.fixture(scope="module")
def running(kafka_broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    connection = Connection(kafka_broker.bootstrap_servers, options=JOIN_FAST)
    settings = {"WORKER_MODEL_CANARY_RECORDS": "0", "WORKER_DEVICE": "cpu"}
    with closing(Site(tmp_path_factory.mktemp("presets"), connection, "in-presets", **settings)) as site:
        site.create_topics()
        site.put_model()
        history = b"\n".join(map(orjson.dumps, traffic.rows(HISTORY))) + b"\n"
        (site.folder / "history.jsonl").write_bytes(history)
        worker = site.start()
        worker.wait_for("rebalanced")
        yield Running(site, worker)


def quickly(name: str) -> dict[str, str]:
    """Settings that fit a preset in a moment: few passes, and a latent that fits this narrow input."""
    length = {"WORKER_MODEL__OPTIONS": '{"steps": 60}'} if name == "denoising" else {"WORKER_MODEL__EPOCHS": "4"}
    return {"WORKER_MODEL__PRESET": name, "WORKER_TRAIN__MIN_RECORDS": "100", **length} | (
        {"WORKER_MODEL__LATENT": "5"} if name in NARROW else {}
    )


@pytest.mark.parametrize(("name", "seed"), [(name, 10 + seed) for seed, name in enumerate(PRESETS)])
def test_a_preset_is_fitted_served_swapped_and_replayed(
    running: Running, name: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, store = running.site, ModelStore(running.site.folder / "models")
    monkeypatch.chdir(site.folder)
    for variable, value in {**site.environment, **quickly(name)}.items():
        monkeypatch.setenv(variable, value)
    backwards = running.worker.count(f'"new":"{running.base}"') + 1

    assert main(["train", "--once", "--from", "history.jsonl"]) == 0
    structlog.reset_defaults()
    version = store.current()
    assert version is not None
    assert store.load(version).report["preset"] == name
    running.waits_for_swap_to(version)
    values = running.sends(seed)
    scores, alerts = running.latest(site.scores), running.latest(site.alerts)
    assert main(["models", "promote", running.base]) == 0
    running.waits_for_swap_to(running.base, backwards)
    running.sends(seed)
    (site.folder / "sent.jsonl").write_bytes(b"\n".join(values) + b"\n")
    assert main(["replay", "sent.jsonl", "--model", version, "--out", name]) == 0

    assert {score["model_version"] for score in scores} == {version}
    assert {score["model_version"] for score in running.latest(site.scores)} == {running.base}
    assert len(scores) == SENT
    for score in scores:
        VALID_SCORE.validate(score)
    assert alerts
    for alert in alerts:
        VALID_ALERT.validate(alert)
    replayed = [orjson.loads(line) for line in (site.folder / name / "alerts.jsonl").read_bytes().splitlines()]
    keys = ("score", "threshold", "explanation", "record", "severity", "tail_probability", "model_version")
    assert [[alert[key] for key in keys] for alert in replayed] == [[alert[key] for key in keys] for alert in alerts]
    assert orjson.loads((site.folder / name / "metrics.json").read_bytes())["scored"] == SENT
