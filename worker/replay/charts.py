"""The charts of the report as plotly figures: plain data, with the page's colours named as CSS variables.

A colour such as "--alert" is looked up when the page draws, so that one figure serves light and dark.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.records import BoolArray, FloatArray
from worker.replay.outputs import STRONGEST, ScoreColumns, read_scores, row_groups
from worker.replay.score_table import ANOMALOUS, NORMAL, UNKNOWN, ScoreTable, curve
from worker.replay.tally import DAY_MS, NO_DAY, Days
from worker.texts import MAX_TIME_MS, rfc3339

Figure = dict[str, Any]

SLOTS, HEIGHTS, BINS = 240, 256, 80  # slots of time and the bins of each; bins of the distribution
MAX_POINTS, MAX_LATENTS = 2000, 4000


def score_over_time(folder: Path, table: ScoreTable, days: Days) -> Figure:
    """Median, 99% quantile and maximum of the scores in 240 slots of time, the threshold, and the strongest alerts."""
    timed = any(number != NO_DAY for number in days.by_number)
    slots = _Slots(folder, table, timed=timed)
    x = slots.times(slots.start + slots.width * (np.arange(SLOTS) + 0.5))
    with np.errstate(invalid="ignore", divide="ignore"):  # an empty slot has none
        threshold = slots.threshold_sum / slots.threshold_count
    traces = [
        _line(x, slots.quantile(0.5), "median", "--muted"),
        _line(x, slots.quantile(0.99), "99% quantile", "--accent"),
        _line(x, slots.highest, "maximum", "--accent", width=0.6),
        _line(x, threshold, "threshold", "--warn", dash="dash", width=2),
    ]
    for group, name, colour in (
        (UNKNOWN, "alerts", "--alert"),
        (ANOMALOUS, "true alerts", "--alert"),
        (NORMAL, "false alerts", "--warn"),
    ):
        alerts = slots.alerts[slots.alerts[:, 2] == group]
        if len(alerts):
            marker = {"color": colour, "size": 6, "opacity": 0.75}
            traces.append(_markers(name, slots.times(alerts[:, 0]), alerts[:, 1].tolist(), marker))
    y_axis = _log_axis("score", slots.floor, slots.floor * 10**slots.decades)
    return {"data": traces, "layout": {"xaxis": {"type": "date"} if timed else _titled("record"), "yaxis": y_axis}}


# A recording can have more records than memory: two passes over the file, the first one for the range of time. What
# stays is a histogram of each slot, with bins of equal relative width, and the 2,000 strongest alerts.
class _Slots:
    """The scores of scores.parquet by time (by input row where there are no times), in memory that stays bounded.

    start, width   of the slots, in milliseconds or rows
    floor          lowest positive score
    decades        powers of ten from there to the highest score
    highest        maximum of each slot, float64 (SLOTS,), NaN for an empty one
    threshold_…    sum and number of the thresholds of each slot, (SLOTS,)
    alerts         the strongest ones, float64 (A, 3): time or row, score, label
    """

    def __init__(self, folder: Path, table: ScoreTable, *, timed: bool) -> None:
        self._timed = timed
        ends = [(int(at.min()), int(at.max())) for at in map(self._at, read_scores(folder)) if len(at)]
        self.start, end = (min(low for low, _ in ends), max(high for _, high in ends)) if ends else (0, 1)
        self.width = max(1, -(-(end - self.start + 1) // SLOTS))
        positive = table.values[table.values > 0]
        self.floor = float(positive[0]) if len(positive) else 1.0
        top = float(table.values[-1]) if len(table.values) else 1.0
        self.decades = max(1e-9, np.log10(max(top, self.floor)) - np.log10(self.floor))
        self.highest = np.full(SLOTS, np.nan)
        self.alerts = np.zeros((0, 3))
        self._counts = np.zeros((SLOTS, HEIGHTS), np.int64)
        self.threshold_sum, self.threshold_count = np.zeros(SLOTS), np.zeros(SLOTS, np.int64)
        for columns in read_scores(folder):
            self._add(columns)

    def _at(self, columns: ScoreColumns) -> NDArray[np.int64]:
        return columns.time_ms[columns.time_ms != -1] if self._timed else columns.index

    def _add(self, columns: ScoreColumns) -> None:
        at = self._at(columns)
        chosen = columns.time_ms != -1 if self._timed else np.ones(len(at), np.bool_)
        score, threshold, alert = columns.score[chosen], columns.threshold[chosen], columns.alert[chosen]
        slot = np.minimum((at - self.start) // self.width, SLOTS - 1)
        share = (np.log10(np.maximum(score, self.floor)) - np.log10(self.floor)) / self.decades
        height = np.clip((share * HEIGHTS).astype(np.int64), 0, HEIGHTS - 1)
        self._counts += np.bincount(slot * HEIGHTS + height, minlength=SLOTS * HEIGHTS).reshape(SLOTS, HEIGHTS)
        np.fmax.at(self.highest, slot, score)
        known = ~np.isnan(threshold)
        self.threshold_sum += np.bincount(slot[known], weights=threshold[known], minlength=SLOTS)
        self.threshold_count += np.bincount(slot[known], minlength=SLOTS)
        alerts = np.concatenate([self.alerts, np.stack([at[alert], score[alert], columns.groups[chosen][alert]], 1)])
        self.alerts = alerts[np.argsort(-alerts[:, 1], kind="stable")[:MAX_POINTS]]

    def quantile(self, share: float) -> FloatArray:
        """The score that this share of each slot's records lies below, (SLOTS,), NaN for an empty slot."""
        passed = np.cumsum(self._counts, 1)
        total = passed[:, -1]
        height = np.argmax(passed >= share * np.maximum(total, 1)[:, None], axis=1)
        score: FloatArray = 10 ** (np.log10(self.floor) + (height + 0.5) / HEIGHTS * self.decades)
        return np.where(total > 0, score, np.nan)

    def times(self, at: NDArray[Any]) -> list[Any]:
        """Times or rows as plotly reads them."""
        if not self._timed:
            return at.astype(np.int64).tolist()  # type: ignore[no-any-return]
        return [rfc3339(value) for value in np.minimum(at, MAX_TIME_MS).tolist()]


def alerts_a_day(days: Days, *, labelled: bool) -> Figure:
    """Bars: alerts on each day of the event clock, true and false ones apart where labels tell."""
    known = [(number, day) for number, day in sorted(days.by_number.items()) if number != NO_DAY]
    rest = [day.alerts - day.true_alerts for _, day in known]
    bars = [("alerts", rest, "--alert")]
    if labelled:
        bars = [("true alerts", [day.true_alerts for _, day in known], "--alert"), ("other alerts", rest, "--warn")]
    x = [rfc3339(number * DAY_MS)[:10] for number, _ in known]
    layout = {"barmode": "stack", "xaxis": {"type": "date"}, "yaxis": {**_titled("alerts"), "rangemode": "tozero"}}
    traces = [{"type": "bar", "x": x, "y": y, "name": name, "marker": {"color": colour}} for name, y, colour in bars]
    return {"data": traces, "layout": layout}


def score_distribution(table: ScoreTable) -> Figure:
    """How many records have which score, both on logarithmic axes, by label."""
    positive = table.values[table.values > 0]
    low = float(positive[0]) if len(positive) else 1.0
    values = np.maximum(table.values, low)
    borders = np.geomspace(low, max(float(values.max(initial=low)), low * 1.001), BINS + 1)
    bins = np.clip(np.searchsorted(borders, values, side="right") - 1, 0, BINS - 1)
    middle = np.sqrt(borders[1:] * borders[:-1]).tolist()
    traces, highest = [], 1.0
    for group, name, colour in (
        (UNKNOWN, "records", "--accent"),
        (NORMAL, "normal", "--accent"),
        (ANOMALOUS, "anomalous", "--alert"),
    ):
        counts = np.bincount(bins, weights=table.count(group), minlength=BINS)
        if counts.any():
            highest = max(highest, float(counts.max()))
            line = {"color": colour, "shape": "hvh", "width": 1.4}
            y = np.maximum(counts, 0.1)  # a logarithmic axis has no zero: an empty bin lies below the visible range
            traces.append({**_line(middle, y, name, colour), "fill": "tozeroy", "line": line})
    y_axis = {**_log_axis("records", 0.5, highest), "range": [float(np.log10(0.5)), float(np.log10(highest * 2))]}
    return {"data": traces, "layout": {"xaxis": _log_axis("score", low, float(borders[-1])), "yaxis": y_axis}}


def ranking_curves(
    table: ScoreTable, false_alert_rate: float, recall: float, precision: float | None
) -> dict[str, Figure]:
    """The ROC and the precision-recall curve, each with the point that the threshold stands for."""

    def at_threshold(x: float, y: float) -> dict[str, Any]:
        marker = {"color": "--alert", "size": 11, "symbol": "circle-open", "line": {"width": 3}}
        return _markers("at the threshold", [x], [y], marker)

    def axes(x: str, y: str) -> dict[str, Any]:
        return {"xaxis": {**_titled(x), "range": [-0.02, 1.02]}, "yaxis": {**_titled(y), "range": [-0.02, 1.04]}}

    rates, recalls, precisions = curve(table)
    anomalies, normal = table.count(ANOMALOUS).sum(), table.count(NORMAL).sum()
    share = float(anomalies / (anomalies + normal))
    roc = [
        _line(rates.tolist(), recalls, "ROC curve", "--accent", width=2),
        _line([0, 1], np.array([0.0, 1.0]), "chance", "--muted", dash="dot"),
        at_threshold(false_alert_rate, recall),
    ]
    precision_recall = [
        _line(recalls.tolist(), precisions, "precision", "--accent", width=2),
        _line([0, 1], np.array([share, share]), "chance", "--muted", dash="dot"),
        *([] if precision is None else [at_threshold(recall, precision)]),
    ]
    figure = {"data": precision_recall, "layout": axes("recall", "precision")}
    return {"roc": {"data": roc, "layout": axes("false alert rate", "recall")}, "precision_recall": figure}


def latent_figure(folder: Path, version: str, seed: int = 0) -> tuple[Figure, str] | None:
    """A plotly figure of the latents that `version` gave, and a note; None where it gave none.

    Two dimensions are shown as they are, of more the two principal axes, a single one beside the score. Of many
    records a sample is drawn; the 50 strongest alerts are marked.
    """
    plane = _plane(folder, version)
    if plane is None:
        return None
    mean, axes, shown = plane
    width = len(mean)
    rng = np.random.default_rng(seed)
    sample, draws = np.zeros((0, 2)), np.zeros(0)
    strongest, scores = np.zeros((0, 2)), np.zeros(0)
    for latent, score, alert in _latents(folder, version):
        points = (latent - mean) @ axes  # (B, 2)
        if width == 1:
            points[:, 1] = score
        # The records with the highest random keys are a fair sample, however the file is cut into row groups.
        sample, draws = _keep(sample, draws, points, rng.random(len(points)), MAX_LATENTS)
        strongest, scores = _keep(strongest, scores, points[alert], score[alert], STRONGEST)
    word = "latent" if width < 3 else "axis"
    y_axis = _titled("score") | {"type": "log"} if width == 1 else _titled(f"{word} 2")
    traces = []
    for name, points, colour, size, opacity in (
        ("records", sample, "--accent", 4, 0.4),
        ("strongest alerts", strongest, "--alert", 9, 0.95),
    ):
        x, y = np.round(points, 6).T.tolist()
        traces.append(_markers(name, x, y, {"color": colour, "size": size, "opacity": opacity}))
    note = f"{width} units; a sample of {len(sample):,} records, and the {len(strongest)} strongest alerts."
    if width > 2:
        note += f" The two principal axes show {shown:.0%} of the variance."
    return {"data": traces, "layout": {"xaxis": _titled(f"{word} 1"), "yaxis": y_axis}}, note


def _latents(folder: Path, version: str) -> Iterator[tuple[NDArray[np.float32], FloatArray, BoolArray]]:
    """By row group, of the rows with a latent of this model: latents (B, L), scores (B,), whether they are alerts."""
    for table in row_groups(folder, ["score", "alert", "model_version", "latent"]):
        chosen = table.filter(np.asarray(table["model_version"].to_pylist()) == version)
        if chosen.num_rows:
            flat = chosen["latent"].combine_chunks().flatten().to_numpy()
            yield flat.reshape(chosen.num_rows, -1), chosen["score"].to_numpy(), chosen["alert"].to_numpy()


def _plane(folder: Path, version: str) -> tuple[FloatArray, FloatArray, float] | None:
    """Where the latents are seen from: mean (L,), axes (L, 2), the share of the variance along them."""
    count, total, products = 0, np.zeros(1), np.zeros((1, 1))
    for narrow, _, _ in _latents(folder, version):
        latent = narrow.astype(np.float64)
        count += len(latent)
        total = latent.sum(0) + total
        products = latent.T @ latent + products
    if not count:
        return None
    mean = total / count
    if len(mean) < 3:
        return np.zeros(len(mean)), np.eye(len(mean), 2), 1.0
    sizes, axes = np.linalg.eigh(products / count - np.outer(mean, mean))
    shown = float(sizes[-2:].sum() / max(float(sizes.sum()), 1e-300))
    principal = axes[:, :-3:-1]
    # An axis has no sign of its own; without one, two runs could draw mirrored pictures.
    signs = np.sign(principal[np.abs(principal).argmax(0), [0, 1]])
    return mean, principal * signs, min(1.0, max(0.0, shown))


def _keep(
    points: FloatArray, keys: FloatArray, more: FloatArray, more_keys: FloatArray, count: int
) -> tuple[FloatArray, FloatArray]:
    """The points with the `count` highest keys, highest first, the earlier ones among equals."""
    every, every_key = np.concatenate([points, more]), np.concatenate([keys, more_keys])
    order = np.argsort(-every_key, kind="stable")[:count]
    return every[order], every_key[order]


def _line(
    x: Sequence[Any], y: FloatArray, name: str, colour: str, *, dash: str = "solid", width: float = 1.4
) -> dict[str, Any]:
    values = [None if np.isnan(value) else float(value) for value in y]
    line = {"color": colour, "dash": dash, "width": width}
    return {"type": "scatter", "mode": "lines", "name": name, "x": x, "y": values, "line": line, "connectgaps": True}


def _markers(name: str, x: Sequence[Any], y: Sequence[float], marker: dict[str, Any]) -> dict[str, Any]:
    return {"type": "scatter", "mode": "markers", "name": name, "x": x, "y": y, "marker": marker}


def _titled(text: str) -> dict[str, Any]:
    return {"title": {"text": text}}


def _log_axis(title: str, low: float, high: float) -> dict[str, Any]:
    """A logarithmic axis, marked at powers of ten only where it spans two of them."""
    return {"type": "log", **_titled(title)} | ({"dtick": 1} if high >= 100 * low else {})
