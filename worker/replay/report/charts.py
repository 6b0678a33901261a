"""The charts of the report as plotly figures: plain data, with the page's colours named as CSS variables.

A colour such as "--alert" is looked up when the page draws, so that one figure serves light and dark.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.records import FloatArray
from worker.replay.evaluate.days import DAY_MS, NO_DAY, Days
from worker.replay.evaluate.score_table import ANOMALOUS, NORMAL, UNKNOWN, ScoreTable, curve
from worker.replay.run.outputs import ScoreColumns, read_scores

Figure = dict[str, Any]

SLOTS = 240
LEVELS = 256
BINS = 80
MOST_POINTS = 2000
_GROUPS = ((UNKNOWN, "records", "--accent"), (NORMAL, "normal", "--accent"), (ANOMALOUS, "anomalous", "--alert"))


def score_over_time(folder: Path, table: ScoreTable, days: Days) -> Figure:
    """Median, 99% quantile and maximum of the scores in 240 slots of time, the threshold, and the strongest alerts."""
    timed = any(number != NO_DAY for number in days.by_number)
    slots = _Slots(folder, table, timed=timed)
    x = slots.labels()
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
        times, scores = slots.points(group)
        if len(scores):
            marker = {"color": colour, "size": 6, "opacity": 0.75}
            traces.append(
                {"type": "scatter", "mode": "markers", "name": name, "x": times, "y": scores, "marker": marker}
            )
    kind = {"type": "date"} if timed else {"title": {"text": "record"}}
    return {"data": traces, "layout": {"xaxis": kind, "yaxis": _log("score", *slots.range())}}


def _line(
    x: Sequence[Any], y: FloatArray, name: str, colour: str, *, dash: str = "solid", width: float = 1.4
) -> dict[str, Any]:
    values = [None if np.isnan(value) else float(value) for value in y]
    line = {"color": colour, "dash": dash, "width": width}
    return {"type": "scatter", "mode": "lines", "name": name, "x": x, "y": values, "line": line, "connectgaps": True}


class _Slots:
    """The scores of scores.parquet by time (or by input row, where there are no times), read once."""

    def __init__(self, folder: Path, table: ScoreTable, *, timed: bool) -> None:
        self._timed = timed
        self._start, end = self._range(folder)
        self._width = max(1, -(-(end - self._start + 1) // SLOTS))
        positive = table.values[table.values > 0]
        self._floor = float(positive[0]) if len(positive) else 1.0
        top = float(table.values[-1]) if len(table.values) else 1.0
        self._decades = max(1e-9, np.log10(max(top, self._floor)) - np.log10(self._floor))
        self._counts = np.zeros((SLOTS, LEVELS), np.int64)
        self.highest = np.full(SLOTS, np.nan)
        self._threshold_sum = np.zeros(SLOTS)
        self._threshold_count = np.zeros(SLOTS, np.int64)
        self._alerts = np.zeros((0, 3))  # time, score, group
        for columns in read_scores(folder):
            self._add(columns)

    def _range(self, folder: Path) -> tuple[int, int]:
        ends = [(int(at.min()), int(at.max())) for at in map(self._at, read_scores(folder)) if len(at)]
        return (min(low for low, _ in ends), max(high for _, high in ends)) if ends else (0, 1)

    def _at(self, columns: ScoreColumns) -> NDArray[np.int64]:
        return columns.time_ms[columns.time_ms != -1] if self._timed else columns.index

    def _add(self, columns: ScoreColumns) -> None:
        at = self._at(columns)
        chosen = columns.time_ms != -1 if self._timed else np.ones(len(at), np.bool_)
        score, threshold = columns.score[chosen], columns.threshold[chosen]
        slot = np.minimum((at - self._start) // self._width, SLOTS - 1)
        height = (np.log10(np.maximum(score, self._floor)) - np.log10(self._floor)) / self._decades
        level = np.clip((height * LEVELS).astype(np.int64), 0, LEVELS - 1)
        self._counts += np.bincount(slot * LEVELS + level, minlength=SLOTS * LEVELS).reshape(SLOTS, LEVELS)
        np.fmax.at(self.highest, slot, score)
        known = ~np.isnan(threshold)
        self._threshold_sum += np.bincount(slot[known], weights=threshold[known], minlength=SLOTS)
        self._threshold_count += np.bincount(slot[known], minlength=SLOTS)
        alert = columns.alert[chosen]
        fresh = np.stack([at[alert], score[alert], columns.groups[chosen][alert]], 1)
        alerts = np.concatenate([self._alerts, fresh])
        self._alerts = alerts[np.argsort(-alerts[:, 1], kind="stable")[:MOST_POINTS]]

    def range(self) -> tuple[float, float]:
        """The lowest positive score and the highest one."""
        return self._floor, self._floor * 10**self._decades

    def labels(self) -> list[Any]:
        """The middle of each slot."""
        return self._x(self._start + self._width * (np.arange(SLOTS) + 0.5))

    def quantile(self, share: float) -> FloatArray:
        """The score that this share of each slot's records lies below, (SLOTS,), NaN for an empty slot."""
        passed = np.cumsum(self._counts, 1)
        total = passed[:, -1]
        level = np.argmax(passed >= share * np.maximum(total, 1)[:, None], axis=1)
        found: FloatArray = 10 ** (np.log10(self._floor) + (level + 0.5) / LEVELS * self._decades)
        return np.where(total > 0, found, np.nan)

    def threshold(self) -> FloatArray:
        """The mean threshold of each slot's records, (SLOTS,)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self._threshold_sum / self._threshold_count

    def points(self, group: int) -> tuple[list[Any], list[float]]:
        """Times and scores of the strongest alerts with this label."""
        chosen = self._alerts[self._alerts[:, 2] == group]
        return self._x(chosen[:, 0]), chosen[:, 1].tolist()

    def _x(self, at: NDArray[Any]) -> list[Any]:
        return [iso(value) for value in at.tolist()] if self._timed else at.astype(np.int64).tolist()


def iso(milliseconds: float) -> str:
    """Milliseconds since the epoch as a time that plotly reads, UTC."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%S")


def alerts_a_day(days: Days, *, labelled: bool) -> Figure:
    """Bars: alerts on each day of the event clock, true and false ones apart where labels tell."""
    known = {number: day for number, day in sorted(days.by_number.items()) if number != NO_DAY}
    x = [iso(number * DAY_MS)[:10] for number in known]
    true = [day.true_alerts for day in known.values()]
    rest = [day.alerts - day.true_alerts for day in known.values()]
    traces = [_bars(x, true, "true alerts", "--alert")] if labelled else []
    traces.append(_bars(x, rest, "other alerts" if labelled else "alerts", "--warn" if labelled else "--alert"))
    layout = {
        "barmode": "stack",
        "xaxis": {"type": "date"},
        "yaxis": {"title": {"text": "alerts"}, "rangemode": "tozero"},
    }
    return {"data": traces, "layout": layout}


def _bars(x: Iterable[Any], y: Iterable[Any], name: str, colour: str) -> dict[str, Any]:
    return {"type": "bar", "x": list(x), "y": list(y), "name": name, "marker": {"color": colour}}


def score_distribution(table: ScoreTable) -> Figure:
    """How many records have which score, both on logarithmic axes, by label."""
    positive = table.values[table.values > 0]
    low = float(positive[0]) if len(positive) else 1.0
    values = np.maximum(table.values, low)
    borders = np.geomspace(low, max(float(values.max(initial=low)), low * 1.001), BINS + 1)
    place = np.clip(np.searchsorted(borders, values, side="right") - 1, 0, BINS - 1)
    middle = np.sqrt(borders[1:] * borders[:-1])
    traces, highest = [], 1.0
    for group, name, colour in _GROUPS:
        counts = np.bincount(place, weights=table.count(group), minlength=BINS)
        if counts.any():
            highest = max(highest, float(counts.max()))
            line = {"color": colour, "shape": "hvh", "width": 1.4}
            trace = {"type": "scatter", "mode": "lines", "fill": "tozeroy", "name": name, "line": line}
            # A logarithmic axis has no zero: an empty bin lies below the visible range.
            traces.append({**trace, "x": middle.tolist(), "y": np.maximum(counts, 0.1).tolist()})
    y = {**_log("records", 0.5, highest), "range": [float(np.log10(0.5)), float(np.log10(highest * 2))]}
    return {"data": traces, "layout": {"xaxis": _log("score", low, float(borders[-1])), "yaxis": y}}


def _log(title: str, low: float, high: float) -> dict[str, Any]:
    """A logarithmic axis, marked at powers of ten only where there are enough of them."""
    ticks = {"dtick": 1} if high >= 100 * low else {}
    return {"type": "log", "title": {"text": title}, **ticks}


def ranking_curves(
    table: ScoreTable, false_alert_rate: float, recall: float, precision: float | None
) -> dict[str, Figure]:
    """The ROC and the precision-recall curve, each with the point that the threshold stands for."""
    points = curve(table)
    share = float(table.count(ANOMALOUS).sum() / (table.count(ANOMALOUS).sum() + table.count(NORMAL).sum()))
    roc = [
        _line(points.false_alert_rate.tolist(), points.recall, "ROC curve", "--accent", width=2),
        _line([0, 1], np.array([0.0, 1.0]), "chance", "--muted", dash="dot"),
        _dot(false_alert_rate, recall),
    ]
    recall_curve = [
        _line(points.recall.tolist(), points.precision, "precision", "--accent", width=2),
        _line([0, 1], np.array([share, share]), "chance", "--muted", dash="dot"),
        *([] if precision is None else [_dot(recall, precision)]),
    ]
    return {
        "roc": {"data": roc, "layout": _unit_axes("false alert rate", "recall")},
        "precision_recall": {"data": recall_curve, "layout": _unit_axes("recall", "precision")},
    }


def _dot(x: float, y: float) -> dict[str, Any]:
    marker = {"color": "--alert", "size": 11, "symbol": "circle-open", "line": {"width": 3}}
    return {"type": "scatter", "mode": "markers", "name": "at the threshold", "x": [x], "y": [y], "marker": marker}


def _unit_axes(x: str, y: str) -> dict[str, Any]:
    return {
        "xaxis": {"title": {"text": x}, "range": [-0.02, 1.02]},
        "yaxis": {"title": {"text": y}, "range": [-0.02, 1.04]},
    }
