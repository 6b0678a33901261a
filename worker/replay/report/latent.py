"""A picture of the records' codes in two dimensions, with the strongest alerts marked."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from worker.records import FloatArray
from worker.replay.run.outputs import STRONGEST, score_file

MOST_POINTS = 4000


class _Codes(NamedTuple):
    """Of one row group, rows of one model with a code: float32 (B, L), float64 (B,), bool (B,)."""

    code: NDArray[np.float32]
    score: FloatArray
    alert: NDArray[np.bool_]


class _Plane(NamedTuple):
    """Where codes (B, L) are seen from: mean (L,), axes (L, 2), the share of the variance that they show."""

    mean: FloatArray
    axes: FloatArray
    shown: float

    def of(self, code: NDArray[np.float32]) -> FloatArray:
        """Places (B, 2)."""
        places: FloatArray = (code - self.mean) @ self.axes
        return places


def latent_figure(folder: Path, version: str, seed: int = 0) -> tuple[dict[str, Any], str] | None:
    """A plotly figure of the codes that `version` gave, and a note; None where it gave none.

    Two dimensions are shown as they are, of more the two principal axes, a single one beside the score. Of many
    records a sample is drawn; the 50 strongest alerts are marked.
    """
    plane = _plane(folder, version)
    if plane is None:
        return None
    drawn, strongest = _points(folder, version, plane, seed)
    width = len(plane.mean)
    names = [("score" if width == 1 and axis else f"{'code' if width < 3 else 'axis'} {axis + 1}") for axis in range(2)]
    layout: dict[str, Any] = {"xaxis": {"title": {"text": names[0]}}, "yaxis": {"title": {"text": names[1]}}}
    if width == 1:
        layout["yaxis"] |= {"type": "log"}
    traces = [_dots(drawn, "records", "--accent", 4, 0.4), _dots(strongest, "strongest alerts", "--alert", 9, 0.95)]
    note = f"{width} units; a sample of {len(drawn):,} records, and the {len(strongest)} strongest alerts."
    if width > 2:
        note += f" The two principal axes show {plane.shown:.0%} of the variance."
    return {"data": traces, "layout": layout}, note


def _dots(places: FloatArray, name: str, colour: str, size: int, opacity: float) -> dict[str, Any]:
    marker = {"color": colour, "size": size, "opacity": opacity}
    x, y = (np.round(places[:, axis], 6).tolist() for axis in range(2))
    return {"type": "scatter", "mode": "markers", "name": name, "x": x, "y": y, "marker": marker}


def _read(folder: Path, version: str) -> Iterator[_Codes]:
    with score_file(folder) as file:
        if "latent" not in file.schema_arrow.names:
            return
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=["score", "alert", "model_version", "latent"])
            chosen = table.filter(np.asarray(table["model_version"].to_pylist()) == version)
            if chosen.num_rows:
                flat = chosen["latent"].combine_chunks().flatten().to_numpy()
                score, alert = (chosen[name].to_numpy() for name in ("score", "alert"))
                yield _Codes(flat.reshape(chosen.num_rows, -1), score, alert)


def _plane(folder: Path, version: str) -> _Plane | None:
    count, total, products = 0, np.zeros(0), np.zeros((0, 0))
    for part in _read(folder, version):
        code = part.code.astype(np.float64)
        count += len(code)
        total = code.sum(0) + (total if len(total) else 0.0)
        products = code.T @ code + (products if len(products) else 0.0)
    if not count:
        return None
    mean = total / count
    if len(mean) < 3:
        return _Plane(np.zeros(len(mean)), np.eye(len(mean), 2), 1.0)
    sizes, axes = np.linalg.eigh(products / count - np.outer(mean, mean))
    shown = float(sizes[-2:].sum() / max(float(sizes.sum()), 1e-300))
    main = axes[:, :-3:-1]
    # An axis has no sign of its own; without one, two runs could draw mirrored pictures.
    signs = np.sign(main[np.abs(main).argmax(0), [0, 1]])
    return _Plane(mean, main * signs, min(1.0, max(0.0, shown)))


def _points(folder: Path, version: str, plane: _Plane, seed: int) -> tuple[FloatArray, FloatArray]:
    """Places of a sample of all records (P, 2), and of the strongest alerts (A, 2), strongest first."""
    rng = np.random.default_rng(seed)
    sample, keys = np.zeros((0, 2)), np.zeros(0)
    strong, scores = np.zeros((0, 2)), np.zeros(0)
    for part in _read(folder, version):
        places = plane.of(part.code)
        if part.code.shape[1] == 1:
            places[:, 1] = part.score
        sample, keys = _keep(sample, keys, places, rng.random(len(places)), MOST_POINTS)
        strong, scores = _keep(strong, scores, places[part.alert], part.score[part.alert], STRONGEST)
    return sample, strong


def _keep(
    kept: FloatArray, keys: FloatArray, more: FloatArray, fresh: FloatArray, most: int
) -> tuple[FloatArray, FloatArray]:
    """The places with the `most` largest keys, largest first, the earlier ones among equals."""
    every, both = np.concatenate([kept, more]), np.concatenate([keys, fresh])
    order = np.argsort(-both, kind="stable")[:most]
    return every[order], both[order]
