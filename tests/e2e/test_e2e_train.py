"""`worker train` beside `worker run` on a real broker: a first model, a change of the traffic, a kill in between."""

import signal
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from devtools.brokers import eventually, produce_values, read_all
from devtools.refit_streams import SCHEMA, Traffic
from devtools.sites import Site
from worker.broker.client import Connection
from worker.formats.base import Row
from worker.model.store.model_store import ModelStore
from worker.model.store.pointer import Status

pytestmark = pytest.mark.broker

QUICKLY = {
    "WORKER_TRAIN__INTERVAL_S": "3600",
    "WORKER_TRAIN__MIN_RECORDS": "500",
    "WORKER_TRAIN__REPLACED_CHECKS": "2",
    "WORKER_MODEL__OPTIONS": '{"steps": 200}',
    "WORKER_MODEL__HIDDEN": "32,16,32",
    "WORKER_LOG__FORMAT": "console",
}


@pytest.fixture
def site(connection: Connection, tmp_path: Path, group: str) -> Iterator[Site]:
    site = Site(tmp_path, connection, f"in-{group}", **QUICKLY)
    site.create_topics(2)
    (tmp_path / "schema.toml").write_text(SCHEMA.to_toml())
    yield site
    site.close()


def send(site: Site, rows: list[Row]) -> None:
    produce_values(site.connection, site.input_topic, [orjson.dumps(row) for row in rows])


def versions_that_scored(site: Site) -> set[str]:
    return {orjson.loads(record.value or b"")["model_version"] for record in read_all(site.connection, site.scores)}


def test_traffic_that_was_replaced_is_announced_held_and_learned_while_the_worker_serves_on(site: Site) -> None:
    store, traffic = ModelStore(site.folder / "models"), Traffic(0)
    run, train = site.start("run"), site.start("train")
    send(site, traffic.rows(1_500))
    train.wait_for("first model")
    first = str(store.current())
    run.wait_for("started")
    train.wait_for("started")

    send(site, traffic.rows(2_500, shifted=True))
    train.wait_for("all traffic was replaced")
    eventually(lambda: any(mark.status is Status.HELD for mark in store.marks().values()), 120, "a held candidate")
    assert store.current() == first
    eventually((site.folder / "trainer-state.npz").exists, 120, "the trainer's state")

    train.kill()
    train = site.start("train")
    train.wait_for("started")
    send(site, traffic.rows(2_500, shifted=True))
    site.wait_until_drained()
    train.process.send_signal(signal.SIGUSR1)  # check now
    eventually(lambda: store.current() != first, 60, "a promotion")
    second = str(store.current())
    run.wait_for("model swapped")
    send(site, traffic.rows(500, shifted=True))
    site.wait_until_drained()

    assert versions_that_scored(site) == {first, second}
    assert store.marks()[second].by == "trainer"
    assert train.stop() == 0
    assert run.stop() == 0
    scored = [orjson.loads(record.value or b"")["source"] for record in read_all(site.connection, site.scores)]
    places = [(source["partition"], source["offset"]) for source in scored]
    assert len(places) == len(set(places)) == 7_000


def test_a_trainer_that_is_stopped_in_a_fit_ends_at_once(site: Site) -> None:
    send(site, Traffic(0).rows(2_000))
    train = site.start("train", settings={"WORKER_MODEL__OPTIONS": '{"steps": 1000000}', "WORKER_LOG__LEVEL": "info"})
    train.wait_for("fitting one")

    assert train.stop() == 0
    assert ModelStore(site.folder / "models").current() is None
