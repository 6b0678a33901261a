"""The latent space of the records in two dimensions, with the strongest alerts marked."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from worker.records import BoolArray, FloatArray
from worker.replay.run.outputs import STRONGEST, score_file

MAX_POINTS = 4000


class _Rows(NamedTuple):
    """Rows of one row group that a version gave a latent: float32 (B, L), float64 (B,), bool (B,)."""

    latent: NDArray[np.float32]
    score: FloatArray
    alert: BoolArray


class _Plane(NamedTuple):
    """Where the latent space is seen from.

    mean    middle of all latents, float64 (L,)
    axes    the two directions that are drawn, float64 (L, 2)
    shown   share of the variance along them
    """

    mean: FloatArray
    axes: FloatArray
    shown: float


def latent_figure(folder: Path, version: str, seed: int = 0) -> tuple[dict[str, Any], str] | None:
    """A plotly figure of the latents that `version` gave, and a note; None where it gave none.

    Two dimensions are shown as they are, of more the two principal axes, a single one beside the score. Of many
    records a sample is drawn; the 50 strongest alerts are marked.
    """
    plane = _plane(folder, version)
    if plane is None:
        return None
    width = len(plane.mean)
    rng = np.random.default_rng(seed)
    sample, draws = np.zeros((0, 2)), np.zeros(0)
    strongest, scores = np.zeros((0, 2)), np.zeros(0)
    for rows in _read(folder, version):
        points = (rows.latent - plane.mean) @ plane.axes  # (B, 2)
        if width == 1:
            points[:, 1] = rows.score
        sample, draws = _keep(sample, draws, points, rng.random(len(points)), MAX_POINTS)
        strongest, scores = _keep(strongest, scores, points[rows.alert], rows.score[rows.alert], STRONGEST)
    word = "latent" if width < 3 else "axis"
    names = [f"{word} 1", "score" if width == 1 else f"{word} 2"]
    layout: dict[str, Any] = {"xaxis": {"title": {"text": names[0]}}, "yaxis": {"title": {"text": names[1]}}}
    if width == 1:
        layout["yaxis"] |= {"type": "log"}
    traces = [_dots(sample, "records", "--accent", 4, 0.4), _dots(strongest, "strongest alerts", "--alert", 9, 0.95)]
    note = f"{width} units; a sample of {len(sample):,} records, and the {len(strongest)} strongest alerts."
    if width > 2:
        note += f" The two principal axes show {plane.shown:.0%} of the variance."
    return {"data": traces, "layout": layout}, note


def _dots(points: FloatArray, name: str, colour: str, size: int, opacity: float) -> dict[str, Any]:
    marker = {"color": colour, "size": size, "opacity": opacity}
    x, y = (np.round(points[:, axis], 6).tolist() for axis in range(2))
    return {"type": "scatter", "mode": "markers", "name": name, "x": x, "y": y, "marker": marker}


def _read(folder: Path, version: str) -> Iterator[_Rows]:
    with score_file(folder) as file:
        if "latent" not in file.schema_arrow.names:
            return
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=["score", "alert", "model_version", "latent"])
            chosen = table.filter(np.asarray(table["model_version"].to_pylist()) == version)
            if chosen.num_rows:
                flat = chosen["latent"].combine_chunks().flatten().to_numpy()
                score, alert = (chosen[name].to_numpy() for name in ("score", "alert"))
                yield _Rows(flat.reshape(chosen.num_rows, -1), score, alert)


def _plane(folder: Path, version: str) -> _Plane | None:
    count, total, products = 0, np.zeros(0), np.zeros((0, 0))
    for rows in _read(folder, version):
        latent = rows.latent.astype(np.float64)
        count += len(latent)
        total = latent.sum(0) + (total if len(total) else 0.0)
        products = latent.T @ latent + (products if len(products) else 0.0)
    if not count:
        return None
    mean = total / count
    if len(mean) < 3:
        return _Plane(np.zeros(len(mean)), np.eye(len(mean), 2), 1.0)
    sizes, axes = np.linalg.eigh(products / count - np.outer(mean, mean))
    shown = float(sizes[-2:].sum() / max(float(sizes.sum()), 1e-300))
    principal = axes[:, :-3:-1]
    # An axis has no sign of its own; without one, two runs could draw mirrored pictures.
    signs = np.sign(principal[np.abs(principal).argmax(0), [0, 1]])
    return _Plane(mean, principal * signs, min(1.0, max(0.0, shown)))


def _keep(
    points: FloatArray, keys: FloatArray, more: FloatArray, more_keys: FloatArray, count: int
) -> tuple[FloatArray, FloatArray]:
    """The points with the `count` highest keys, highest first, the earlier ones among equals."""
    every, every_key = np.concatenate([points, more]), np.concatenate([keys, more_keys])
    order = np.argsort(-every_key, kind="stable")[:count]
    return every[order], every_key[order]
