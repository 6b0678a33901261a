"""A bundle is one version: it comes back whole, or it is refused."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest

from devtools import traffic
from worker.errors import BundleError, Hint, StoreError
from worker.features.schema import parse_schema
from worker.features.vectorize import Vectorizer
from worker.formats.base import Decoded
from worker.model.learn import fit_bundle
from worker.model.network.fit import FitOptions
from worker.model.store.bundle import (
    LEFT_OUT,
    MANIFEST,
    ROWS,
    WEIGHTS,
    Bundle,
    Golden,
    digest_of,
    named,
    to_files,
    with_report,
)
from worker.model.store.bundle_reader import read_bundle
from worker.model.store.model_store import ModelStore
from worker.pipeline import Model, Pipeline


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    store = ModelStore(tmp_path / "models")
    store.save(traffic.bundle())
    return store


def folder(store: ModelStore) -> Path:
    return Path(store.name) / traffic.bundle().version


def read_folder(folder: Path) -> Bundle:
    return read_bundle(lambda name, _: (folder / name).read_bytes() if (folder / name).exists() else None, str(folder))


def test_a_bundle_comes_back_with_the_same_scores(store: ModelStore) -> None:
    loaded = store.load(traffic.bundle().version)
    batch = traffic.messages(200)

    def scores(bundle: Bundle) -> list[float]:
        pipeline = Pipeline(Model(bundle), threshold_factory=traffic.plain_threshold())
        scores: list[float] = pipeline.process(batch).scores.score.tolist()
        return scores

    assert scores(traffic.bundle()) == scores(loaded)
    assert loaded.calibration.tolist() == traffic.bundle().calibration.tolist()
    assert loaded.report == orjson.loads(orjson.dumps(traffic.bundle().report))


def test_the_same_fit_has_the_same_version() -> None:
    again = traffic.bundle.__wrapped__()

    assert again.version == traffic.bundle().version
    assert to_files(again) == to_files(traffic.bundle())


def test_another_seed_is_another_version() -> None:
    assert traffic.bundle(1).version != traffic.bundle().version


@pytest.mark.parametrize("name", [MANIFEST, WEIGHTS, ROWS])
def test_a_flipped_bit_anywhere_is_noticed(store: ModelStore, name: str) -> None:
    path = folder(store) / name
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in [0, len(content) - 1, *rng.integers(0, len(content), 60).tolist()]:
        broken = bytearray(content)
        broken[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(broken)
        with pytest.raises(BundleError):
            read_folder(folder(store))

    path.write_bytes(content)
    read_folder(folder(store))


@pytest.mark.parametrize("name", [MANIFEST, WEIGHTS, ROWS])
@pytest.mark.parametrize("left", [0, 1, 0.5])
def test_a_file_that_was_cut_short_is_noticed(store: ModelStore, name: str, left: float) -> None:
    path = folder(store) / name
    content = path.read_bytes()
    path.write_bytes(content[: int(left if left == 1 else left * len(content))])

    with pytest.raises(BundleError, match=str(path)):
        read_folder(folder(store))


def test_a_missing_file_is_named(store: ModelStore) -> None:
    (folder(store) / WEIGHTS).unlink()

    with pytest.raises(BundleError, match=WEIGHTS):
        read_folder(folder(store))


def test_weights_of_another_version_are_refused(store: ModelStore) -> None:
    store.save(traffic.bundle(1))
    shutil.copy(Path(store.name) / traffic.bundle(1).version / WEIGHTS, folder(store) / WEIGHTS)

    with pytest.raises(BundleError, match="sha256"):
        read_folder(folder(store))


def test_a_bundle_under_another_name_is_refused(store: ModelStore) -> None:
    folder(store).rename(Path(store.name) / "abcabcabcabc")

    with pytest.raises(BundleError, match="abcabcabcabc"):
        store.load("abcabcabcabc")


def test_a_bundle_of_another_schema_is_refused_with_both_fingerprints() -> None:
    other = parse_schema('[fields.amount]\nkind = "numeric"\n')

    with pytest.raises(BundleError) as error:
        traffic.bundle().require_schema(other)

    assert other.fingerprint in str(error.value)
    assert traffic.bundle().schema.fingerprint in str(error.value)


def test_a_broken_version_is_listed_as_broken_and_can_not_be_promoted(store: ModelStore) -> None:
    (folder(store) / MANIFEST).write_text("{}")

    assert [entry.broken is not None for entry in store.versions()] == [True]
    with pytest.raises(BundleError):
        store.promote(traffic.bundle().version)
    assert store.current() is None


def test_a_broken_pointer_says_how_to_repair_it(store: ModelStore) -> None:
    (Path(store.name) / "current.json").write_text("{")

    with pytest.raises(StoreError, match="broken") as error:
        store.current()
    assert error.value.hint is Hint.PROMOTE_A_VERSION
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

    assert [path.name for path in Path(store.name).iterdir()] == [traffic.bundle().version]


QUICK = FitOptions(hidden=(8,), steps=20)


def golden() -> Golden:
    golden = traffic.bundle().golden
    assert golden is not None
    return golden


def test_a_bundle_comes_back_with_its_golden_and_rehearsal_rows(store: ModelStore) -> None:
    loaded = store.load(traffic.bundle().version)

    assert loaded.golden is not None
    assert len(golden().scores) == 64
    assert loaded.golden.scores.tolist() == golden().scores.tolist()
    assert loaded.rehearsal == traffic.bundle().rehearsal
    assert to_files(loaded) == to_files(traffic.bundle())


def test_scores_that_this_machine_gives_otherwise_are_refused(store: ModelStore) -> None:
    off = replace(golden(), scores=golden().scores * np.where(np.arange(64) == 7, 1.002, 1.0))
    wrong = replace(traffic.bundle(), version="abcabcabcabc", golden=off)
    store.save(wrong)

    with pytest.raises(BundleError, match=r"abcabcabcabc: 1 of 64 golden rows score otherwise .*\(row 7: "):
        store.load("abcabcabcabc")


def test_scores_that_differ_by_rounding_are_accepted(store: ModelStore) -> None:
    near = replace(traffic.bundle(), version="abcabcabcabc", golden=replace(golden(), scores=golden().scores * 1.0009))
    store.save(near)

    assert store.load("abcabcabcabc").version == "abcabcabcabc"


def test_golden_rows_with_scores_that_are_not_finite_are_refused(store: ModelStore) -> None:
    rows = golden().numeric.copy()
    rows[3] = 3e38
    store.save(replace(traffic.bundle(), version="abcabcabcabc", golden=replace(golden(), numeric=rows)))

    with pytest.raises(BundleError, match="not finite"):
        store.load("abcabcabcabc")


def test_a_bundle_without_golden_and_rehearsal_rows_is_a_bundle(store: ModelStore) -> None:
    lean = named(replace(traffic.bundle(), golden=None, rows_file=b""))
    store.save(lean)

    loaded = store.load(lean.version)
    assert set(to_files(lean)) == {WEIGHTS, MANIFEST}
    assert (loaded.golden, loaded.rehearsal) == (None, ())


def test_a_bundle_of_another_format_is_refused_with_the_one_that_is_read(store: ModelStore) -> None:
    path = folder(store) / MANIFEST
    manifest = orjson.loads(path.read_bytes()) | {"format": 2}
    manifest["manifest_sha256"] = digest_of(manifest)
    path.write_bytes(orjson.dumps(manifest))

    with pytest.raises(BundleError, match="format 2, this worker reads format 3"):
        read_folder(folder(store))


def test_more_facts_in_the_report_make_another_version_of_the_same_model(store: ModelStore) -> None:
    judged = with_report(traffic.bundle(), verdict={"auc": 0.98}, rows=1)
    store.save(judged)

    loaded = store.load(judged.version)
    assert judged.version != traffic.bundle().version
    assert loaded.report == {**traffic.bundle().report, "verdict": {"auc": 0.98}, "rows": 1} | {
        "losses": [list(pair) for pair in traffic.bundle().report["losses"]]
    }
    assert to_files(loaded)[WEIGHTS] == to_files(traffic.bundle())[WEIGHTS]


def test_rehearsal_rows_are_drawn_evenly_and_the_same_for_a_seed() -> None:
    rows = [{**row, "amount": float(number)} for number, row in enumerate(traffic.rows(800))]
    kept, again, other = (
        fit_bundle(traffic.schema(), rows, replace(QUICK, seed=seed), created_at=traffic.CREATED, keep_rows=100)
        for seed in (0, 0, 1)
    )

    amounts = [row["amount"] for row in kept.rehearsal]
    assert len(amounts) == 100
    assert kept.rehearsal == again.rehearsal != other.rehearsal
    assert amounts == sorted(set(amounts))
    assert max(np.diff([0, *amounts, 800])) < 32  # 100 of the 640 rows of the fit, one of each 6.4


def test_no_rehearsal_rows_are_kept_where_the_setting_says_none() -> None:
    bundle = fit_bundle(traffic.schema(), traffic.rows(100), QUICK, created_at=traffic.CREATED, keep_rows=0)

    assert bundle.rehearsal == ()
    assert ROWS not in to_files(bundle)


def test_rehearsal_rows_hold_what_the_model_sees_and_mean_the_same_to_it() -> None:
    schema = parse_schema(
        traffic.SCHEMA_TEXT.replace('"id"', '"id"\nrequired = true')
        + '[fields.note]\nkind = "ignore"\n[fields.seen]\nkind = "timestamp"\ncyclical = []\nrequired = true\n'
    )
    rows = [{**row, "note": "secret", "label": 1, "seen": row["at"]} for row in traffic.rows(200)]
    rows[5]["channel"] = None
    del rows[6]["channel"]
    bundle = fit_bundle(schema, rows, QUICK, created_at=traffic.CREATED)
    by_amount = {row["amount"]: row for row in rows}

    assert {name for row in bundle.rehearsal for name in row} == {
        "id", "amount", "merchant.country", "channel", "online", "at", "seen"
    }  # fmt: skip
    assert {row["id"] for row in bundle.rehearsal} == {LEFT_OUT}
    kept = list(bundle.rehearsal)
    original = [by_amount[row["amount"]] for row in kept]
    vectors = [Vectorizer(bundle.fitted).transform(Decoded.of_rows(part)) for part in (kept, original)]
    assert vectors[0].rejects == []
    assert np.array_equal(vectors[0].numeric, vectors[1].numeric)
    assert np.array_equal(vectors[0].category_ids, vectors[1].category_ids)
