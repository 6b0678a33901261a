"""The watcher of the model store: a new current version is ready soon, a broken one changes nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import traffic
from tests.brokers import eventually
from worker.errors import BundleError, WorkerError
from worker.model.bundle import WEIGHTS, Bundle
from worker.model.store import ModelStore
from worker.pipeline import Model
from worker.stream.models import ModelWatcher

OLD, NEW = (traffic.bundle(seed) for seed in (0, 1))


class Watched:
    """A store whose current version is OLD, and its watcher."""

    def __init__(self, folder: Path) -> None:
        self.store = ModelStore(folder)
        for bundle in (OLD, NEW):
            self.store.save(bundle)
        self.store.promote(OLD.version)
        self.refusals: list[tuple[str, str]] = []
        self.watcher = ModelWatcher(self.store, Model, in_force=OLD.version, refused=self._refused, look_every_s=0.01)

    def _refused(self, version: str, error: WorkerError) -> None:
        self.refusals.append((version, str(error)))

    def taken(self) -> str | None:
        model = self.watcher.take()
        return model.bundle.version if model is not None else None


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    found = Watched(tmp_path / "models")
    yield found
    found.watcher.close()


def test_the_version_in_force_is_not_loaded_again(watched: Watched) -> None:
    watched.watcher.look()

    assert watched.taken() is None


def test_a_promoted_version_is_ready_once(watched: Watched) -> None:
    watched.store.promote(NEW.version)
    watched.watcher.look()
    watched.watcher.look()

    assert watched.taken() == NEW.version
    assert watched.taken() is None


def test_a_rollback_is_followed_like_a_promotion(watched: Watched) -> None:
    watched.store.promote(NEW.version)
    watched.watcher.look()
    watched.store.rollback()
    watched.watcher.look()

    assert watched.taken() == OLD.version


def test_the_newest_of_several_wins(watched: Watched) -> None:
    for version in (NEW.version, OLD.version, NEW.version):
        watched.store.promote(version)
        watched.watcher.look()

    assert watched.taken() == NEW.version
    assert watched.taken() is None


def test_a_damaged_version_is_reported_once_and_the_next_good_one_is_taken(watched: Watched) -> None:
    watched.store.promote(NEW.version)
    weights = watched.store.root / NEW.version / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-9])
    for _ in range(3):
        watched.watcher.look()

    assert watched.taken() is None
    assert [version for version, _ in watched.refusals] == [NEW.version]
    watched.store.rollback()
    watched.watcher.look()
    assert watched.taken() == OLD.version


def test_a_version_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    watched = Watched(tmp_path / "models")

    def refuse(bundle: Bundle) -> Model:
        raise BundleError(f"{bundle.version} is for another schema")

    watcher = ModelWatcher(watched.store, refuse, in_force=OLD.version, refused=watched._refused)
    watched.store.promote(NEW.version)
    watcher.look()
    watcher.look()

    assert watcher.take() is None
    assert watched.refusals == [(NEW.version, f"{NEW.version} is for another schema")]


def test_it_watches_on_a_thread_of_its_own(watched: Watched) -> None:
    watched.watcher.start()
    watched.store.promote(NEW.version)

    eventually(lambda: watched.taken() == NEW.version, 30.0, "the promoted version is ready")


def test_closing_one_that_never_started_does_nothing(watched: Watched) -> None:
    watched.watcher.close()
