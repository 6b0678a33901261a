"""One contract for every kind of store: what is current, what was decided, what is removed."""

import threading
import time
from pathlib import Path

import pytest

from devtools import traffic
from devtools.objects import ObjectServer
from devtools.store_files import put
from worker.errors import Hint, StoreConflict, StoreError
from worker.model.store.bundle import Bundle, with_report
from worker.model.store.model_store import ModelStore
from worker.model.store.pointer import Mark, Status

HOUR_S = 3600.0


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["directory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> ModelStore:
    if request.param == "s3":
        server: ObjectServer = request.getfixturevalue("object_server")
        return server.store(clock=clock)
    return ModelStore(tmp_path / "models", clock=clock)


def version(number: int) -> Bundle:
    """The same small model under a version of its own, younger than those with a lower number."""
    bundle = with_report(traffic.bundle(), number=number)
    values = {name: getattr(bundle, name) for name in Bundle.__slots__}
    return Bundle(**{**values, "created_at": f"2026-01-01T00:00:{number:02d}.000Z"})


def filled(store: ModelStore, count: int) -> list[str]:
    """Save versions, oldest first."""
    bundles = [version(number) for number in range(count)]
    for bundle in bundles:
        store.save(bundle)
    return [bundle.version for bundle in bundles]


def mark(status: Status, why: str = "") -> Mark:
    return Mark(status, "2026-01-01T00:00:00.000Z", "trainer", why, {"auc": 0.75})


def test_promote_and_rollback_move_the_pointer(store: ModelStore) -> None:
    first, second = filled(store, 2)
    assert store.current() is None

    store.promote(first)
    store.promote(second)

    assert store.current() == second
    assert store.rollback() == first
    assert store.current() == first
    with pytest.raises(StoreError, match="nothing to go back to"):
        store.rollback()


def test_marks_come_back_as_they_were_noted(store: ModelStore) -> None:
    first, second = filled(store, 2)

    store.mark(first, mark(Status.CANDIDATE))
    store.mark(first, mark(Status.REJECTED, "not better anywhere"))
    store.mark(second, mark(Status.HELD))

    assert store.marks() == {first: mark(Status.REJECTED, "not better anywhere"), second: mark(Status.HELD)}
    assert [entry.mark for entry in store.versions()] == [
        mark(Status.REJECTED, "not better anywhere"),
        mark(Status.HELD),
    ]


def test_a_promotion_says_who_and_when(store: ModelStore) -> None:
    first, second = filled(store, 2)

    store.promote(first)
    store.promote(second, mark=mark(Status.PROMOTED, "alert rate"))

    assert (store.marks()[first].status, store.marks()[first].by) == (Status.PROMOTED, "operator")
    assert store.marks()[second] == mark(Status.PROMOTED, "alert rate")


def test_a_promotion_that_expects_another_current_version_is_refused(store: ModelStore) -> None:
    first, second, third = filled(store, 3)
    store.promote(first, expected=None)
    store.promote(second, expected=first)

    for expected in (None, first):
        with pytest.raises(StoreConflict, match=second):
            store.promote(third, expected=expected)

    assert store.current() == second


@pytest.mark.parametrize("status", [Status.VETOED, Status.ROLLED_BACK])
def test_a_version_that_was_ruled_out_is_promoted_only_by_force(store: ModelStore, status: Status) -> None:
    (first,) = filled(store, 1)
    store.mark(first, mark(status, "too many alerts"))

    with pytest.raises(StoreError, match="too many alerts") as error:
        store.promote(first)
    assert error.value.hint is Hint.FORCE_THE_PROMOTION

    assert store.current() is None
    store.promote(first, force=True)
    assert store.current() == first


def test_a_promotion_that_is_there_already_by_the_same_decision_is_no_conflict(store: ModelStore) -> None:
    first, second = filled(store, 2)
    store.mark(second, mark(Status.VETOED))
    store.promote(first, mark=mark(Status.PROMOTED))
    for _ in range(2):
        store.promote(second, expected=first, mark=mark(Status.PROMOTED), force=True)

    assert store.current() == second
    assert store.marks()[second].forced
    assert store.rollback() == first


def test_a_rollback_marks_what_it_leaves(store: ModelStore) -> None:
    first, second = filled(store, 2)
    store.promote(first)
    store.promote(second)

    store.rollback(leaving=second, mark=mark(Status.ROLLED_BACK, "benign error"))

    assert store.marks()[second] == mark(Status.ROLLED_BACK, "benign error")
    assert store.marks()[first].status is Status.PROMOTED


def test_of_two_workers_that_roll_back_the_second_hears_of_it(store: ModelStore) -> None:
    versions = filled(store, 3)
    for name in versions:
        store.promote(name)
    store.rollback(leaving=versions[2])

    with pytest.raises(StoreConflict, match=versions[2]):
        store.rollback(leaving=versions[2])

    assert store.current() == versions[1]


def test_a_rollback_skips_what_was_ruled_out_and_what_is_broken(store: ModelStore) -> None:
    versions = filled(store, 5)
    for name in versions:
        store.promote(name)
    store.mark(versions[3], mark(Status.VETOED))
    store._volume.remove_folder(versions[2])

    assert store.rollback() == versions[1]
    assert store.rollback() == versions[0]


def test_a_rollback_from_a_version_that_was_current_twice_does_not_lead_to_itself(store: ModelStore) -> None:
    first, second = filled(store, 2)
    for name in (first, second, first):
        store.promote(name)

    assert store.rollback() == second
    with pytest.raises(StoreError, match="nothing to go back to"):
        store.rollback()


def test_pruning_keeps_the_newest_the_current_the_last_two_before_it_and_the_held(
    store: ModelStore, clock: Clock
) -> None:
    versions = filled(store, 10)
    for name in versions[:4]:
        store.promote(name)
    store.mark(versions[5], mark(Status.HELD))
    store.mark(versions[6], mark(Status.VETOED))
    clock.now += 2 * HOUR_S

    removed = store.prune(2)

    assert removed == [versions[number] for number in (0, 4, 6, 7)]
    assert [entry.version for entry in store.versions()] == [versions[n] for n in (1, 2, 3, 5, 8, 9)]
    assert store.marks().keys() == {versions[n] for n in (1, 2, 3, 5, 6)}
    assert store.prune(2) == []


def test_pruning_keeps_what_was_written_marked_or_left_within_the_hour(store: ModelStore, clock: Clock) -> None:
    versions = filled(store, 6)
    for name in versions[:5]:
        store.promote(name)

    assert store.prune(1) == []

    clock.now += 2 * HOUR_S
    store.mark(versions[0], Mark(Status.REJECTED, store._mark(Status.REJECTED).at, "trainer"))
    store.promote(versions[4])
    assert store.prune(1) == [versions[1]]


def test_a_removal_that_was_interrupted_is_completed_and_its_version_is_never_promoted(
    store: ModelStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = filled(store, 4)
    store.promote(versions[3])
    clock.now += 2 * HOUR_S
    with monkeypatch.context() as patch:
        patch.setattr(store._volume, "remove_folder", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.prune(2)

    with pytest.raises(StoreConflict, match="being removed"):
        store.promote(versions[0])
    assert store.prune(2) == versions[:2]
    assert [entry.version for entry in store.versions()] == versions[2:]


def interrupted(_: str) -> None:
    raise KeyboardInterrupt


def test_many_threads_lose_no_mark_of_another(store: ModelStore) -> None:
    names = [f"v{number}" for number in range(8)]
    threads = [threading.Thread(target=store.mark, args=(name, mark(Status.CANDIDATE))) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(store.marks()) == names


def test_saving_a_version_again_repairs_it(store: ModelStore) -> None:
    (name,) = filled(store, 1)
    put(store, f"{name}/weights.safetensors", b"")

    store.save(version(0))

    assert store.load(name).version == name
