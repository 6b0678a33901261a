"""The charts of the report as plotly figures: plain data, with the page's colours named as CSS variables.

A colour such as "--alert" is looked up when the page draws, so that one figure serves light and dark.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.records import FloatArray
from worker.replay.evaluate.score_table import ANOMALOUS, NORMAL, UNKNOWN, ScoreTable, curve
from worker.replay.evaluate.tally import DAY_MS, NO_DAY, Days
from worker.replay.run.outputs import ScoreColumns, read_scores
from worker.texts import rfc3339

Figure = dict[str, Any]

SLOTS = 240
HEIGHTS = 256
BINS = 80
MAX_POINTS = 2000


def score_over_time(folder: Path, table: ScoreTable, days: Days) -> Figure:
    """Median, 99% quantile and maximum of the scores in 240 slots of time, the threshold, and the strongest alerts."""
    timed = any(number != NO_DAY for number in days.by_number)
    slots = _Slots(folder, table, timed=timed)
    x = slots.times(slots.start + slots.width * (np.arange(SLOTS) + 0.5))
    traces = [
        _line(x, slots.quantile(0.5), "median", "--muted"),
        _line(x, slots.quantile(0.99), "99% quantile", "--accent"),
        _line(x, slots.highest, "maximum", "--accent", width=0.6),
        _line(x, slots.threshold(), "threshold", "--warn", dash="dash", width=2),
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
    x_axis = {"type": "date"} if timed else {"title": {"text": "record"}}
    y_axis = _log_axis("score", slots.floor, slots.floor * 10**slots.decades)
    return {"data": traces, "layout": {"xaxis": x_axis, "yaxis": y_axis}}


class _Slots:
    """The scores of scores.parquet by time (by input row where there are no times), in memory that stays bounded.

    start, width   of the slots, in milliseconds or rows
    floor          lowest positive score
    decades        powers of ten from there to the highest score
    highest        maximum of each slot, float64 (SLOTS,), NaN for an empty one
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
        self._threshold_sum = np.zeros(SLOTS)
        self._threshold_count = np.zeros(SLOTS, np.int64)
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
        self._threshold_sum += np.bincount(slot[known], weights=threshold[known], minlength=SLOTS)
        self._threshold_count += np.bincount(slot[known], minlength=SLOTS)
        alerts = np.concatenate([self.alerts, np.stack([at[alert], score[alert], columns.groups[chosen][alert]], 1)])
        self.alerts = alerts[np.argsort(-alerts[:, 1], kind="stable")[:MAX_POINTS]]

    def quantile(self, share: float) -> FloatArray:
        """The score that this share of each slot's records lies below, (SLOTS,), NaN for an empty slot."""
        passed = np.cumsum(self._counts, 1)
        total = passed[:, -1]
        height = np.argmax(passed >= share * np.maximum(total, 1)[:, None], axis=1)
        score: FloatArray = 10 ** (np.log10(self.floor) + (height + 0.5) / HEIGHTS * self.decades)
        return np.where(total > 0, score, np.nan)

    def threshold(self) -> FloatArray:
        """The mean threshold of each slot's records, (SLOTS,)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self._threshold_sum / self._threshold_count

    def times(self, at: NDArray[Any]) -> list[Any]:
        """Times or rows as plotly reads them."""
        return [rfc3339(value) for value in at.tolist()] if self._timed else at.astype(np.int64).tolist()


def alerts_a_day(days: Days, *, labelled: bool) -> Figure:
    """Bars: alerts on each day of the event clock, true and false ones apart where labels tell."""
    known = {number: day for number, day in sorted(days.by_number.items()) if number != NO_DAY}
    true = [day.true_alerts for day in known.values()]
    rest = [day.alerts - day.true_alerts for day in known.values()]
    bars = [("other alerts", rest, "--warn")] if labelled else [("alerts", rest, "--alert")]
    if labelled:
        bars.insert(0, ("true alerts", true, "--alert"))
    x = [rfc3339(number * DAY_MS)[:10] for number in known]
    layout = {
        "barmode": "stack",
        "xaxis": {"type": "date"},
        "yaxis": {"title": {"text": "alerts"}, "rangemode": "tozero"},
    }
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
            # A logarithmic axis has no zero: an empty bin lies below the visible range.
            y = np.maximum(counts, 0.1).tolist()
            trace = {"type": "scatter", "mode": "lines", "fill": "tozeroy", "name": name, "line": line}
            traces.append({**trace, "x": middle, "y": y})
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
        return {
            "xaxis": {"title": {"text": x}, "range": [-0.02, 1.02]},
            "yaxis": {"title": {"text": y}, "range": [-0.02, 1.04]},
        }

    points = curve(table)
    anomalies, normal = table.count(ANOMALOUS).sum(), table.count(NORMAL).sum()
    share = float(anomalies / (anomalies + normal))
    roc = [
        _line(points.false_alert_rate.tolist(), points.recall, "ROC curve", "--accent", width=2),
        _line([0, 1], np.array([0.0, 1.0]), "chance", "--muted", dash="dot"),
        at_threshold(false_alert_rate, recall),
    ]
    precision_recall = [
        _line(points.recall.tolist(), points.precision, "precision", "--accent", width=2),
        _line([0, 1], np.array([share, share]), "chance", "--muted", dash="dot"),
        *([] if precision is None else [at_threshold(recall, precision)]),
    ]
    return {
        "roc": {"data": roc, "layout": axes("false alert rate", "recall")},
        "precision_recall": {"data": precision_recall, "layout": axes("recall", "precision")},
    }


def _line(
    x: Sequence[Any], y: FloatArray, name: str, colour: str, *, dash: str = "solid", width: float = 1.4
) -> dict[str, Any]:
    values = [None if np.isnan(value) else float(value) for value in y]
    line = {"color": colour, "dash": dash, "width": width}
    return {"type": "scatter", "mode": "lines", "name": name, "x": x, "y": values, "line": line, "connectgaps": True}


def _markers(name: str, x: Sequence[Any], y: Sequence[float], marker: dict[str, Any]) -> dict[str, Any]:
    return {"type": "scatter", "mode": "markers", "name": name, "x": x, "y": y, "marker": marker}


def _log_axis(title: str, low: float, high: float) -> dict[str, Any]:
    """A logarithmic axis, marked at powers of ten only where it spans two of them."""
    ticks = {"dtick": 1} if high >= 100 * low else {}
    return {"type": "log", "title": {"text": title}, **ticks}
