"""What another model, or other thresholds, would have alerted on the same records: observers of a replay."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from worker.model.store.bundle import Bundle
from worker.pipeline import Pipeline, by_partition
from worker.ranking import Counts, average_precision, roc_auc
from worker.records import FloatArray, Outcome, Partition
from worker.replay.lines import Line
from worker.replay.loop import Observer
from worker.replay.metrics import measure, ratio
from worker.replay.outputs import AlertsFile, ScoresFile, read_scores
from worker.replay.score_table import ANOMALOUS, NORMAL, ScoreTable, coarsen
from worker.replay.tally import Tally
from worker.texts import significant
from worker.thresholds.factory import ThresholdFactory
from worker.thresholds.partition import PartitionThreshold

RANKING_DRAWS, RANKING_BINS, THRESHOLD_DRAWS = 200, 256, 2000
_COMPARED = ["alerts", "alerts_per_day", "score_median", "roc_auc", "average_precision"]
_COMPARED += ["precision_at_threshold", "recall_at_threshold", "false_alert_rate"]


class Sweep(Observer):
    """Compares every outcome's scores with other thresholds: records are scored once, each setting only compares anew.

    factories   what makes the thresholds, by the value of the setting that is swept
    bundle      the model that the replay begins with; thresholds start from its scores
    """

    def __init__(self, factories: Mapping[str, ThresholdFactory], bundle: Bundle) -> None:
        self._factories = factories
        self._bundle = bundle
        self._thresholds: dict[tuple[str, Partition], PartitionThreshold] = {}
        self._alerts = {name: np.zeros(3, np.int64) for name in factories}  # by label
        self._records = np.zeros(3, np.int64)  # by label

    @override
    def add(self, lines: list[Line], outcome: Outcome, groups: NDArray[np.int8]) -> None:
        scores, bundle = outcome.scores, self._bundle
        self._records += np.bincount(groups, minlength=3)
        for partition, index in by_partition(scores.messages):
            score, times, labels = scores.score[index], scores.event_time_ms[index], groups[index]
            for name, factory in self._factories.items():
                threshold = self._thresholds.get((name, partition))
                if threshold is None:
                    threshold = factory.make(bundle.calibration, bundle.training, bundle.rule)
                    self._thresholds[name, partition] = threshold
                with np.errstate(invalid="ignore"):  # no threshold yet is NaN, and alerts nothing
                    alert = score > threshold.compare(score, times)
                self._alerts[name] += np.bincount(labels[alert], minlength=3)

    def rows(self, days: float | None) -> list[dict[str, Any]]:
        """One row per setting, in the order given; what needs labels is null without them."""
        return [
            {
                "setting": name,
                "alerts": int(alerts.sum()),
                "alerts_per_day": None if days is None else round(int(alerts.sum()) / days, 3),
                "precision": ratio(int(alerts[ANOMALOUS]), int(alerts[ANOMALOUS] + alerts[NORMAL])),
                "recall": ratio(int(alerts[ANOMALOUS]), int(self._records[ANOMALOUS])),
                "false_alert_rate": ratio(int(alerts[NORMAL]), int(self._records[NORMAL])),
            }
            for name, alerts in self._alerts.items()
        ]


class Comparison(Observer):
    """Runs a second pipeline over the same lines: alerts gained, lost and shared, and whether it's more than chance.

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
        self._alerts.add(other)
        self._scores.add(other, self._tally.add(other))
        # One model may refuse a record that the other scores: only what both scored can agree.
        _, ours, theirs = np.intersect1d(_rows(outcome), _rows(other), assume_unique=True, return_indices=True)
        cell = groups[ours] * 4 + outcome.scores.alert[ours] + 2 * other.scores.alert[theirs]
        self._agreement += np.bincount(cell, minlength=12).reshape(3, 4)

    def finish(self, folder: Path, tally: Tally, metrics: Mapping[str, Any], *, seed: int = 0) -> dict[str, Any]:
        """What metrics.json says under `compare`. folder, tally, metrics: those of the first model."""
        self._alerts.close()
        self._scores.close()
        other = measure(self._tally, seed=seed)
        lost, gained, shared = self._agreement[:, 1:].sum(0).tolist()
        differences: dict[str, Any] = {}
        verdict = f"no labels, so no verdict; {shared / max(1, shared + gained + lost):.0%} of all alerts are shared"
        if metrics["roc_auc"] is not None and other["roc_auc"] is not None:
            differences = _at_threshold(self._agreement, seed)
            differences |= _ranking((folder, self._folder), (tally.table, self._tally.table), seed)
            precision = differences["average_precision"]
            low, high = precision["interval"]
            word = "better" if low > 0 else "worse"
            verdict = f"the compared model ranks {word}: average precision {difference_text(precision)}"
            if low <= 0 <= high:
                verdict = "no clear difference in average precision"
        return {
            "model_versions": list(other["model_versions"]),
            "shared": shared,
            "gained": gained,
            "lost": lost,
            "metrics": {name: other[name] for name in _COMPARED},
            "differences": differences,
            "verdict": verdict,
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
        cells, records = agreement[group], agreement[group].sum()
        drawn = rng.multinomial(records, cells / records, size=THRESHOLD_DRAWS)
        differences[name] = _difference(float((cells[2] - cells[1]) / records), (drawn[:, 2] - drawn[:, 1]) / records)
    return differences


def _ranking(folders: tuple[Path, Path], tables: tuple[ScoreTable, ScoreTable], seed: int) -> dict[str, Any]:
    """ROC-AUC and average precision, second minus first, drawn from a joint histogram of both models' scores."""
    borders = coarsen(tables[0], RANKING_BINS), coarsen(tables[1], RANKING_BINS)
    cells, counts = _joint(folders, borders)
    bins_of_cells = np.divmod(cells, len(borders[1]))

    def difference(drawn: list[Counts]) -> FloatArray:
        """Of records (J,) of both labels per cell: ROC-AUC and average precision, second minus first, (2,)."""
        first, second = (
            _measures(*(np.bincount(bins, weights=part, minlength=len(border)).astype(np.int64) for part in drawn))
            for bins, border in zip(bins_of_cells, borders, strict=True)
        )
        return second - first

    rng = np.random.default_rng(seed)
    draws = [
        difference([rng.multinomial(count.sum(), count / count.sum()) for count in counts])
        for _ in range(RANKING_DRAWS)
    ]
    first, second = (_measures(table.count(NORMAL), table.count(ANOMALOUS)) for table in tables)
    # The histogram is coarser than the scores: it says how far the draws spread, and the exact value where they lie.
    drawn = np.stack(draws) + (second - first - difference(counts))
    names = ("roc_auc", "average_precision")
    return {name: _difference((second - first)[at], drawn[:, at]) for at, name in enumerate(names)}


def _measures(normal: Counts, anomalous: Counts) -> FloatArray:
    return np.array([float(roc_auc(normal, anomalous)), float(average_precision(normal, anomalous))])


def _joint(folders: tuple[Path, Path], borders: tuple[FloatArray, FloatArray]) -> tuple[Counts, list[Counts]]:
    """Cells (J,) of the joint histogram that hold records, and the counts (J,) of normal and anomalous ones."""
    cells: Counts = np.empty(0, np.int64)
    counts = np.zeros((2, 0), np.int64)
    # Row groups drift apart where one model refuses records that the other scores; rows beyond the overlap don't count.
    for ours, theirs in zip(*map(read_scores, folders), strict=False):
        _, at, there = np.intersect1d(ours.index, theirs.index, assume_unique=True, return_indices=True)
        bins = [
            np.minimum(np.searchsorted(border, score), len(border) - 1)
            for border, score in zip(borders, (ours.score[at], theirs.score[there]), strict=True)
        ]
        labelled = [(ours.groups[at] == group).astype(np.int64) for group in (NORMAL, ANOMALOUS)]
        weights = np.concatenate([counts, np.stack(labelled)], axis=1)
        cells, entry = np.unique(np.concatenate([cells, bins[0] * len(borders[1]) + bins[1]]), return_inverse=True)
        counts = np.stack([np.bincount(entry, weights=row, minlength=len(cells)) for row in weights]).astype(np.int64)
    return cells, list(counts)
