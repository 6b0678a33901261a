"""The watcher of the model store: a new current version is ready soon, a broken one changes nothing."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
import torch

from devtools import traffic
from devtools.brokers import eventually
from worker.errors import BundleError, StoreError, StoreUnavailable, WorkerError
from worker.model.store.bundle import WEIGHTS, Bundle, named
from worker.model.store.model_store import ModelStore
from worker.model.store.pointer import Mark, Status
from worker.ops.health import GuardedThread, Health
from worker.pipeline import Model
from worker.rollout.rollout import RolloutEvents
from worker.rollout.watcher import ModelWatcher, is_recent

OLD, NEW = (traffic.bundle(seed) for seed in (0, 1))


class Seen(RolloutEvents):
    """What the watcher reported."""

    def __init__(self) -> None:
        self.refusals: list[tuple[str, str]] = []
        self.outages: list[str] = []
        self.rolled_back: list[tuple[str, str]] = []

    def refused(self, version: str, error: WorkerError) -> None:
        self.refusals.append((version, str(error)))

    def store_unavailable(self, error: StoreError) -> None:
        self.outages.append(str(error))

    def rolled_back_in_store(self, left: str, current: str) -> None:
        self.rolled_back.append((left, current))


class Watched:
    """A store whose current version is OLD, and its watcher."""

    def __init__(self, folder: Path) -> None:
        self.store = ModelStore(folder)
        for bundle in (OLD, NEW):
            self.store.save(bundle)
        self.store.promote(OLD.version)
        self.seen = Seen()
        self.watcher = self.watch(Model)

    def watch(self, build: Callable[[Bundle], Model], shadow: str | None = None) -> ModelWatcher:
        return ModelWatcher(self.store, build, current=OLD.version, events=self.seen, shadow=shadow, check_every_s=0.01)

    def taken(self) -> str | None:
        ready = self.watcher.take()
        return ready.model.bundle.version if ready is not None else None


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    watched = Watched(tmp_path / "models")
    yield watched
    watched.watcher.close()


def test_the_current_version_is_not_loaded_again(watched: Watched) -> None:
    watched.watcher.check()

    assert watched.taken() is None


def test_a_promoted_version_is_ready_once(watched: Watched) -> None:
    watched.store.promote(NEW.version)
    watched.watcher.check()
    watched.watcher.check()

    assert watched.taken() == NEW.version
    assert watched.taken() is None


def test_a_rollback_is_followed_like_a_promotion(watched: Watched) -> None:
    watched.store.promote(NEW.version)
    watched.watcher.check()
    watched.store.rollback()
    watched.watcher.check()

    assert watched.taken() == OLD.version


def test_the_newest_of_several_wins(watched: Watched) -> None:
    for version in (NEW.version, OLD.version, NEW.version):
        watched.store.promote(version)
        watched.watcher.check()

    assert watched.taken() == NEW.version
    assert watched.taken() is None


def test_a_damaged_version_is_reported_once_and_the_next_good_one_is_taken(watched: Watched) -> None:
    watched.store.promote(NEW.version)
    weights = Path(watched.store.name) / NEW.version / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-9])
    for _ in range(3):
        watched.watcher.check()

    assert watched.taken() is None
    assert [version for version, _ in watched.seen.refusals] == [NEW.version]
    watched.store.rollback()
    watched.watcher.check()
    assert watched.taken() == OLD.version


def test_a_version_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    watched = Watched(tmp_path / "models")

    def refuse(bundle: Bundle) -> Model:
        raise BundleError(f"{bundle.version} is for another schema")

    watcher = watched.watch(refuse)
    watched.store.promote(NEW.version)
    watcher.check()
    watcher.check()

    assert watcher.take() is None
    assert watched.seen.refusals == [(NEW.version, f"{NEW.version} is for another schema")]


class Away(ModelStore):
    """A store that can be unplugged."""

    away = False

    def current(self) -> str | None:
        self._require()
        return super().current()

    def rollback(self, *, leaving: str | None = None, mark: Mark | None = None) -> str:
        self._require()
        return super().rollback(leaving=leaving, mark=mark)

    def _require(self) -> None:
        if self.away:
            raise StoreUnavailable("no route to the store")


MARK = Mark(Status.ROLLED_BACK, "2026-01-01T00:00:00.000Z", "worker", "worse")


@pytest.fixture
def on_new(tmp_path: Path) -> Watched:
    """NEW was promoted and taken."""
    watched = Watched(tmp_path / "models")
    watched.store = Away(tmp_path / "models")
    watched.watcher = watched.watch(Model)
    watched.store.promote(NEW.version)
    watched.watcher.check()
    watched.watcher.take()
    return watched


def test_a_new_version_has_to_prove_itself_and_one_that_a_rollback_brought_back_has_not(watched: Watched) -> None:
    watched.store.promote(NEW.version)
    watched.watcher.check()
    first = watched.watcher.take()
    watched.store.rollback()
    watched.watcher.check()
    second = watched.watcher.take()

    assert first is not None
    assert first.needs_canary
    assert second is not None
    assert not second.needs_canary


def test_a_version_that_a_veto_brought_back_has_nothing_to_prove(on_new: Watched) -> None:
    on_new.store.rollback(mark=Mark(Status.VETOED, MARK.at, "operator"))
    on_new.watcher.check()
    ready = on_new.watcher.take()

    assert ready is not None
    assert not ready.needs_canary


def test_a_version_that_an_operator_promotes_although_it_was_rolled_back_has_nothing_to_prove(on_new: Watched) -> None:
    on_new.watcher.reject(NEW.version, MARK, current=OLD.version)
    on_new.watcher.check()
    on_new.store.promote(NEW.version, force=True)
    on_new.watcher.check()
    ready = on_new.watcher.take()

    assert ready is not None
    assert ready.model.bundle.version == NEW.version
    assert not ready.needs_canary


def test_a_rejected_version_is_rolled_back_in_the_store_with_its_mark(on_new: Watched) -> None:
    on_new.watcher.reject(NEW.version, MARK, current=OLD.version)
    on_new.watcher.check()

    assert on_new.store.current() == OLD.version
    assert on_new.store.marks()[NEW.version] == MARK
    assert on_new.seen.rolled_back == [(NEW.version, OLD.version)]
    assert on_new.taken() is None


def test_a_rejected_version_is_not_taken_while_the_store_is_away_and_rolled_back_once_it_is_there(
    on_new: Watched,
) -> None:
    store = on_new.store
    assert isinstance(store, Away)
    store.away = True
    on_new.watcher.reject(NEW.version, MARK, current=OLD.version)
    for _ in range(3):
        on_new.watcher.check()
    outages = list(on_new.seen.outages)
    store.away = False
    on_new.watcher.check()

    assert outages == ["no route to the store"]
    assert on_new.seen.refusals == []
    assert on_new.taken() is None
    assert store.current() == OLD.version


def test_where_another_worker_was_faster_the_pointer_is_followed(on_new: Watched) -> None:
    third = traffic.bundle(2)
    on_new.store.save(third)
    on_new.store.rollback()
    on_new.store.promote(third.version)
    on_new.watcher.reject(NEW.version, MARK, current=OLD.version)
    on_new.watcher.check()

    assert on_new.taken() == third.version
    assert on_new.store.current() == third.version
    assert on_new.seen.rolled_back == []


def test_a_rejected_version_without_a_predecessor_is_said_once_and_stays_rejected(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    store.save(NEW)
    store.promote(NEW.version)
    seen = Seen()
    watcher = ModelWatcher(store, Model, current=NEW.version, events=seen)
    watcher.reject(NEW.version, MARK, current=OLD.version)
    for _ in range(3):
        watcher.check()

    assert [version for version, _ in seen.refusals] == [NEW.version]
    assert watcher.take() is None


def test_a_watcher_that_dies_after_all_fails_liveness(tmp_path: Path) -> None:
    class Broken(Seen):
        def refused(self, version: str, error: WorkerError) -> None:  # noqa: ARG002
            raise KeyError("format")

    def surprise(_: Bundle) -> Model:
        raise BundleError("of another schema")

    health = Health()
    store = Watched(tmp_path).store
    store.promote(NEW.version)
    watcher = ModelWatcher(
        store,
        surprise,
        current=OLD.version,
        events=Broken(),
        check_every_s=0.01,
        make_thread=partial(GuardedThread, health),
    )
    watcher.start()
    eventually(lambda: not health.is_alive(), 10, "not alive")
    watcher.close()

    assert health.deaths() == {"model-watcher": "KeyError: 'format'"}


def test_a_store_that_is_away_only_means_waiting(on_new: Watched) -> None:
    store = on_new.store
    assert isinstance(store, Away)
    store.away = True
    on_new.watcher.check()
    on_new.watcher.check()
    store.away = False
    on_new.watcher.check()
    store.away = True
    on_new.watcher.check()

    assert len(on_new.seen.outages) == 2
    assert on_new.seen.refusals == []


def test_a_model_whose_scores_are_not_finite_is_refused_before_it_is_taken(watched: Watched) -> None:
    network = copy.deepcopy(NEW.network)
    with torch.no_grad():
        network.out_numeric.weight.fill_(3e38)
    wild = named(replace(NEW, golden=None, network=network))
    watched.store.save(wild)
    watched.store.promote(wild.version)
    watcher = watched.watch(warm)
    watcher.check()

    assert watcher.take() is None
    assert [version for version, _ in watched.seen.refusals] == [wild.version]


def warm(bundle: Bundle) -> Model:
    model = Model(bundle)
    model.warm_up()
    return model


def test_the_shadow_is_made_ready_once_also_when_it_comes_to_the_store_later(watched: Watched) -> None:
    late = traffic.bundle(2)
    watcher = watched.watch(Model, shadow=late.version)
    watcher.check()
    early = watcher.take_shadow()
    watched.store.save(late)
    watcher.check()
    shadow = watcher.take_shadow()
    watcher.check()

    assert early is None
    assert shadow is not None
    assert shadow.bundle.version == late.version
    assert watcher.take_shadow() is None
    assert watcher.take() is None


@pytest.mark.parametrize(
    ("status", "hours", "recent"),
    [(Status.PROMOTED, 23, True), (Status.PROMOTED, 25, False), (Status.ROLLED_BACK, 1, False)],
)
def test_a_start_puts_a_version_on_canary_that_was_promoted_within_a_day(
    status: Status, hours: int, recent: bool
) -> None:
    now = datetime(2026, 1, 3, tzinfo=UTC)
    mark = Mark(status, (now - timedelta(hours=hours)).isoformat(), "trainer")

    assert is_recent(mark, now.isoformat()) is recent


def test_it_watches_on_a_thread_of_its_own(watched: Watched) -> None:
    watched.watcher.start()
    watched.store.promote(NEW.version)

    eventually(lambda: watched.taken() == NEW.version, 30.0, "the promoted version is ready")


def test_closing_one_that_never_started_does_nothing(watched: Watched) -> None:
    watched.watcher.close()
