"""Two models on the same records: alerts gained, lost and shared, and whether the difference is more than chance."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from worker.pipeline import Pipeline
from worker.ranking import Counts, average_precision, roc_auc
from worker.records import FloatArray, Outcome
from worker.replay.evaluate.metrics import measure
from worker.replay.evaluate.score_table import ANOMALOUS, NORMAL, ScoreTable, coarsen
from worker.replay.evaluate.tally import Tally
from worker.replay.run.lines import Line
from worker.replay.run.loop import Observer
from worker.replay.run.outputs import AlertsFile, ScoresFile, read_scores
from worker.texts import significant

RANKING_DRAWS = 200
THRESHOLD_DRAWS = 2000
_BINS = 256
_COMPARED = (
    "alerts",
    "alerts_per_day",
    "score_median",
    "roc_auc",
    "average_precision",
    "precision_at_threshold",
    "recall_at_threshold",
    "false_alert_rate",
)


class Comparison(Observer):
    """Runs a second pipeline over the same lines.

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

    @override
    def add(self, lines: list[Line], outcome: Outcome, groups: NDArray[np.int8]) -> None:
        other = self._pipeline.process(lines)
        other_groups = self._tally.add(other)
        self._alerts.add(other)
        self._scores.add(other, other_groups)
        _, ours, theirs = np.intersect1d(_rows(outcome), _rows(other), assume_unique=True, return_indices=True)
        cell = groups[ours] * 4 + outcome.scores.alert[ours] + 2 * other.scores.alert[theirs]
        self._agreement += np.bincount(cell, minlength=12).reshape(3, 4)

    def finish(self, folder: Path, tally: Tally, metrics: Mapping[str, Any], *, seed: int = 0) -> dict[str, Any]:
        """What metrics.json says under `compare`. folder, tally, metrics: those of the first model."""
        self._alerts.close()
        self._scores.close()
        other = measure(self._tally, seed=seed)
        lost, gained, shared = self._agreement[:, 1:].sum(0).tolist()
        differences = {}
        if metrics["roc_auc"] is not None and other["roc_auc"] is not None:
            differences = {
                **_at_threshold(self._agreement, seed),
                **_ranking((folder, tally.table), (self._folder, self._tally.table), seed),
            }
        return {
            "model_versions": list(other["model_versions"]),
            "shared": shared,
            "gained": gained,
            "lost": lost,
            "metrics": {name: other[name] for name in _COMPARED},
            "differences": differences,
            "verdict": _verdict(differences, shared / max(1, shared + gained + lost)),
        }


def _rows(outcome: Outcome) -> NDArray[np.int64]:
    lines = cast("list[Line]", outcome.scores.messages)
    return np.fromiter((line.row for line in lines), np.int64, len(lines))


def difference_text(difference: Mapping[str, Any] | None) -> str:
    """A difference with its interval, as people read it; nothing where it isn't known."""
    if difference is None:
        return ""
    low, high = difference["interval"]
    return f"{difference['difference']:+.4g} ({low:+.4g} to {high:+.4g})"


def _verdict(differences: Mapping[str, Any], share_of_alerts: float) -> str:
    if not differences:
        return f"no labels, so no verdict; {share_of_alerts:.0%} of all alerts are shared"
    precision = differences["average_precision"]
    low, high = precision["interval"]
    if low <= 0 <= high:
        return "no clear difference in average precision"
    better = "better" if low > 0 else "worse"
    return f"the compared model ranks {better}: average precision {difference_text(precision)}"


def _difference(difference: float, drawn: FloatArray) -> dict[str, Any]:
    interval = [significant(bound, 6) for bound in np.quantile(drawn, [0.025, 0.975])]
    return {"difference": significant(difference, 6), "interval": interval}


# Both models saw the same records, so their measures rise and fall together: a record that is hard for one is mostly
# hard for the other. Draws therefore take records, with what both models made of each, never two samples apart; the
# interval of the difference is then narrower than the intervals of the two models suggest.
def _at_threshold(agreement: NDArray[np.int64], seed: int) -> dict[str, Any]:
    """Recall and false alert rate, second minus first, with the records of each label resampled."""
    rng = np.random.default_rng(seed)
    differences = {}
    for name, group in (("recall_at_threshold", ANOMALOUS), ("false_alert_rate", NORMAL)):
        cells = agreement[group]
        drawn = rng.multinomial(cells.sum(), cells / cells.sum(), size=THRESHOLD_DRAWS)
        differences[name] = _difference(
            float((cells[2] - cells[1]) / cells.sum()), (drawn[:, 2] - drawn[:, 1]) / cells.sum()
        )
    return differences


def _ranking(first: tuple[Path, ScoreTable], second: tuple[Path, ScoreTable], seed: int) -> dict[str, Any]:
    """ROC-AUC and average precision, second minus first, drawn from a joint histogram of both models' scores."""
    borders = coarsen(first[1], _BINS), coarsen(second[1], _BINS)
    cells, counts = _joint(first[0], second[0], borders)
    bins_of_cells = np.divmod(cells, len(borders[1]))

    def difference(drawn: list[Counts]) -> FloatArray:
        """Of records (J,) of both labels per cell: ROC-AUC and average precision, second minus first, (2,)."""
        measures = [
            _measures(*(np.bincount(bins, weights=part, minlength=len(border)).astype(np.int64) for part in drawn))
            for bins, border in zip(bins_of_cells, borders, strict=True)
        ]
        return measures[1] - measures[0]

    rng = np.random.default_rng(seed)
    shares = [count / count.sum() for count in counts]
    draws = [
        difference([rng.multinomial(n.sum(), share) for n, share in zip(counts, shares, strict=True)])
        for _ in range(RANKING_DRAWS)
    ]
    exact_of = [_measures(table.count(NORMAL), table.count(ANOMALOUS)) for _, table in (first, second)]
    exact = exact_of[1] - exact_of[0]
    drawn = np.stack(draws) + (exact - difference(counts))
    return {name: _difference(exact[at], drawn[:, at]) for at, name in enumerate(("roc_auc", "average_precision"))}


def _measures(normal: Counts, anomalous: Counts) -> FloatArray:
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
        bins = [
            np.minimum(np.searchsorted(border, score), len(border) - 1)
            for border, score in zip(borders, (ours.score[at], theirs.score[there]), strict=True)
        ]
        labelled = [(ours.groups[at] == group).astype(np.int64) for group in (NORMAL, ANOMALOUS)]
        every = np.concatenate([cells, bins[0] * len(borders[1]) + bins[1]])
        weights = np.concatenate([counts, np.stack(labelled)], axis=1)
        cells, entry = np.unique(every, return_inverse=True)
        counts = np.stack([np.bincount(entry, weights=row, minlength=len(cells)) for row in weights]).astype(np.int64)
    return cells, list(counts)
