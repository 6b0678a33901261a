"""The trainer's reservoir outlives its process, and a damaged file is never believed."""

from pathlib import Path

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
