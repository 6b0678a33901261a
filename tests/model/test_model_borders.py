"""Whatever stands in a bundle's files, a version is refused with one BundleError, or scores as before."""

import gzip
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from devtools import traffic
from devtools.brokers import eventually
from worker.errors import BundleError, StoreError, WorkerError
from worker.model.store.bundle import MANIFEST, ROWS, SELF, WEIGHTS, Bundle, digest_of, to_files
from worker.model.store.bundle_reader import read_bundle
from worker.model.store.model_store import ModelStore
from worker.model.store.pointer import POINTER, Pointer
from worker.model.store.volume import write_atomically
from worker.pipeline import Model
from worker.rollout.rollout import RolloutEvents
from worker.rollout.watcher import ModelWatcher

Files = dict[str, bytes]
GOOD = traffic.bundle()
FILES = to_files(GOOD)
DELETED = object()
DEEP: Any = []
for _ in range(120):
    DEEP = [DEEP]
WRONG = [DELETED, None, True, -1, 0, 1.5, 1e308, 2**62, "", "x", "../../etc/passwd", [], {}, [[]], {"x": 1}, DEEP]


def signed(files: Files, manifest: dict[str, Any]) -> Files:
    """The files with this manifest, whose checksums are right."""
    known = {name: hashlib.sha256(files[name]).hexdigest() for name in manifest.get("files", {}) if name in files}
    if isinstance(manifest.get("files"), dict):
        manifest = manifest | {"files": manifest["files"] | known}
    return {**files, MANIFEST: orjson.dumps(manifest | {SELF: digest_of(manifest)})}


def loaded(files: Files) -> Bundle:
    return read_bundle(lambda name, max_bytes: files[name][: max_bytes + 1] if name in files else None, "models/v")


def scores(bundle: Bundle) -> list[float]:
    assert GOOD.golden is not None
    values: list[float] = bundle.scorer().score(GOOD.golden.numeric, GOOD.golden.category_ids).tolist()
    return values


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of the manifest; of a list the first and the last item."""
    if path:
        yield path
    if isinstance(value, dict) and path != ("report",):
        for key, item in value.items():
            yield from places(item, (*path, key))
    elif isinstance(value, list):
        for at in {0, len(value) - 1} if value else ():
            yield from places(value[at], (*path, at))


def with_value(manifest: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    changed: dict[str, Any] = orjson.loads(orjson.dumps(manifest))
    part: Any = changed
    for key in path[:-1]:
        part = part[key]
    if value is DELETED:
        del part[path[-1]]
    else:
        part[path[-1]] = value
    return changed


PLACES = [path for path in places(orjson.loads(FILES[MANIFEST])) if path != (SELF,)]


@pytest.mark.parametrize("path", PLACES, ids=lambda path: ".".join(map(str, path)))
def test_a_manifest_with_anything_anywhere_is_refused_or_scores_as_before(path: tuple[Any, ...]) -> None:
    expected = scores(GOOD)
    refused = []
    for value in WRONG:
        try:
            manifest = with_value(orjson.loads(FILES[MANIFEST]), path, value)
            files = signed(FILES, manifest)
        except TypeError:
            continue  # too deep to be signed: see the bombs below
        try:
            bundle = loaded(files)
        except BundleError as error:
            refused.append(str(error))
        else:
            assert scores(bundle) == expected
            Model(bundle).warm_up()
            orjson.dumps(bundle.report)
    assert all("models/v" in line and len(line) < 400 for line in refused)
    assert len(refused) >= 5 or path[0] in {"created_at", "report", "files"} or path[-1] in {"whole", "top"}


def manifest_of(text: bytes) -> Files:
    return {**FILES, MANIFEST: text}


def of_tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Files:
    tensors = dict(load_tensors(FILES[WEIGHTS]))
    change(tensors)
    return signed({**FILES, WEIGHTS: save_tensors(tensors)}, orjson.loads(FILES[MANIFEST]))


def of_rows(rows: bytes) -> Files:
    return signed({**FILES, ROWS: rows}, orjson.loads(FILES[MANIFEST]))


def with_layers(*hidden: int) -> Files:
    return signed(FILES, with_value(orjson.loads(FILES[MANIFEST]), ("architecture", "hidden"), list(hidden)))


def with_files(*names: str) -> Files:
    manifest = orjson.loads(FILES[MANIFEST])
    return signed(FILES, manifest | {"files": manifest["files"] | dict.fromkeys(names, "0" * 64)})


def with_twice(part: str) -> Files:
    manifest = orjson.loads(FILES[MANIFEST])
    manifest["fitted"][part].insert(0, manifest["fitted"][part][0])
    return signed(FILES, manifest)


FIRST = "network.first.weight"
BROKEN: dict[str, Callable[[], Files]] = {
    "nested a thousand times": lambda: manifest_of(b"[" * 1_000 + b"]" * 1_000),
    "nested a million times": lambda: manifest_of(b'{"a":' * 1_000_000),
    "a hundred megabytes": lambda: manifest_of(b'"' + b"x" * 100_000_000 + b'"'),
    "ten million lists": lambda: manifest_of(b"[" + b"[]," * 10_000_000 + b"[]]"),
    "a list": lambda: manifest_of(b"[]"),
    "a number": lambda: manifest_of(b"1"),
    "no UTF-8": lambda: manifest_of(b"\xff\xfe{}"),
    "a lone surrogate": lambda: manifest_of(b'{"manifest_sha256": "\\ud800"}'),
    "a number beyond 64 bits": lambda: manifest_of(b'{"manifest_sha256": 1' + b"0" * 400 + b"}"),
    "empty": lambda: manifest_of(b""),
    "huge layers": lambda: with_layers(10**9, 10**9),
    "huge layers whose product wraps": lambda: with_layers(2**32, 2**32),
    "layers larger than the file": lambda: with_layers(4_096, 4_096),
    "a thousand layers": lambda: with_layers(*[2] * 1_000),
    "a file outside of the folder": lambda: with_files("../../etc/passwd"),
    "an absolute file": lambda: with_files("/etc/passwd"),
    "the pointer as a file": lambda: with_files("../current.json"),
    "a thousand files": lambda: with_files(*map(str, range(1_000))),
    "a numeric column twice": lambda: with_twice("numeric"),
    "a vocabulary twice": lambda: with_twice("categorical"),
    "statistics twice": lambda: with_twice("stats"),
    "a tensor that is missing": lambda: of_tensors(lambda tensors: tensors.pop(FIRST)),
    "a tensor too many": lambda: of_tensors(lambda tensors: tensors.update(more=torch.zeros(1))),
    "weights that are no numbers": lambda: of_tensors(lambda tensors: tensors[FIRST].fill_(float("nan"))),
    "weights in float64": lambda: of_tensors(lambda tensors: tensors.update({FIRST: tensors[FIRST].double() * 1e300})),
    "weights turned round": lambda: of_tensors(lambda tensors: tensors.update({FIRST: tensors[FIRST].T.contiguous()})),
    "no calibration": lambda: of_tensors(lambda tensors: tensors.update(calibration=torch.zeros(0).double())),
    "a calibration of whole numbers": lambda: of_tensors(lambda t: t.update(calibration=t["calibration"].long())),
    "a calibration in a square": lambda: of_tensors(lambda t: t.update(calibration=torch.zeros(3, 3).double())),
    "a calibration without a dimension": lambda: of_tensors(lambda t: t.update(calibration=torch.tensor(1.0).double())),
    "a calibration that is not sorted": lambda: of_tensors(lambda t: t.update(calibration=t["calibration"].flip(0))),
    "an infinite calibration": lambda: of_tensors(lambda t: t["calibration"].fill_(float("inf"))),
    "scores below 0": lambda: of_tensors(lambda t: t["training"].fill_(-1)),
    "what is usual of too few fields": lambda: of_tensors(
        lambda t: t.update({"usual.mean": t["usual.mean"][:1].clone()})
    ),
    "what is usual of no field": lambda: of_tensors(lambda t: t.pop("usual.share")),
    "what nobody knows is usual": lambda: of_tensors(lambda t: t.update({"usual.more": t["usual.mean"].clone()})),
    "a spread of 0": lambda: of_tensors(lambda t: t["usual.spread"].fill_(0)),
    "a mean that is no number": lambda: of_tensors(lambda t: t["usual.mean"].fill_(torch.nan)),
    "new values without a chance": lambda: of_tensors(lambda t: t["usual.unknown"].fill_(0)),
    "fields that no record has": lambda: of_tensors(lambda t: t["usual.share"].fill_(0)),
    "golden rows without scores": lambda: of_tensors(lambda t: t.pop("golden.scores")),
    "golden rows of no category": lambda: of_tensors(lambda t: t["golden.category_ids"].fill_(10**6)),
    "golden rows of a category below 0": lambda: of_tensors(lambda t: t["golden.category_ids"].fill_(-1)),
    "golden rows too narrow": lambda: of_tensors(lambda t: t.update({"golden.numeric": torch.zeros(64, 1)})),
    "weights that are no tensors": lambda: signed({**FILES, WEIGHTS: b"x" * 10**5}, orjson.loads(FILES[MANIFEST])),
    "weights with a header of any length": lambda: signed(
        {**FILES, WEIGHTS: (2**63).to_bytes(8, "little") + b"x" * 10**5}, orjson.loads(FILES[MANIFEST])
    ),
    "rows that are a bomb": lambda: of_rows(gzip.compress(bytes(80 << 20), mtime=0)),
    "rows that are cut short": lambda: of_rows(FILES[ROWS][:-20]),
    "rows that are not packed": lambda: of_rows(b"{}\n{}"),
    "rows that are lists": lambda: of_rows(gzip.compress(b"[]\n[]", mtime=0)),
    "rows that are no JSON": lambda: of_rows(gzip.compress(b"{\n}", mtime=0)),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_file_that_is_no_bundles_is_refused_in_a_short_line(what: str) -> None:
    with pytest.raises(BundleError, match="models/v") as error:
        loaded(BROKEN[what]())

    assert len(str(error.value)) < 400
    assert "\n" not in str(error.value)


def test_what_is_signed_without_a_change_loads() -> None:
    assert scores(loaded(signed(FILES, orjson.loads(FILES[MANIFEST])))) == scores(GOOD)
    assert scores(loaded(of_tensors(lambda _: None))) == scores(GOOD)


class Refusals(RolloutEvents):
    """What the watcher refused."""

    def __init__(self) -> None:
        self.versions: list[str] = []
        self.errors: list[WorkerError] = []

    def refused(self, version: str, error: WorkerError) -> None:
        self.versions.append(version)
        self.errors.append(error)


ODD = "0123456789ab"


@pytest.mark.parametrize("what", ["without format", "a scale of 0", "weights that link outside", "a pointer of 100 MB"])
def test_the_watcher_outlives_a_broken_version_and_sees_the_next(what: str, tmp_path: Path) -> None:
    store, seen, root = ModelStore(tmp_path / "models"), Refusals(), tmp_path / "models"
    for bundle in (GOOD, traffic.bundle(1)):
        store.save(bundle)
    store.promote(GOOD.version)
    manifest = orjson.loads(FILES[MANIFEST]) | {"version": ODD}
    if what == "a scale of 0":
        manifest["fitted"]["numeric"][0]["scale"] = 0.0
    elif what == "without format":
        del manifest["format"]
    (root / ODD).mkdir()
    for name, content in signed(FILES, manifest).items():
        (root / ODD / name).write_bytes(content)
    if what == "weights that link outside":
        (root / ODD / WEIGHTS).unlink()
        (root / ODD / WEIGHTS).symlink_to(root / GOOD.version / WEIGHTS)

    watcher = ModelWatcher(store, Model, current=GOOD.version, events=seen, check_every_s=0.01)
    watcher.start()
    try:
        pointer = b'"' + b"x" * 100_000_000 if what == "a pointer of 100 MB" else Pointer(ODD).to_bytes()
        write_atomically(root / POINTER, pointer)
        eventually(lambda: seen.errors != [], 30, "the refusal")
        store.promote(traffic.bundle(1).version)
        eventually(lambda: watcher.take() is not None, 30, "the next version")
    finally:
        watcher.close()

    kind = BundleError if what in {"without format", "a scale of 0"} else StoreError
    assert [type(error) for error in seen.errors] == [kind]
    assert len(str(seen.errors[0])) < 500


def test_rows_that_are_too_wide_to_keep_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.model.store.bundle.MAX_REHEARSAL_BYTES", 4_000)
    fewer = traffic.bundle.__wrapped__()

    assert 10 < len(fewer.rehearsal) < 60
    assert sum(len(orjson.dumps(row)) + 1 for row in fewer.rehearsal) <= 4_000
    assert np.array_equal(fewer.calibration, GOOD.calibration)
