"""Two models on the same records: alerts gained, lost and shared, and whether the difference is more than chance."""

from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from worker.pipeline import Pipeline
from worker.ranking import Counts, average_precision, roc_auc
from worker.records import BoolArray, FloatArray, Outcome
from worker.replay.evaluate.metrics import measure
from worker.replay.evaluate.score_table import ANOMALOUS, NORMAL, ScoreTable, coarsen
from worker.replay.evaluate.tally import Tally
from worker.replay.run.lines import Line
from worker.replay.run.outputs import AlertsFile, ScoresFile, read_scores
from worker.texts import significant

DRAWS = 200
_BINS = 256


class Comparison:
    """Runs a second pipeline beside the first; an observer of `worker.replay.run.loop`.

    Its alerts.jsonl and scores.parquet go to `folder`, which must exist.
    """

    def __init__(self, pipeline: Pipeline, folder: Path, *, labelled: bool) -> None:
        self._pipeline = pipeline
        self._folder = folder
        self._tally = Tally()
        self._alerts = AlertsFile(folder)
        self._scores = ScoresFile(folder, labelled=labelled)
        # rows: this label; columns: neither, only the first, only the second, both alerted
        self._agreement = np.zeros((3, 4), np.int64)

    def add(self, lines: list[Line], outcome: Outcome, groups: NDArray[np.int8]) -> None:
        """Score the same lines with the second pipeline."""
        other = self._pipeline.process(lines)
        other_groups = self._tally.add(other)
        self._alerts.add(other)
        self._scores.add(other, other_groups)
        _, ours, theirs = np.intersect1d(_rows(outcome), _rows(other), assume_unique=True, return_indices=True)
        cell = groups[ours] * 4 + outcome.scores.alert[ours] + 2 * other.scores.alert[theirs]
        self._agreement += np.bincount(cell, minlength=12).reshape(3, 4)

    def finish(self, folder: Path, tally: Tally, metrics: dict[str, Any], *, seed: int = 0) -> dict[str, Any]:
        """What metrics.json says under `compare`. folder, tally, metrics: those of the first model."""
        self._alerts.close()
        self._scores.close()
        other = measure(self._tally, seed=seed)
        only_first, only_second, both = (int(self._agreement[:, at].sum()) for at in (1, 2, 3))
        names = ("alerts", "alerts_per_day", "score_median", "roc_auc", "average_precision", "precision_at_threshold")
        found: dict[str, Any] = {
            "model_versions": list(other["model_versions"]),
            "shared": both,
            "gained": only_second,
            "lost": only_first,
            "metrics": {name: other[name] for name in (*names, "recall_at_threshold", "false_alert_rate")},
            "differences": {},
        }
        if metrics["roc_auc"] is not None and other["roc_auc"] is not None:
            found["differences"] = {
                **_at_threshold(self._agreement, seed),
                **_ranking((folder, tally.table), (self._folder, self._tally.table), seed),
            }
        found["verdict"] = _verdict(found)
        return found


def _rows(outcome: Outcome) -> NDArray[np.int64]:
    lines = cast("list[Line]", outcome.scores.messages)
    return np.fromiter((line.row for line in lines), np.int64, len(lines))


def _verdict(found: dict[str, Any]) -> str:
    if not found["differences"]:
        union = max(1, found["shared"] + found["gained"] + found["lost"])
        return f"no labels, so no verdict; {found['shared'] / union:.0%} of all alerts are shared"
    gap = found["differences"]["average_precision"]
    low, high = gap["interval"]
    if low <= 0 <= high:
        return "no clear difference in average precision"
    better = "better" if low > 0 else "worse"
    return f"the compared model ranks {better}: average precision {gap['difference']:+.4g} ({low:+.4g} to {high:+.4g})"


def _difference(difference: float, drawn: FloatArray) -> dict[str, Any]:
    interval = [significant(bound, 6) for bound in np.quantile(drawn, [0.025, 0.975])]
    return {"difference": significant(difference, 6), "interval": interval}


def _at_threshold(agreement: NDArray[np.int64], seed: int) -> dict[str, Any]:
    """Second minus first, with records of each label resampled as pairs."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, group in (("recall_at_threshold", ANOMALOUS), ("false_alert_rate", NORMAL)):
        cells = agreement[group]
        drawn = rng.multinomial(cells.sum(), cells / cells.sum(), size=2000)
        gaps = (drawn[:, 2] - drawn[:, 1]) / cells.sum()
        found[name] = _difference(float((cells[2] - cells[1]) / cells.sum()), gaps)
    return found


def _ranking(first: tuple[Path, ScoreTable], second: tuple[Path, ScoreTable], seed: int) -> dict[str, Any]:
    """Paired bootstrap: each draw takes the same records for both models, from a joint histogram of their scores."""
    borders = coarsen(first[1], _BINS), coarsen(second[1], _BINS)
    cells, counts = _joint(first[0], second[0], borders)
    places = np.divmod(cells, len(borders[1]))

    def gaps(drawn: list[Counts]) -> FloatArray:
        """ROC-AUC and average precision of the second model minus those of the first, (2,)."""
        measures = [
            _ranks(*(np.bincount(place, weights=part, minlength=len(border)).astype(np.int64) for part in drawn))
            for place, border in zip(places, borders, strict=True)
        ]
        return measures[1] - measures[0]

    rng = np.random.default_rng(seed)
    shares = [count / count.sum() for count in counts]
    drawn = np.stack(
        [gaps([rng.multinomial(n.sum(), share) for n, share in zip(counts, shares, strict=True)]) for _ in range(DRAWS)]
    )
    exact = _ranks(second[1].count(NORMAL), second[1].count(ANOMALOUS)) - _ranks(
        first[1].count(NORMAL), first[1].count(ANOMALOUS)
    )
    drawn += exact - gaps(counts)
    return {name: _difference(exact[at], drawn[:, at]) for at, name in enumerate(("roc_auc", "average_precision"))}


def _ranks(normal: Counts, anomalous: Counts) -> FloatArray:
    return np.array([float(roc_auc(normal, anomalous)), float(average_precision(normal, anomalous))])


def _joint(
    first: Path, second: Path, borders: tuple[FloatArray, FloatArray]
) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """Cells (J,) of the joint histogram that hold records, and the counts (J,) of normal and anomalous ones."""
    cells: NDArray[np.int64] = np.empty(0, np.int64)
    counts = np.zeros((2, 0), np.int64)
    # Row groups drift apart where one model refuses records that the other scores; rows beyond the overlap don't count.
    for ours, theirs in zip(read_scores(first), read_scores(second), strict=False):
        _, at, there = np.intersect1d(ours.index, theirs.index, assume_unique=True, return_indices=True)
        places = [
            np.minimum(np.searchsorted(border, score), len(border) - 1)
            for border, score in zip(borders, (ours.score[at], theirs.score[there]), strict=True)
        ]
        groups = ours.groups[at]
        fresh = np.stack([_is(groups, NORMAL), _is(groups, ANOMALOUS)]).astype(np.int64)
        every = np.concatenate([cells, places[0] * len(borders[1]) + places[1]])
        weights = np.concatenate([counts, fresh], axis=1)
        cells, place = np.unique(every, return_inverse=True)
        counts = np.stack([np.bincount(place, weights=row, minlength=len(cells)) for row in weights]).astype(np.int64)
    return cells, list(counts)


def _is(groups: NDArray[np.int8], group: int) -> BoolArray:
    same: BoolArray = groups == group
    return same
