"""A candidate beside the model in force: what it would have alerted, and nobody hears of it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from worker.formats.base import Decoder
from worker.pipeline import Model
from worker.records import Outcome, Partition
from worker.rollout.figures import above, body, rank_correlation, wins
from worker.rollout.paired import PairedSample, PairedScorer, joined
from worker.texts import significant
from worker.thresholds.factory import ThresholdFactory
from worker.thresholds.partition import PartitionThreshold

REPORT_SAMPLED = 2_000
"""Sampled records in one report: a rank correlation is known within 0.02 then, an alert rate of 0.5% within a third."""


@dataclass(frozen=True, slots=True)
class ShadowCounts:
    """What the sample of one batch says. Records: sampled; alerts: of the model in force, of the candidate, of both."""

    sampled: int = 0
    current: int = 0
    candidate: int = 0
    both: int = 0


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """The model in force and the candidate on the same REPORT_SAMPLED records or more.

    rank_correlation: of the scores (Spearman), None where one side is constant. body: the bulk of each one's scores in
    multiples of its own calibration. noticed: share of records in which each notices that a field was exchanged.
    """

    version: str
    candidate: str
    tally: ShadowCounts
    rank_correlation: float | None
    body: float
    body_candidate: float
    noticed: float
    noticed_candidate: float

    def to_json(self) -> Mapping[str, object]:
        """Plain data with four digits."""
        numbers = {name: getattr(self, name) for name in self.__slots__[3:]}
        rounded = {name: None if value is None else significant(value, 4) for name, value in numbers.items()}
        tally = self.tally
        return {
            "version": self.version,
            "candidate": self.candidate,
            "sampled": tally.sampled,
            "alerts": tally.current,
            "alerts_candidate": tally.candidate,
            "alerts_both": tally.both,
            **rounded,
        }


class Shadow:
    """One candidate beside one model in force.

    thresholds: the candidate's, where it has been beside another model before.
    """

    def __init__(
        self,
        current: Model,
        candidate: Model,
        *,
        threshold_factory: ThresholdFactory,
        decoder: Decoder,
        thresholds: Mapping[Partition, PartitionThreshold] | None = None,
    ) -> None:
        self.current, self.candidate = current, candidate
        self._paired = PairedScorer(
            current, candidate, threshold_factory=threshold_factory, decoder=decoder, thresholds=thresholds
        )
        self._parts: list[PairedSample] = []
        self._held = 0

    @property
    def thresholds(self) -> Mapping[Partition, PartitionThreshold]:
        """The candidate's."""
        return self._paired.thresholds

    def observe(self, outcome: Outcome) -> tuple[ShadowCounts, ShadowReport | None]:
        """Take a batch that the model in force has scored: the tally of what was sampled and scored meanwhile, which
        happens in tiles, and a report whenever enough was.
        """
        self._paired.add(outcome)
        sample = self._paired.ready()
        self._parts.append(sample)
        self._held += len(sample)
        difference = None
        if self._held >= REPORT_SAMPLED:
            difference = self._difference(joined(self._parts))
            self._parts, self._held = [], 0
        return shadow_counts(sample), difference

    def forget(self, partitions: Collection[Partition]) -> None:
        """Drop what is known of partitions that belong to another member now."""
        self._paired.forget(partitions)

    def _difference(self, sample: PairedSample) -> ShadowReport:
        told = sample.take(sample.field >= 0)
        noticed = [
            float(wins(mixed, score).mean()) if len(told) else 0.5
            for mixed, score in ((told.mixed, told.score), (told.mixed_beside, told.beside))
        ]
        return ShadowReport(
            version=self.current.bundle.version,
            candidate=self.candidate.bundle.version,
            tally=shadow_counts(sample),
            rank_correlation=rank_correlation(sample.score, sample.beside),
            body=body(sample.score, self.current.bundle.calibration),
            body_candidate=body(sample.beside, self.candidate.bundle.calibration),
            noticed=noticed[0],
            noticed_candidate=noticed[1],
        )


def shadow_counts(sample: PairedSample) -> ShadowCounts:
    """The alerts of both sides in a sample."""
    first, second = above(sample.score, sample.threshold), above(sample.beside, sample.limit)
    return ShadowCounts(len(sample), *(int(np.count_nonzero(side)) for side in (first, second, first & second)))
