"""The trainer's reservoir outlives its process, and a damaged file is never believed."""

import hashlib
import io
import os
import zipfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import orjson
import pytest

from devtools.refit_streams import Traffic
from tests.trainer.common import CREATED, bundle, observe, trainer
from worker.records import Partition
from worker.trainer import sidecar
from worker.trainer.sidecar import SavedState, restore, save
from worker.trainer.trainer import Trainer

OFFSETS = {Partition("in", 0): 17, Partition("in", 3): 4}


def watching_some(count: int = 3_000) -> Trainer:
    watching = trainer(bundle(partial=True), drifted=3, size=2_000)
    observe(watching, Traffic(0).rows(count))
    watching.check(CREATED)
    observe(watching, Traffic(1).rows(700))
    return watching


def test_a_restart_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    before, after = watching_some(), trainer(bundle(partial=True), drifted=3, size=2_000)
    save(tmp_path / "state.npz", before, SavedState(OFFSETS, "held1"))

    state = restore(tmp_path / "state.npz", after)

    assert state == SavedState(OFFSETS, "held1")
    assert after.streak == before.streak
    for watching in (before, after):
        observe(watching, Traffic(2).rows(2_000))
    assert after.reservoir.records().values == before.reservoir.records().values
    assert after.check(CREATED).verdict == before.check(CREATED).verdict


def test_of_another_current_version_the_records_stay_and_the_scores_go(tmp_path: Path) -> None:
    save(tmp_path / "state.npz", watching_some(), SavedState(OFFSETS))
    after = trainer(bundle(), size=2_000)

    restore(tmp_path / "state.npz", after)

    assert len(after.reservoir) == 2_000
    assert len(after.buffer) == 0
    assert after.streak.checks == 0


def test_an_empty_trainer_is_saved_and_restored(tmp_path: Path) -> None:
    save(tmp_path / "state.npz", trainer(bundle()), SavedState())

    assert restore(tmp_path / "state.npz", trainer(bundle())) == SavedState()


def test_every_damage_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "state.npz"
    save(path, watching_some(1_000), SavedState(OFFSETS))
    content = path.read_bytes()
    for place in range(0, len(content), len(content) // 60):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        with pytest.raises(ValueError, match="damaged"):
            restore(path, trainer(bundle(partial=True)))


@pytest.mark.parametrize("content", [b"", b"PK", b"nothing of the kind", b"\x93NUMPY\x01\x00"])
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.npz"
    path.write_bytes(content)

    with pytest.raises(ValueError, match="damaged"):
        restore(path, trainer(bundle()))


def test_a_file_of_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sidecar, "FORMAT", 1)
    save(tmp_path / "state.npz", watching_some(1_000), SavedState())
    monkeypatch.undo()

    with pytest.raises(ValueError, match="format 1, this trainer reads format 2"):
        restore(tmp_path / "state.npz", trainer(bundle()))


def test_a_file_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.npz"
    save(path, watching_some(1_000), SavedState())
    path.write_bytes(path.read_bytes()[:-200])

    with pytest.raises(ValueError, match="damaged"):
        restore(path, trainer(bundle()))


MANY = 330_000_000


@cache
def saved_state() -> bytes:
    with TemporaryDirectory() as folder:
        save(Path(folder) / "state.npz", watching_some(1_000), SavedState(OFFSETS, "held1"))
        return (Path(folder) / "state.npz").read_bytes()


Change = Callable[[dict[str, Any], dict[str, Any]], object]


def with_key(key: str, value: Any) -> Change:
    return lambda head, _: head.update({key: value})


def without(key: str) -> Change:
    return lambda head, _: head.pop(key)


def forged(path: Path, change: Change) -> Path:
    """A saved state whose head and arrays were changed, with the checksum of what it holds."""
    with np.load(io.BytesIO(saved_state()[32:])) as saved:
        arrays = {name: saved[name] for name in saved.files}
    head = orjson.loads(arrays["head"].tobytes())
    change(head, arrays)
    if "head" in arrays:
        arrays["head"] = np.frombuffer(orjson.dumps(head), np.uint8)
    return signed(path, arrays)


def signed(path: Path, arrays: dict[str, Any]) -> Path:
    archive = io.BytesIO()
    np.savez_compressed(archive, **arrays)
    path.write_bytes(hashlib.sha256(archive.getvalue()).digest() + archive.getvalue())
    return path


def with_claim(path: Path, shape: str) -> Path:
    """An archive in which the scores claim to be many more than they are."""
    archive = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved_state()[32:])) as saved, zipfile.ZipFile(archive, "w") as claimed:
        for name in saved.namelist():
            content = saved.read(name)
            if name == "scores.npy":
                head = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
                content = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + content[-80:]
            claimed.writestr(name, content)
    path.write_bytes(hashlib.sha256(archive.getvalue()).digest() + archive.getvalue())
    return path


def shorter(name: str, count: int) -> Change:
    return lambda _, arrays: arrays.update({name: arrays[name][:count]})


def filled(name: str, value: Any) -> Change:
    return lambda _, arrays: arrays.update({name: np.full_like(arrays[name], value)})


WRONG: list[Any] = [None, -1, 1.5, "x" * 100_000, [[]], {"x": 1}, [["in", 0]], 2**62]
FORGED: dict[str, Callable[[Path], object]] = {
    **{
        f"{key} is {value!r:.20}": partial(forged, change=with_key(key, value))
        for key in ("current", "next_offsets", "seen", "streak", "checks", "vetoed", "holding", "buffer", "format")
        for value in WRONG
    },
    **{
        f"without {key}": partial(forged, change=without(key))
        for key in ("current", "next_offsets", "held", "seen", "streak", "checks", "vetoed", "holding", "buffer")
    },
    "held outside": partial(forged, change=lambda head, _: head.update(held="../outside")),
    "an unknown key": partial(forged, change=lambda head, _: head.update(more=1)),
    "an unknown array": partial(forged, change=lambda _, arrays: arrays.update(more=np.zeros(1))),
    "an array of objects": partial(forged, change=lambda _, a: a.update(scores=np.array([{}], object))),
    "an array in a square": partial(forged, change=lambda _, a: a.update(scores=np.zeros((2, 2)))),
    "an array of texts": partial(forged, change=lambda _, a: a.update(key=a["key"].astype(str))),
    "no scores at all": partial(forged, change=lambda _, arrays: arrays.pop("scores")),
    "no head at all": partial(forged, change=lambda _, arrays: arrays.pop("head")),
    "scores that are no numbers": partial(forged, change=filled("scores", np.nan)),
    "too many scores": partial(forged, change=lambda _, arrays: arrays.update(scores=np.zeros(50_000))),
    "keys that are no numbers": partial(forged, change=filled("key", np.nan)),
    "keys that are infinite": partial(forged, change=filled("key", -np.inf)),
    "draws above 1": partial(forged, change=filled("split_draw", 1.5)),
    "numbers of the future": partial(forged, change=filled("number", MANY)),
    "the same number twice": partial(forged, change=filled("number", 1)),
    "lengths below 0": partial(forged, change=filled("lengths", -1)),
    "lengths that wrap": partial(forged, change=filled("lengths", 2**62)),
    "fewer lengths": partial(forged, change=shorter("lengths", 5)),
    "fewer values": partial(forged, change=shorter("values", 5)),
    "fewer keys": partial(forged, change=shorter("key", 5)),
    "a bomb of zeros": partial(forged, change=lambda _, a: a.update(values=np.zeros(MANY, np.uint8))),
    "a claim of 8 TB": partial(with_claim, shape="(1000000000000,)"),
    "a claim below 0": partial(with_claim, shape="(-10,)"),
    "a claim of no shape": partial(with_claim, shape="()"),
    "a claim that is a sum": partial(with_claim, shape="-" * 60 + "1"),
    "a folder": Path.mkdir,
    "a named pipe": os.mkfifo,
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
}
HARMLESS = "current is 'xxxxxxxxxxxxxxxxxxx"  # of another version


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_state_is_refused_in_a_short_line_and_the_trainer_begins_anew(what: str, tmp_path: Path) -> None:
    path = tmp_path / "state.npz"
    FORGED[what](path)
    fresh = trainer(bundle(partial=True))

    try:
        restore(path, fresh)
    except (ValueError, OSError) as error:
        line = str(error)
    else:
        line = ""

    assert len(line) < 400
    assert "\n" not in line
    assert bool(line) == (what != HARMLESS)
    if line:
        assert (len(fresh.reservoir), fresh.checks, fresh.vetoed, len(fresh.buffer)) == (0, 0, False, 0)
    else:
        observe(fresh, Traffic(2).rows(600))
        fresh.check(CREATED)
