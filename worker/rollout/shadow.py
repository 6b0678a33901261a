"""A candidate beside the current version: what it would have alerted, without alerting anybody."""

from collections.abc import Collection
from dataclasses import asdict, dataclass

import numpy as np

from worker.pipeline import Model
from worker.records import FloatArray, Outcome, Partition
from worker.rollout.paired import PairedScorer, PairedScores, Pairing, above, bulk_ratio, joined
from worker.texts import significant

REPORT_SAMPLED = 2_000
"""Sampled records in one report: a rank correlation is known within 0.02 then, an alert rate of 0.5% within a third."""


@dataclass(frozen=True, slots=True)
class ShadowCounts:
    """Records that were sampled, and alerts of the current version, of the candidate, and of both among them."""

    sampled: int
    alerts: int
    alerts_candidate: int
    alerts_both: int


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """The current version and a candidate on the same REPORT_SAMPLED records or more.

    rank_correlation   of the two versions' scores (Spearman), None where one side is constant
    bulk_ratio, …      the bulk of each one's scores in multiples of its own calibration
    win_rate, …        share of records in which each notices that a field was exchanged; 0.5 by chance
    """

    version: str
    candidate: str
    counts: ShadowCounts
    rank_correlation: float | None
    bulk_ratio: float
    bulk_ratio_candidate: float
    win_rate: float
    win_rate_candidate: float

    def to_json(self) -> dict[str, object]:
        """Plain data with four digits."""
        plain = asdict(self)
        flat = {**{name: plain.pop(name) for name in ("version", "candidate")}, **plain.pop("counts")}
        return flat | {name: value if value is None else significant(value, 4) for name, value in plain.items()}


class Shadow:
    """One candidate beside one current version."""

    def __init__(self, current: Model, candidate: Model, pairing: Pairing) -> None:
        self._current, self._candidate = current, candidate
        self._paired = PairedScorer(current, candidate, pairing)
        self._parts: list[PairedScores] = []

    def observe(self, outcome: Outcome) -> tuple[ShadowCounts, ShadowReport | None]:
        """Take a batch that the current version scored; what both have scored since, and a report if one is due."""
        self._paired.add(outcome)
        sample = self._paired.ready()
        self._parts.append(sample)
        report = None
        if sum(map(len, self._parts)) >= REPORT_SAMPLED:
            report = self._report(joined(self._parts))
            self._parts = []
        return shadow_counts(sample), report

    def forget(self, partitions: Collection[Partition]) -> None:
        """Drop what is known of partitions that belong to another member now."""
        self._paired.forget(partitions)

    def _report(self, sample: PairedScores) -> ShadowReport:
        comparable, *noticed = sample.noticed()
        rates = [float(side.mean()) if len(comparable) else 0.5 for side in noticed]
        return ShadowReport(
            version=self._current.bundle.version,
            candidate=self._candidate.bundle.version,
            counts=shadow_counts(sample),
            rank_correlation=rank_correlation(sample.score, sample.paired_score),
            bulk_ratio=bulk_ratio(sample.score, self._current.bundle.calibration),
            bulk_ratio_candidate=bulk_ratio(sample.paired_score, self._candidate.bundle.calibration),
            win_rate=rates[0],
            win_rate_candidate=rates[1],
        )


def shadow_counts(sample: PairedScores) -> ShadowCounts:
    """The alerts of both sides in a sample."""
    current, candidate = above(sample.score, sample.threshold), above(sample.paired_score, sample.paired_threshold)
    sides = (current, candidate, current & candidate)
    return ShadowCounts(len(sample), *(int(np.count_nonzero(side)) for side in sides))


def rank_correlation(first: FloatArray, second: FloatArray) -> float | None:
    """Spearman's, with mean ranks for ties, of values (n,); None for fewer than two records or a constant side."""
    if len(first) < 2:
        return None
    centred = [ranks - ranks.mean() for ranks in map(_mean_ranks, (first, second))]
    norm = float(np.sqrt((centred[0] @ centred[0]) * (centred[1] @ centred[1])))
    return float(centred[0] @ centred[1]) / norm if norm > 0 else None


def _mean_ranks(values: FloatArray) -> FloatArray:
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: FloatArray = np.cumsum(counts) - (counts - 1) / 2
    return ranks[group]
