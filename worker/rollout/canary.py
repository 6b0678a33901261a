"""After a swap: is the new current version worse than the previous one, which goes on scoring a sample of the records?

Why the comparison is made like this:

- On the same records, never against a fixed bound alone. Traffic itself changes: a flood of anomalies or a shift looks
  to a single model just like a fault of that model. Both models see the flood, so only what one of them makes of it and
  the other does not is held against it. A fixed bound would roll a good refit back in the very hour it is needed for.
- Two checks in a row. Each check compares a few dozen figures, and records come in bursts; a cache of late records can
  fill a whole check. Acting on one check would roll good versions back by chance, and each rollback is final: the store
  never takes the version again unless somebody forces it. Waiting for a third would only lengthen the harm.
- At fixed counts of scored records, not at batch borders: a replay of the same records comes to the same verdict.
- An exchanged field needs no anomaly in the traffic: a version that was fitted on noise knows each field but not how
  they belong together, and would otherwise pass every check until the first real anomaly is missed.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from worker.pipeline import Model
from worker.records import FloatArray, Outcome, Partition
from worker.rollout.paired import PairedScorer, PairedScores, Pairing, above, bulk_ratio, joined
from worker.texts import significant
from worker.thresholds.partition import PartitionThreshold

CHECKS = 10  # early enough to limit a bad version's harm to a fifth
CONFIRMING_CHECKS = 2  # in a row that have to find fault
STANDARD_ERRORS = 4.0  # by which a difference exceeds chance: in ten checks of a few dozen figures, two often do
MAX_ALERT_RATIO = 3.0  # a calibration of a few hundred rows misses its quantile by up to a factor of two
MAX_BULK_RATIO = 2.0  # of the scores to the calibration, up or down: a season moves both versions' by half
MAX_BULK_DISTANCE = 2.0  # in logarithms, in multiples of the previous version's: after a shift both are far out
STRONG_TIMES = 2.0  # thresholds of the previous version from which on a record is one of the strongest
MIN_STRONG = 10  # below which nothing is said about them
MAX_STRONG_SHARE = 0.05  # of the sample; more is a flood or a change of the traffic
MAX_STRONG_LOST = 0.5  # share of them that may become inliers
MIN_EXCHANGED = 50  # records below which nothing is said about a field
MIN_WIN_EXCESS = 0.1  # over chance, which the previous version has to reach before the new one can fall short of it
MAX_EXCESS_LOST = 0.5  # share of that excess


@dataclass(frozen=True, slots=True)
class CanaryVerdict:
    """The end of a canary. why: empty where the version stays. figures: plain data, for JSON."""

    version: str
    previous: str
    why: str
    figures: Mapping[str, Any]

    @property
    def passed(self) -> bool:
        """Whether the version stays."""
        return not self.why


class Canary:
    """One version from its swap on, against the one that was current before.

    It is sent back for one of four faults, each compared with the previous version on the same sample:

    alerts      it alerts on far more than is nominal, and than the previous version does
    bulk        the bulk of its scores lies far from its own calibration, and the previous version's does not
    strongest   most of what the previous version puts far beyond its threshold is an inlier to it
    relations   it no longer notices exchanged fields (`Exchange`) that the previous version notices, over all fields or
                in one: a paired z-test of the excess of the win rate over chance

    It works badly where the previous version is bad itself: what that one never noticed can't be lost. A fault that
    shows only after the canary's end is not seen, and in less than about 4,000 records the sample (one in SAMPLE_EVERY)
    is too small for the third and the fourth.

    current      the version that took over
    previous     the one it is compared with, which the way back leads to
    pairing      how the two are compared, and for how long: its canary_records are at least CHECKS
    thresholds   the previous version's at the swap, which go on with the sample. Not where there is a budget, which
                 counts the alerts of all records in a time: then they start from its calibration

    >>> import orjson
    >>> from worker.features.schema import parse_schema
    >>> from worker.formats.json_objects import JsonDecoder
    >>> from worker.model.learn import fit_bundle
    >>> from worker.model.network.fit import FitOptions
    >>> from worker.pipeline import Pipeline
    >>> from worker.records import Message
    >>> from worker.thresholds.factory import ThresholdFactory
    >>> schema = parse_schema('[fields.a]\\nkind = "numeric"\\n[fields.b]\\nkind = "numeric"\\n')
    >>> rows = [{"a": float(i % 7), "b": float(i % 7)} for i in range(800)]
    >>> good, bad = (
    ...     Model(fit_bundle(schema, some, FitOptions(hidden=(4,), steps=20), created_at="2026-01-01T00:00:00Z"))
    ...     for some in (rows, [{"a": 1e6 * i, "b": -1.0} for i in range(200)])
    ... )
    >>> factory = ThresholdFactory()
    >>> canary = Canary(bad, good, Pairing(factory, JsonDecoder(), canary_records=800))
    >>> messages = [Message("t", 0, i, -1, None, orjson.dumps(row)) for i, row in enumerate(rows)]
    >>> verdict = canary.observe(Pipeline(bad, threshold_factory=factory).process(messages))
    >>> verdict.passed, verdict.figures["records"]
    (False, 160)

    Test of matched pairs: Agresti, Categorical Data Analysis (2002), section 10.1.
    """

    def __init__(
        self,
        current: Model,
        previous: Model,
        pairing: Pairing,
        thresholds: Mapping[Partition, PartitionThreshold] | None = None,
    ) -> None:
        self.current, self.previous = current, previous
        factory = pairing.threshold_factory
        self._handed_over = thresholds is not None and not factory.budgets
        self._paired = PairedScorer(current, previous, pairing, thresholds if self._handed_over else None)
        self._nominal_rate = factory.nominal_rate(current.bundle.training, current.bundle.rule)
        self._step = max(1, pairing.canary_records // CHECKS)
        self._next_check = self._step
        self._sample = joined([])
        self._faulty_checks = 0

    @property
    def thresholds(self) -> Mapping[Partition, PartitionThreshold] | None:
        """Those of the previous version, as they go on; None where they did not."""
        return self._paired.thresholds if self._handed_over else None

    def observe(self, outcome: Outcome) -> CanaryVerdict | None:
        """Take a batch that the current version has scored; a verdict once there is one, and nothing after it."""
        self._paired.add(outcome)
        while self._next_check <= self._paired.scored:
            verdict = self._check(self._next_check)
            if verdict is not None:
                return verdict
            self._next_check += self._step
        return None

    def forget(self, partitions: Collection[Partition]) -> None:
        """Drop what is known of partitions that belong to another member now."""
        self._paired.forget(partitions)

    def _check(self, records: int) -> CanaryVerdict | None:
        """Judge all that was sampled among the first `records` records; None where the canary goes on."""
        self._sample = joined([self._sample, self._paired.take()])
        sample = self._sample.take(self._sample.position < records)
        figures: dict[str, Any] = {"records": records, "sampled": len(sample)}
        parts = (self._alerts, self._bulk, self._strongest, self._relations)
        faults = [fault for part in parts if (fault := part(sample, figures))] if len(sample) else []
        self._faulty_checks = self._faulty_checks + 1 if faults else 0
        over = records >= self._step * CHECKS
        if self._faulty_checks < CONFIRMING_CHECKS and (faults or not over):
            return None
        versions = self.current.bundle.version, self.previous.bundle.version
        return CanaryVerdict(*versions, "; ".join(faults), figures)

    def _alerts(self, sample: PairedScores, figures: dict[str, Any]) -> str:
        alerts = int(np.count_nonzero(above(sample.score, sample.threshold)))
        previous = int(np.count_nonzero(above(sample.paired_score, sample.paired_threshold)))
        rate, previous_rate = alerts / len(sample), previous / len(sample)
        figures |= {"alert_rate": significant(rate, 4), "alert_rate_previous": significant(previous_rate, 4)}
        bound = MAX_ALERT_RATIO * max(self._nominal_rate * len(sample), previous, 1.0)
        if alerts <= bound + STANDARD_ERRORS * math.sqrt(bound):
            return ""
        return f"it alerts on {rate:.2%} of the records, {self._name} on {previous_rate:.2%}"

    def _bulk(self, sample: PairedScores, figures: dict[str, Any]) -> str:
        ratio = bulk_ratio(sample.score, self.current.bundle.calibration)
        previous = bulk_ratio(sample.paired_score, self.previous.bundle.calibration)
        figures |= {"bulk_ratio": significant(ratio, 4), "bulk_ratio_previous": significant(previous, 4)}
        if abs(math.log(ratio)) <= max(math.log(MAX_BULK_RATIO), MAX_BULK_DISTANCE * abs(math.log(previous))):
            return ""
        return f"its scores are {ratio:.3g} times those of its calibration, those of {self._name} {previous:.3g} times"

    def _strongest(self, sample: PairedScores, figures: dict[str, Any]) -> str:
        strong = above(sample.paired_score, sample.paired_threshold, STRONG_TIMES)
        count = int(np.count_nonzero(strong))
        lost = int(np.count_nonzero(strong & ~above(sample.score, sample.threshold)))
        figures |= {"strongest": count, "strongest_lost": lost}
        if count < MIN_STRONG or count > MAX_STRONG_SHARE * len(sample) or lost <= MAX_STRONG_LOST * count:
            return ""
        return f"{lost} of the {count} strongest anomalies of {self._name} are inliers to it"

    def _relations(self, sample: PairedScores, figures: dict[str, Any]) -> str:
        comparable, noticed, previous = sample.noticed()
        if len(comparable) == 0:
            return ""
        rates = [significant(float(side.mean()), 4) for side in (noticed, previous)]
        figures |= {"win_rate": rates[0], "win_rate_previous": rates[1]}
        everywhere = np.ones(len(comparable), np.bool_)
        one_field = [(name, comparable.field == number) for number, name in enumerate(self._paired.fields)]
        for name, mask in [("field", everywhere), *one_field]:
            if _is_lost(noticed[mask], previous[mask]):
                return (
                    f"it notices an exchanged {name} in {noticed[mask].mean():.0%} of the records, "
                    f"{self._name} in {previous[mask].mean():.0%}"
                )
        return ""

    @property
    def _name(self) -> str:
        return f"the previous version {self.previous.bundle.version}"


def _is_lost(noticed: FloatArray, previous: FloatArray) -> bool:
    """Whether the current version has lost too much of the previous one's excess; of the same exchanges, (n,) each."""
    if len(noticed) < MIN_EXCHANGED or previous.mean() - 0.5 < MIN_WIN_EXCESS:
        return False
    lost = (1 - MAX_EXCESS_LOST) * (previous - 0.5) - (noticed - 0.5)  # above 0 in the mean where too much is lost
    return bool(lost.mean() > STANDARD_ERRORS * lost.std() / math.sqrt(len(lost)))
