"""After a swap: is the new model worse than the one before it? The old one keeps scoring a sample of the records.

Every figure is compared with the old model's on the same records, never with a fixed bound alone: when traffic itself
changes, both models see it. Four things send a new model back, each at two looks in a row:

    alerts      it alerts on more than ALERTS_TIMES what is nominal, and what the old one does (a flood: both do)
    body        the bulk of its scores lies at a multiple or a fraction of its own calibration, in logarithms more than
                BODY_FURTHER as far out as the old one's (a shift: the old one's does too, or more)
    strongest   most of what the old one puts far beyond its threshold is ordinary to it
    relations   it no longer notices when one field of a record is taken from another record, over all fields or in a
                single one, where the old one does

The last one needs no anomaly in the traffic: a model of noise knows the fields but not how they belong together.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from worker.formats.base import Decoder
from worker.pipeline import Model
from worker.records import Outcome, Partition
from worker.rollout.figures import above, body, wins
from worker.rollout.paired import PairedSample, PairedScorer, joined
from worker.texts import significant
from worker.thresholds.factory import ThresholdFactory
from worker.thresholds.partition import PartitionThreshold

LOOKS = 10
"""Looks in a canary, at fixed counts of scored records: early enough to cut a bad model's harm to a fifth."""

CONFIRMED = 2
"""Looks in a row that have to find fault: one can be a burst, or a cache of late records."""

ERRORS = 4.0
"""Standard errors by which a difference has to exceed chance: with ten looks at a few dozen figures each, less would
find fault by chance."""

ALERTS_TIMES = 3.0
"""Alert rate, in multiples of the higher of the nominal and the old model's, that is too much: a calibration of a few
hundred rows misses its quantile by up to a factor of two."""

BODY_TIMES = 2.0
"""Factor, up or down, between the bulk of the scores and the calibration that is too much: seasons move both models'
scores by half."""

BODY_FURTHER = 2.0
"""Times as far out, in logarithms, as the old model's bulk: after a shift both are out, and how far says little."""

STRONG_TIMES = 2.0
"""Multiples of the old model's threshold from which on a record is one of the strongest."""

STRONG_LEAST = 10
"""Strongest records without which nothing is said about them."""

STRONG_MOST = 0.05
"""Share of the sample up to which they are anomalies; more is a flood or a change of the traffic."""

STRONG_LOST = 0.5
"""Share of them that may become ordinary."""

PAIRS_LEAST = 50
"""Exchanged records without which nothing is said about a field."""

RELATION_TOLD = 0.1
"""Excess over chance with which the old model has to notice exchanged fields before the new one can fail to."""

RELATION_LOST = 0.5
"""Share of the old model's excess that has to be lost."""


@dataclass(frozen=True, slots=True)
class CanaryVerdict:
    """The end of a canary. why: empty where the new model stays. figures: plain data, for JSON."""

    version: str
    before: str
    why: str
    figures: Mapping[str, Any]

    @property
    def passed(self) -> bool:
        """Whether the new model stays."""
        return not self.why


class Canary:
    """One new model, from its swap on.

    records: scored records after which it is over; at least LOOKS. nominal: share of ordinary records that the
    threshold settings alert on, 0 where they do not say. thresholds: those of the old model at the swap; None where
    they can't move to a model that sees a sample: they start from its calibration.
    """

    def __init__(
        self,
        new: Model,
        old: Model,
        *,
        threshold_factory: ThresholdFactory,
        decoder: Decoder,
        records: int,
        nominal: float,
        thresholds: Mapping[Partition, PartitionThreshold] | None = None,
    ) -> None:
        self.new, self.old = new, old
        self._paired = PairedScorer(
            new, old, threshold_factory=threshold_factory, decoder=decoder, thresholds=thresholds
        )
        self._handed_over = thresholds is not None
        self._nominal = nominal
        self._step = max(1, records // LOOKS)
        self._end = self._step * LOOKS
        self._border = self._step
        self._parts: list[PairedSample] = []
        self._faults = 0

    @property
    def thresholds(self) -> Mapping[Partition, PartitionThreshold] | None:
        """Those of the old model, as they go on; None where none were handed over."""
        return self._paired.thresholds if self._handed_over else None

    def observe(self, outcome: Outcome) -> CanaryVerdict | None:
        """Take a batch that the new model has scored; a verdict once there is one, and nothing after it."""
        self._paired.add(outcome)
        while self._border <= self._paired.scored:
            verdict = self._look()
            if verdict is not None:
                return verdict
            self._border += self._step
        return None

    def forget(self, partitions: Collection[Partition]) -> None:
        """Drop what is known of partitions that belong to another member now."""
        self._paired.forget(partitions)

    def _look(self) -> CanaryVerdict | None:
        whole = joined([*self._parts, self._paired.take()])
        self._parts = [whole]
        sample = whole.take(whole.place < self._border)
        figures, why = self._judge(sample)
        self._faults = self._faults + 1 if why else 0
        if self._faults < CONFIRMED and (self._border < self._end or why):
            return None
        facts = {"records": self._border, **figures}
        return CanaryVerdict(self.new.bundle.version, self.old.bundle.version, "; ".join(why), facts)

    def _judge(self, sample: PairedSample) -> tuple[dict[str, Any], list[str]]:
        figures: dict[str, Any] = {"sampled": len(sample)}
        checks = (self._alerts, self._body, self._strongest, self._relations)
        why = [fault for check in checks if (fault := check(sample, figures))] if len(sample) else []
        return figures, why

    def _alerts(self, sample: PairedSample, figures: dict[str, Any]) -> str:
        new, old = (
            int(np.count_nonzero(above(score, limit)))
            for score, limit in ((sample.score, sample.threshold), (sample.beside, sample.limit))
        )
        figures |= {"alert_rate": _short(new / len(sample)), "alert_rate_before": _short(old / len(sample))}
        most = ALERTS_TIMES * max(self._nominal * len(sample), old, 1.0)
        if new <= most + ERRORS * math.sqrt(most):
            return ""
        return f"it alerts on {new / len(sample):.2%} of the records, {self._before} on {old / len(sample):.2%}"

    def _body(self, sample: PairedSample, figures: dict[str, Any]) -> str:
        new = body(sample.score, self.new.bundle.calibration)
        old = body(sample.beside, self.old.bundle.calibration)
        figures |= {"body": _short(new), "body_before": _short(old)}
        if abs(math.log(new)) <= max(math.log(BODY_TIMES), BODY_FURTHER * abs(math.log(old))):
            return ""
        return f"its scores are {new:.3g} times those of its calibration, those of {self._before} {old:.3g} times"

    def _strongest(self, sample: PairedSample, figures: dict[str, Any]) -> str:
        strong = above(sample.beside, sample.limit, STRONG_TIMES)
        lost = strong & ~above(sample.score, sample.threshold)
        count, gone = int(np.count_nonzero(strong)), int(np.count_nonzero(lost))
        figures |= {"strongest": count, "strongest_lost": gone}
        if count < STRONG_LEAST or count > STRONG_MOST * len(sample) or gone <= STRONG_LOST * count:
            return ""
        return f"{gone} of the {count} strongest anomalies of {self._before} are ordinary to it"

    def _relations(self, sample: PairedSample, figures: dict[str, Any]) -> str:
        told = sample.take(sample.field >= 0)
        new, old = wins(told.mixed, told.score), wins(told.mixed_beside, told.beside)
        if len(told) == 0:
            return ""
        figures |= {"noticed": _short(float(new.mean())), "noticed_before": _short(float(old.mean()))}
        if _is_lost(new, old):
            return (
                f"it notices an exchanged field in {new.mean():.0%} of the records, {self._before} in {old.mean():.0%}"
            )
        for number, name in enumerate(self._paired.fields):
            own = told.field == number
            if _is_lost(new[own], old[own]):
                return (
                    f"it notices an exchanged {name} in {new[own].mean():.0%} of the records, {self._before} "
                    f"in {old[own].mean():.0%}"
                )
        return ""

    @property
    def _before(self) -> str:
        return f"{self.old.bundle.version} before it"


def _is_lost(new: np.ndarray[Any, Any], old: np.ndarray[Any, Any]) -> bool:
    """Whether the new model has lost most of what the old one notices beyond chance; wins of the same pairs (n,)."""
    if len(new) < PAIRS_LEAST or old.mean() - 0.5 < RELATION_TOLD:
        return False
    short = RELATION_LOST * (old - 0.5) - (new - 0.5)  # above 0 in the mean where more than this share is lost
    return bool(short.mean() > ERRORS * short.std() / math.sqrt(len(short)))


def _short(value: float) -> float:
    return significant(value, 4)
