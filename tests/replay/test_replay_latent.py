"""Codes of records in scores.parquet, and the plane that they are seen on."""

from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from devtools import traffic
from tests.replay import recording
from worker.model.learn import fit_bundle
from worker.model.presets import preset_options
from worker.model.store.bundle import Bundle
from worker.pipeline import Model, Pipeline
from worker.records import FloatArray
from worker.replay.report.latent import latent_figure
from worker.replay.run.loop import replay


@cache
def bundle(code: int) -> Bundle:
    options = preset_options("deep-small", hidden=(12,), latent=code, epochs=2)
    return fit_bundle(traffic.schema(), traffic.rows(300), options, created_at=traffic.CREATED)


def run(folder: Path, code: int, size: int = 512) -> tuple[Path, FloatArray]:
    """Replays the recording; the folder, and the codes as they were written (B, L)."""
    folder.mkdir()
    pipeline = Pipeline(Model(bundle(code), latent=True), threshold_factory=traffic.plain_threshold(0.9))
    replay(recording.batches(recording.values(1500), size=size), pipeline, folder, labelled=True, latent=True)
    return folder, np.array(pq.read_table(folder / "scores.parquet")["latent"].to_pylist())


@pytest.mark.parametrize("code", [1, 2, 5])
def test_records_and_the_50_strongest_alerts_are_drawn_in_two_dimensions(tmp_path: Path, code: int) -> None:
    folder, codes = run(tmp_path / "out", code)
    table = pq.read_table(folder / "scores.parquet").to_pydict()
    alerts = [place for place in np.argsort(table["score"])[::-1].tolist() if table["alert"][place]][:50]

    found = latent_figure(folder, bundle(code).version)

    assert found is not None
    records, strongest = found[0]["data"]
    assert (len(records["x"]), len(strongest["x"])) == (1500, 50)
    drawn = np.stack([strongest["x"], strongest["y"]], 1)
    assert codes.shape == (1500, code)
    if code == 1:
        np.testing.assert_allclose(drawn, np.stack([codes[alerts, 0], np.array(table["score"])[alerts]], 1), atol=1e-5)
    elif code == 2:
        np.testing.assert_allclose(np.sort(drawn, 0), np.sort(codes[alerts], 0), atol=1e-5)
    else:
        centred = codes - codes.mean(0)
        _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
        projected = np.abs(centred[alerts] @ axes[:2].T)  # an axis has no sign of its own
        np.testing.assert_allclose(np.sort(np.abs(drawn), 0), np.sort(projected, 0), atol=1e-4)
        assert f"{(sizes[:2] ** 2).sum() / (sizes**2).sum():.0%} of the variance" in found[1]


def test_codes_do_not_depend_on_the_size_of_a_batch(tmp_path: Path) -> None:
    assert run(tmp_path / "a", 5)[1].tolist() == run(tmp_path / "b", 5, size=77)[1].tolist()


def test_without_being_asked_for_there_are_no_codes(tmp_path: Path) -> None:
    recording.run(recording.values(300), tmp_path / "out")

    assert "latent" not in pq.read_schema(tmp_path / "out/scores.parquet").names
    assert latent_figure(tmp_path / "out", traffic.bundle().version) is None
