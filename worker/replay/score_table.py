"""Counts of records per distinct score, in memory that stays bounded, and what follows from them: curves, intervals.

Notation: D distinct scores, ascending.
"""

import numpy as np
from numpy.typing import NDArray

from worker.ranking import Counts, average_precision, roc_auc
from worker.records import FloatArray

UNKNOWN, NORMAL, ANOMALOUS = 0, 1, 2
"""What a record is labelled as."""

MAX_DISTINCT = 1 << 18
_BUFFER = 1 << 18


class ScoreTable:
    """Counts of unlabelled, normal and anomalous records for each distinct score.

    Exact up to a number of distinct scores; beyond it neighbouring ones share an entry, and a record moves by at most
    `resolution` of its score. Works badly for scores that differ by less than that: they then count as equal.

    max_distinct   entries to keep; 262,144 take less than 20 MB

    >>> table = ScoreTable()
    >>> table.add(np.array([0.5, 0.1, 0.5]), np.array([ANOMALOUS, NORMAL, NORMAL], np.int8))
    >>> table.values.tolist(), table.count(NORMAL).tolist(), table.count(ANOMALOUS).tolist()
    ([0.1, 0.5], [1, 1], [0, 1])
    >>> table.quantile(0.9), table.resolution
    (0.5, 0.0)

    Entries of equal relative width by cutting off low bits, as in G. Tene's HdrHistogram.
    """

    def __init__(self, max_distinct: int = MAX_DISTINCT) -> None:
        self._max_distinct = max_distinct
        self._dropped_bits = 0
        self._values: FloatArray = np.empty(0)  # (D,)
        self._counts: Counts = np.zeros((3, 0), np.int64)  # (3, D)
        self._scores: list[FloatArray] = []
        self._groups: list[NDArray[np.int8]] = []
        self._waiting = 0

    def add(self, scores: FloatArray, groups: NDArray[np.int8]) -> None:
        """Count scores (B,), finite, with their labels (B,)."""
        self._scores.append(scores)
        self._groups.append(groups)
        self._waiting += len(scores)
        if self._waiting >= _BUFFER:
            self._merge()

    @property
    def resolution(self) -> float:
        """Highest relative difference between scores that count as equal; 0 = exact."""
        self._merge()
        return 2.0 ** (self._dropped_bits - 52) if self._dropped_bits else 0.0

    @property
    def values(self) -> FloatArray:
        """Distinct scores (D,), ascending."""
        self._merge()
        return self._values

    def count(self, group: int) -> Counts:
        """Records (D,) of UNKNOWN, NORMAL or ANOMALOUS, for each distinct score."""
        self._merge()
        counts: Counts = self._counts[group]
        return counts

    def quantile(self, share: float) -> float:
        """The lowest score with at least this share of all records at or below it; NaN where there are none."""
        self._merge()
        if not len(self._values):
            return float("nan")
        passed = np.cumsum(self._counts.sum(0))
        return float(self._values[min(int(np.searchsorted(passed, share * passed[-1])), len(passed) - 1)])

    # Sorting is what counting costs: scores wait until there are 262,144 of them, or until somebody asks.
    def _merge(self) -> None:
        if not self._waiting:
            return
        scores, groups = self._coarse(np.concatenate(self._scores)), np.concatenate(self._groups)
        self._scores, self._groups, self._waiting = [], [], 0
        values, counts = _tabulate(scores, np.stack([groups == group for group in range(3)]))
        values = np.concatenate([self._values, values])
        self._values, self._counts = _tabulate(values, np.concatenate([self._counts, counts], axis=1))
        # 24 bits of 52 leave a resolution of 4e-9: fewer would hardly make scores of one magnitude meet.
        while len(self._values) > self._max_distinct:
            self._dropped_bits = max(self._dropped_bits + 1, 24)
            self._values, self._counts = _tabulate(self._coarse(self._values), self._counts)

    def _coarse(self, scores: FloatArray) -> FloatArray:
        # Without its low bits a positive float64 becomes a slightly lower one: the order of scores stays.
        if not self._dropped_bits:
            return scores
        kept = np.int64(-1) << np.int64(self._dropped_bits)
        coarse: FloatArray = (np.ascontiguousarray(scores, np.float64).view(np.int64) & kept).view(np.float64)
        return coarse


def _tabulate(scores: FloatArray, weights: NDArray[np.int64] | NDArray[np.bool_]) -> tuple[FloatArray, Counts]:
    """Distinct scores (D,), ascending, and the sums (3, D) of the weights (3, B) over equal ones of the scores (B,)."""
    values, entry = np.unique(scores, return_inverse=True)
    sums = [np.bincount(entry, weights=weight, minlength=len(values)) for weight in weights]
    return values, np.stack(sums).astype(np.int64)


def curve(table: ScoreTable, points: int = 400) -> tuple[FloatArray, FloatArray, FloatArray]:
    """False alert rate, recall and precision, float64 (K,) each, from "alert nothing" to "alert everything".

    Thinned to about `points` thresholds that are spread over both axes.
    """
    normal, anomalous = table.count(NORMAL)[::-1], table.count(ANOMALOUS)[::-1]
    false_alerts, hits = np.cumsum(normal), np.cumsum(anomalous)
    rate, recall = false_alerts / false_alerts[-1], hits / hits[-1]
    # The logarithm of the rank takes many steps among the first alerts, where precision falls fastest.
    spread = rate + recall + np.log1p(np.arange(len(rate))) / np.log1p(len(rate))
    steps = np.unique(np.searchsorted(spread, np.linspace(0, spread[-1], points)))
    keep = steps[steps < len(rate)]
    precision = hits[keep] / (hits[keep] + false_alerts[keep])
    return np.append(0.0, rate[keep]), np.append(0.0, recall[keep]), np.append(precision[:1], precision)


def coarsen(table: ScoreTable, bins: int = 2048) -> FloatArray:
    """Upper borders, ascending, of bins that rank nearly as well: even in the anomalies, finer towards the top."""
    values, normal, anomalous = table.values, table.count(NORMAL), table.count(ANOMALOUS)
    above = np.cumsum((normal + anomalous)[::-1])[::-1]
    by_rank = np.floor(np.log2(above + 1) * bins / 64)
    by_anomaly = np.floor(np.cumsum(anomalous) * (bins / 2) / max(1, int(anomalous.sum())))
    changes = np.flatnonzero((np.diff(by_rank) != 0) | (np.diff(by_anomaly) != 0))
    borders: FloatArray = values[np.append(changes, len(values) - 1)]
    return borders


def bootstrap(table: ScoreTable, *, seed: int = 0, draws: int = 300) -> dict[str, tuple[float, float]]:
    """95% intervals of ROC-AUC and average precision, by resampling normal and anomalous records separately.

    Works badly where anomalies come in bursts: records are taken as independent, so the interval is then too narrow.
    With fewer than about 20 anomalies it is a guess.

        table    scores of both classes, each with at least one record
        seed     of the draws: the same table gives the same intervals
        draws    resamples; drawn from a histogram of about 2,048 bins, which shifts them by less than it takes away

    >>> table = ScoreTable()
    >>> table.add(np.array([0.1, 0.2, 0.3, 0.4]), np.array([NORMAL, NORMAL, ANOMALOUS, ANOMALOUS], np.int8))
    >>> bootstrap(table)["roc_auc"]
    (1.0, 1.0)

    Efron (1979): Bootstrap methods: another look at the jackknife; percentiles, around the exact value.
    """
    borders = coarsen(table)
    bins = np.searchsorted(borders, table.values)
    rng = np.random.default_rng(seed)
    binned = [
        np.bincount(bins, weights=table.count(group), minlength=len(borders)).astype(np.int64)
        for group in (NORMAL, ANOMALOUS)
    ]
    drawn = [rng.multinomial(counts.sum(), counts / counts.sum(), size=draws) for counts in binned]
    intervals = {}
    for name, measure in (("roc_auc", roc_auc), ("average_precision", average_precision)):
        exact = float(measure(table.count(NORMAL), table.count(ANOMALOUS)))
        shift = exact - float(measure(*binned))
        low, high = np.quantile(measure(*drawn), [0.025, 0.975]) + shift
        intervals[name] = (max(0.0, float(low)), min(1.0, float(high)))
    return intervals


def bootstrap_share(hits: int, of: int, *, seed: int = 0, draws: int = 2000) -> tuple[float, float]:
    """95% interval of a share of independent records: resampling them is drawing from a binomial."""
    drawn = np.random.default_rng(seed).binomial(of, hits / of, size=draws) / of
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)
