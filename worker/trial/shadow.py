"""A candidate beside the model in force: what it would have alerted, and nobody hears of it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from worker.detect.threshold import PartitionThreshold
from worker.pipeline import MakeThreshold, Model
from worker.records import Outcome, Partition
from worker.trial.companion import Companion, Sample, joined
from worker.trial.figures import above, body, rank_correlation, wins

REPORT_SAMPLED = 2_000
"""Sampled records in one report: a rank correlation is known within 0.02 then, an alert rate of 0.5% within a third."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What the sample of one batch says. Records: sampled; alerts: of the model in force, of the candidate, of both."""

    sampled: int = 0
    in_force: int = 0
    candidate: int = 0
    both: int = 0


@dataclass(frozen=True, slots=True)
class Difference:
    """The model in force and the candidate on the same REPORT_SAMPLED records or more.

    rank_correlation: of the scores (Spearman), None where one side is constant. body: the bulk of each one's scores in
    multiples of its own calibration. noticed: share of records in which each notices that a field was exchanged.
    """

    version: str
    candidate: str
    tally: Tally
    rank_correlation: float | None
    body: float
    body_candidate: float
    noticed: float
    noticed_candidate: float

    def to_json(self) -> Mapping[str, object]:
        """Plain data with four digits."""
        numbers = {name: getattr(self, name) for name in self.__slots__[3:]}
        rounded = {name: None if value is None else float(f"{value:.4g}") for name, value in numbers.items()}
        tally = self.tally
        return {
            "version": self.version,
            "candidate": self.candidate,
            "sampled": tally.sampled,
            "alerts": tally.in_force,
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
        in_force: Model,
        candidate: Model,
        *,
        make_threshold: MakeThreshold,
        thresholds: Mapping[Partition, PartitionThreshold] | None = None,
    ) -> None:
        self.in_force, self.candidate = in_force, candidate
        self._companion = Companion(in_force, candidate, make_threshold=make_threshold, thresholds=thresholds)
        self._parts: list[Sample] = []
        self._held = 0

    @property
    def thresholds(self) -> Mapping[Partition, PartitionThreshold]:
        """The candidate's."""
        return self._companion.thresholds

    def observe(self, outcome: Outcome) -> tuple[Tally, Difference | None]:
        """Take a batch that the model in force has scored: the tally of what was sampled and scored meanwhile, which
        happens in tiles, and a report whenever enough was.
        """
        self._companion.add(outcome)
        sample = self._companion.ready()
        self._parts.append(sample)
        self._held += len(sample)
        difference = None
        if self._held >= REPORT_SAMPLED:
            difference = self._difference(joined(self._parts))
            self._parts, self._held = [], 0
        return tally_of(sample), difference

    def forget(self, partitions: Collection[Partition]) -> None:
        """Drop what is known of partitions that belong to another member now."""
        self._companion.forget(partitions)

    def _difference(self, sample: Sample) -> Difference:
        told = sample.take(sample.field >= 0)
        noticed = [
            float(wins(mixed, score).mean()) if len(told) else 0.5
            for mixed, score in ((told.mixed, told.score), (told.mixed_beside, told.beside))
        ]
        return Difference(
            version=self.in_force.bundle.version,
            candidate=self.candidate.bundle.version,
            tally=tally_of(sample),
            rank_correlation=rank_correlation(sample.score, sample.beside),
            body=body(sample.score, self.in_force.bundle.calibration),
            body_candidate=body(sample.beside, self.candidate.bundle.calibration),
            noticed=noticed[0],
            noticed_candidate=noticed[1],
        )


def tally_of(sample: Sample) -> Tally:
    """The alerts of both sides in a sample."""
    first, second = above(sample.score, sample.threshold), above(sample.beside, sample.limit)
    return Tally(len(sample), *(int(np.count_nonzero(side)) for side in (first, second, first & second)))
