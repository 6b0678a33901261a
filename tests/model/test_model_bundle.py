"""A bundle is one version: it comes back whole, or it is refused."""

import shutil
from pathlib import Path

import numpy as np
import orjson
import pytest

from tests import traffic
from worker.errors import BundleError, StoreError
from worker.features.schema import parse_schema
from worker.model.bundle import MANIFEST, WEIGHTS, Bundle, load_bundle, to_files
from worker.model.store import ModelStore
from worker.pipeline import Model, Pipeline


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    store = ModelStore(tmp_path / "models")
    store.save(traffic.bundle())
    return store


def folder(store: ModelStore) -> Path:
    return store.root / traffic.bundle().version


def test_a_bundle_comes_back_with_the_same_scores(store: ModelStore) -> None:
    loaded = store.load(traffic.bundle().version)
    batch = traffic.messages(200)

    def scores(bundle: Bundle) -> list[float]:
        pipeline = Pipeline(Model(bundle), make_threshold=traffic.plain_threshold(), severity=lambda *_: "high")
        found: list[float] = pipeline.process(batch).scores.score.tolist()
        return found

    assert scores(traffic.bundle()) == scores(loaded)
    assert loaded.calibration.tolist() == traffic.bundle().calibration.tolist()
    assert loaded.report == orjson.loads(orjson.dumps(traffic.bundle().report))


def test_the_same_fit_has_the_same_version() -> None:
    again = traffic.bundle.__wrapped__()

    assert again.version == traffic.bundle().version
    assert to_files(again) == to_files(traffic.bundle())


def test_another_seed_is_another_version() -> None:
    assert traffic.bundle(1).version != traffic.bundle().version


@pytest.mark.parametrize("name", [MANIFEST, WEIGHTS])
def test_a_flipped_bit_anywhere_is_noticed(store: ModelStore, name: str) -> None:
    path = folder(store) / name
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in [0, len(content) - 1, *rng.integers(0, len(content), 60).tolist()]:
        broken = bytearray(content)
        broken[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(broken)
        with pytest.raises(BundleError):
            load_bundle(folder(store))

    path.write_bytes(content)
    load_bundle(folder(store))


@pytest.mark.parametrize("name", [MANIFEST, WEIGHTS])
@pytest.mark.parametrize("left", [0, 1, 0.5])
def test_a_file_that_was_cut_short_is_noticed(store: ModelStore, name: str, left: float) -> None:
    path = folder(store) / name
    content = path.read_bytes()
    path.write_bytes(content[: int(left if left == 1 else left * len(content))])

    with pytest.raises(BundleError, match=str(path)):
        load_bundle(folder(store))


def test_a_missing_file_is_named(store: ModelStore) -> None:
    (folder(store) / WEIGHTS).unlink()

    with pytest.raises(BundleError, match=WEIGHTS):
        load_bundle(folder(store))


def test_weights_of_another_version_are_refused(store: ModelStore) -> None:
    store.save(traffic.bundle(1))
    shutil.copy(store.root / traffic.bundle(1).version / WEIGHTS, folder(store) / WEIGHTS)

    with pytest.raises(BundleError, match="sha256"):
        load_bundle(folder(store))


def test_a_bundle_under_another_name_is_refused(store: ModelStore) -> None:
    folder(store).rename(store.root / "abcabcabcabc")

    with pytest.raises(BundleError, match="abcabcabcabc"):
        store.load("abcabcabcabc")


def test_a_bundle_of_another_schema_is_refused_with_both_fingerprints() -> None:
    other = parse_schema('[fields.amount]\nkind = "numeric"\n')

    with pytest.raises(BundleError) as error:
        traffic.bundle().require_schema(other)

    assert other.fingerprint in str(error.value)
    assert traffic.bundle().schema.fingerprint in str(error.value)


def test_promote_and_rollback_move_the_pointer(store: ModelStore) -> None:
    first, second = traffic.bundle().version, traffic.bundle(1).version
    store.save(traffic.bundle(1))
    assert store.current() is None

    store.promote(first)
    store.promote(second)

    assert store.current() == second
    assert store.rollback() == first
    assert store.current() == first
    with pytest.raises(StoreError, match="nothing to go back to"):
        store.rollback()


def test_a_broken_version_is_listed_as_broken_and_can_not_be_promoted(store: ModelStore) -> None:
    (folder(store) / MANIFEST).write_text("{}")

    assert [entry.broken is not None for entry in store.versions()] == [True]
    with pytest.raises(BundleError):
        store.promote(traffic.bundle().version)
    assert store.current() is None


def test_a_broken_pointer_says_how_to_mend_it(store: ModelStore) -> None:
    (store.root / "current.json").write_text("{")

    with pytest.raises(StoreError, match="worker models promote"):
        store.current()
    store.promote(traffic.bundle().version)
    assert store.current() == traffic.bundle().version


@pytest.mark.parametrize("version", ["nope", "../models", "."])
def test_an_unknown_version_lists_the_known_ones(store: ModelStore, version: str) -> None:
    with pytest.raises(StoreError, match=traffic.bundle().version):
        store.load(version)


def test_a_store_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = ModelStore(tmp_path / "file" / "models")

    for write in (store.require_writable, lambda: store.save(traffic.bundle())):
        with pytest.raises(StoreError, match="can't be written"):
            write()


def test_a_save_that_failed_leaves_nothing_behind(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        store.save(traffic.bundle(1))

    assert [path.name for path in store.root.iterdir()] == [traffic.bundle().version]
