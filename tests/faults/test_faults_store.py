"""A model store whose writers are killed, race, or lose it: a reader finds the old state or the new, never a mix."""

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from devtools import traffic
from devtools.brokers import eventually, produce, read_all
from devtools.objects import ObjectServer
from devtools.sites import Site
from devtools.store_files import files, put
from tests.faults.store_process import MARKS
from worker.broker.client import Connection
from worker.errors import BundleError, StoreError, StoreUnavailable, WorkerError
from worker.model.store.model_store import ModelStore
from worker.pipeline import Model
from worker.records import Outgoing
from worker.rollout.rollout import RolloutEvents
from worker.rollout.watcher import ModelWatcher

OLD, NEW = traffic.bundle(0), traffic.bundle(1)
RECORDS = 300
WRITERS = 4

MakeStore = Callable[[], ModelStore]


@pytest.fixture(params=["directory", "s3"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStore:
    """Makes empty stores of one kind."""
    if request.param == "s3":
        server: ObjectServer = request.getfixturevalue("object_server")
        return server.store
    numbers = itertools.count()
    return lambda: ModelStore(tmp_path / f"models-{next(numbers)}")


class Writer:
    """The process that works on stores; it outlives its own deaths."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.store_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert self._answer() == "ready"

    def ask(self, store: ModelStore, options: dict[str, Any], action: str, step: int = 0, processes: int = 1) -> str:
        """How the work ended in each process: done, killed, or late for its conflict. Step 0 is never reached."""
        assert self._process.stdin is not None
        request = {"place": store.name, "options": options, "action": action, "step": step, "processes": processes}
        self._process.stdin.write(orjson.dumps(request).decode() + "\n")
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        self._process.communicate(timeout=30)


@pytest.fixture(scope="module")
def writer() -> Iterator[Writer]:
    writer = Writer()
    yield writer
    writer.close()


@pytest.fixture
def options(request: pytest.FixtureRequest, make_store: MakeStore) -> dict[str, Any]:
    """How another process reaches the stores."""
    if "://" not in make_store().name:
        return {}
    server: ObjectServer = request.getfixturevalue("object_server")
    return server.options


def copied(template: dict[str, bytes], store: ModelStore) -> ModelStore:
    for path, content in template.items():
        if "://" not in store.name:
            (Path(store.name) / path).parent.mkdir(parents=True, exist_ok=True)
        put(store, path, content)
    return store


def require_whole(store: ModelStore) -> None:
    """Every version that is listed loads, and so does the current one."""
    for entry in store.versions():
        assert store.load(entry.version).version == entry.version
    assert store.load().version == store.current()


def test_killed_at_any_step_of_a_write_it_leaves_the_old_version_or_the_new(
    make_store: MakeStore, options: dict[str, Any], writer: Writer
) -> None:
    first = make_store()
    first.save(OLD)
    first.promote(OLD.version)
    template = files(first)
    seen = []
    for step in itertools.count(1):
        store = copied(template, make_store())
        end = writer.ask(store, options, "renew", step)
        seen.append(store.current())
        require_whole(store)
        if end == "done":
            break
        assert end == "killed"
        assert (
            writer.ask(store, options, "renew") == "done"
        )  # whoever comes next is not held up by what was left behind
        assert store.current() == NEW.version
        require_whole(store)

    assert step > 4
    switch = seen.index(NEW.version)
    assert seen == [OLD.version] * switch + [NEW.version] * (len(seen) - switch)
    assert switch > 0


def test_killed_at_any_step_of_a_removal_it_leaves_whole_versions_only(
    make_store: MakeStore, options: dict[str, Any], writer: Writer
) -> None:
    first, newest = make_store(), replace(NEW, created_at="2026-01-02T00:00:00.000Z")
    for bundle in (OLD, newest):
        first.save(bundle)
    first.promote(newest.version)
    template = files(first)
    for step in itertools.count(1):
        store = copied(template, make_store())
        end = writer.ask(store, options, "prune", step)
        require_whole(store)
        if end == "done":
            break
        assert end == "killed"
        assert writer.ask(store, options, "prune") == "done"
        assert [entry.version for entry in store.versions()] == [newest.version]

    assert step > 4
    assert store.current() == newest.version


def test_of_writers_in_many_processes_no_change_is_lost(
    make_store: MakeStore, options: dict[str, Any], writer: Writer
) -> None:
    store = make_store()

    assert writer.ask(store, options, "mark", processes=WRITERS) == " ".join(["done"] * WRITERS)

    assert len(store.marks()) == WRITERS * MARKS
    assert store._pointer().serial == WRITERS * MARKS


def test_of_trainers_that_promote_at_once_one_wins_and_the_others_are_told(
    make_store: MakeStore, options: dict[str, Any], writer: Writer
) -> None:
    store = make_store()
    for bundle in (OLD, NEW):
        store.save(bundle)

    answer = writer.ask(store, options, "first", processes=WRITERS)

    assert answer == " ".join(["done"] + ["late"] * (WRITERS - 1))
    assert (store._pointer().serial, store._pointer().history) == (1, ())


def says_the_same(broken: bytes | bytearray, sound: bytes) -> bool:
    """Whether both are JSON of equal values: the 17th digit of a number may be another one."""
    with suppress(orjson.JSONDecodeError):
        return bool(orjson.loads(broken) == orjson.loads(sound))
    return False


@pytest.mark.parametrize(
    ("broken", "same"),
    [(b"3.3252307176589967", True), (b"3.3252307176589926", False), (b"3.325230717658996\x00", False)],
)
def test_only_another_spelling_of_a_value_says_the_same(broken: bytes, same: bool) -> None:
    assert says_the_same(broken, b"3.3252307176589966") == same


def test_a_flipped_bit_in_any_file_is_noticed(make_store: MakeStore) -> None:
    store = make_store()
    store.save(OLD)
    store.promote(OLD.version)
    rng = np.random.default_rng(0)
    content = files(store)
    content.pop("current.lock", None)
    assert len(content) == 4
    for path, sound in content.items():
        for place in [0, len(sound) - 1, *rng.integers(0, len(sound), 3).tolist()]:
            broken = bytearray(sound)
            broken[place] ^= 1 << int(rng.integers(8))
            put(store, path, bytes(broken))
            with (
                nullcontext() if says_the_same(broken, sound) else pytest.raises((BundleError, StoreError), match=path)
            ):
                store.load()
        put(store, path, sound)

    assert store.load().version == OLD.version


def test_a_flipped_bit_anywhere_in_the_pointer_is_noticed(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    store.save(OLD)
    store.promote(OLD.version)
    sound = files(store)["current.json"]
    bits = np.random.default_rng(0).integers(0, 8, len(sound)).tolist()
    for place, bit in enumerate(bits):
        broken = bytearray(sound)
        broken[place] ^= 1 << bit
        put(store, "current.json", bytes(broken))
        with pytest.raises(StoreError, match=r"current\.json: broken"):
            store.current()


@pytest.fixture
def own_server() -> Iterator[ObjectServer]:
    """An object store of this test alone, to stop and start."""
    server = ObjectServer()
    yield server
    server.stop()


def test_while_the_store_is_away_the_model_in_force_stays_and_afterwards_the_next_one_comes(
    own_server: ObjectServer,
) -> None:
    store = own_server.store()
    for bundle in (OLD, NEW):
        store.save(bundle)
    store.promote(OLD.version)
    outages = Outages()
    watcher = ModelWatcher(store, Model, current=OLD.version, events=outages, check_every_s=0.01)
    watcher.start()

    own_server.stop()
    eventually(lambda: bool(outages.errors), 30.0, "the outage is noticed")
    assert watcher.take() is None
    for write in (lambda: store.promote(NEW.version), lambda: store.save(NEW), store.require_writable, store.rollback):
        with pytest.raises(StoreUnavailable, match=r"can't be (read|written)"):
            write()
    own_server.start()
    store.promote(NEW.version)

    eventually(lambda: watcher.take() is not None, 30.0, "the promoted version is ready")
    watcher.close()
    assert outages.refusals == []


@pytest.mark.broker
def test_a_worker_serves_on_while_the_store_is_away_and_follows_it_afterwards(
    own_server: ObjectServer, connection: Connection, tmp_path: Path, group: str
) -> None:
    store = own_server.store()
    for bundle in (OLD, NEW):
        store.save(bundle)
    store.promote(OLD.version)
    place = {
        "WORKER_MODEL_STORE": store.name,
        "WORKER_MODEL_STORE_OPTIONS": orjson.dumps(own_server.options).decode(),
        "WORKER_MODEL_CANARY_RECORDS": "0",
    }
    with closing(Site(tmp_path, connection, f"in-{group}", **place)) as site:
        site.create_topics()
        own_server.stop()
        worker = site.start()
        worker.wait_for("waiting for the model store")
        own_server.start()
        send(site, 0)
        site.wait_until_drained()
        own_server.stop()
        worker.wait_for("the model store is away")
        send(site, 1)
        site.wait_until_drained()
        own_server.start()
        store.promote(NEW.version)
        worker.wait_for("model swapped")
        send(site, 2)
        site.wait_until_drained()
        assert worker.stop() == 0, worker.log.read_text()
        scores = [orjson.loads(record.value or b"") for record in read_all(connection, site.scores)]

    assert [score["source"]["offset"] for score in scores] == list(range(3 * RECORDS))
    versions = [score["model_version"] for score in scores]
    assert versions == [OLD.version] * (2 * RECORDS) + [NEW.version] * RECORDS


def send(site: Site, seed: int) -> None:
    messages = traffic.messages(RECORDS, seed=seed, topic=site.input_topic)
    produce(site.connection, [Outgoing(m.topic, m.key, m.value, partition=m.partition) for m in messages])


class Outages(RolloutEvents):
    """What a watcher said about its store."""

    def __init__(self) -> None:
        self.errors: list[StoreError] = []
        self.refusals: list[tuple[str, WorkerError]] = []

    def store_unavailable(self, error: StoreError) -> None:
        self.errors.append(error)

    def refused(self, version: str, error: WorkerError) -> None:
        self.refusals.append((version, error))
