"""Latents of records in scores.parquet, and the plane that they are seen on."""

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
from worker.replay.charts import latent_figure
from worker.replay.loop import replay


@cache
def bundle(width: int) -> Bundle:
    options = preset_options("deep-small", hidden=(12,), latent=width, epochs=2)
    return fit_bundle(traffic.schema(), traffic.rows(300), options, created_at=traffic.CREATED)


def run(folder: Path, width: int, size: int = 512) -> tuple[Path, FloatArray]:
    """Replays the recording; the folder, and the latents as they were written (B, L)."""
    folder.mkdir()
    pipeline = Pipeline(Model(bundle(width), latent=True), threshold_factory=traffic.plain_threshold(0.9))
    replay(recording.batches(recording.values(1500), size=size), pipeline, folder, labelled=True, latent=True)
    return folder, np.array(pq.read_table(folder / "scores.parquet")["latent"].to_pylist())


@pytest.mark.parametrize("width", [1, 2, 5])
def test_records_and_the_50_strongest_alerts_are_drawn_in_two_dimensions(tmp_path: Path, width: int) -> None:
    folder, latents = run(tmp_path / "out", width)
    table = pq.read_table(folder / "scores.parquet").to_pydict()
    alerts = [place for place in np.argsort(table["score"])[::-1].tolist() if table["alert"][place]][:50]

    figure = latent_figure(folder, bundle(width).version)

    assert figure is not None
    records, strongest = figure[0]["data"]
    assert (len(records["x"]), len(strongest["x"])) == (1500, 50)
    drawn = np.stack([strongest["x"], strongest["y"]], 1)
    assert latents.shape == (1500, width)
    if width == 1:
        np.testing.assert_allclose(
            drawn, np.stack([latents[alerts, 0], np.array(table["score"])[alerts]], 1), atol=1e-5
        )
    elif width == 2:
        np.testing.assert_allclose(np.sort(drawn, 0), np.sort(latents[alerts], 0), atol=1e-5)
    else:
        centred = latents - latents.mean(0)
        _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
        projected = np.abs(centred[alerts] @ axes[:2].T)  # an axis has no sign of its own
        np.testing.assert_allclose(np.sort(np.abs(drawn), 0), np.sort(projected, 0), atol=1e-4)
        assert f"{(sizes[:2] ** 2).sum() / (sizes**2).sum():.0%} of the variance" in figure[1]


def test_latents_do_not_depend_on_the_size_of_a_batch(tmp_path: Path) -> None:
    assert run(tmp_path / "a", 5)[1].tolist() == run(tmp_path / "b", 5, size=77)[1].tolist()


def test_without_being_asked_for_there_are_no_latents(tmp_path: Path) -> None:
    recording.run(recording.values(300), tmp_path / "out")

    assert "latent" not in pq.read_schema(tmp_path / "out/scores.parquet").names
    assert latent_figure(tmp_path / "out", traffic.bundle().version) is None
