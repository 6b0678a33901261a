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
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from worker.pipeline import Model
from worker.records import Outcome
from worker.rollout.paired import PairedScorer, PairedScores, Pairing, Thresholds, above, bulk_ratio, joined
from worker.texts import significant

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

    def __init__(self, current: Model, previous: Model, pairing: Pairing, thresholds: Thresholds | None = None) -> None:
        self.current, self.previous = current, previous
        factory = pairing.threshold_factory
        self._handed_over = thresholds is not None and not factory.budgets
        self.paired = PairedScorer(current, previous, pairing, thresholds if self._handed_over else None)
        self._nominal_rate = factory.nominal_rate(current.bundle.training, current.bundle.rule)
        self._step = max(1, pairing.canary_records // CHECKS)
        self._next_check = self._step
        self._sample = joined([])
        self._faulty_checks = 0

    @property
    def thresholds(self) -> Thresholds | None:
        """Those of the previous version, as they go on; None where they did not."""
        return self.paired.thresholds if self._handed_over else None

    def observe(self, outcome: Outcome) -> CanaryVerdict | None:
        """Take a batch that the current version has scored; a verdict once there is one, and nothing after it."""
        self.paired.add(outcome)
        while self._next_check <= self.paired.scored:
            verdict = self._check(self._next_check)
            if verdict is not None:
                return verdict
            self._next_check += self._step
        return None

    def _check(self, records: int) -> CanaryVerdict | None:
        """Judge all that was sampled among the first `records` records; None where the canary goes on."""
        self._sample = joined([self._sample, self.paired.take()])
        sample = self._sample.take(self._sample.position < records)
        figures: dict[str, Any] = {"records": records, "sampled": len(sample)}
        faults = self._faults(sample, figures) if len(sample) else []
        self._faulty_checks = self._faulty_checks + 1 if faults else 0
        over = records >= self._step * CHECKS
        if self._faulty_checks < CONFIRMING_CHECKS and (faults or not over):
            return None
        return CanaryVerdict(self.current.bundle.version, self.previous.bundle.version, "; ".join(faults), figures)

    def _faults(self, sample: PairedScores, figures: dict[str, Any]) -> list[str]:
        """The faults of the class's table that the sample shows, one text each; the figures of all four are added."""
        faults, name, size = [], f"the previous version {self.previous.bundle.version}", len(sample)
        above_now, above_before = sample.alerts()
        alerts, previous = int(np.count_nonzero(above_now)), int(np.count_nonzero(above_before))
        figures |= {"alert_rate": significant(alerts / size, 4), "alert_rate_previous": significant(previous / size, 4)}
        bound = MAX_ALERT_RATIO * max(self._nominal_rate * size, previous, 1.0)
        if alerts > bound + STANDARD_ERRORS * math.sqrt(bound):
            faults.append(f"it alerts on {alerts / size:.2%} of the records, {name} on {previous / size:.2%}")

        ratio = bulk_ratio(sample.score, self.current.bundle.calibration)
        before = bulk_ratio(sample.paired_score, self.previous.bundle.calibration)
        figures |= {"bulk_ratio": significant(ratio, 4), "bulk_ratio_previous": significant(before, 4)}
        if abs(math.log(ratio)) > max(math.log(MAX_BULK_RATIO), MAX_BULK_DISTANCE * abs(math.log(before))):
            own = f"its scores are {ratio:.3g} times those of its calibration"
            faults.append(f"{own}, those of {name} {before:.3g} times")

        strong = above(sample.paired_score, sample.paired_threshold, STRONG_TIMES)
        count, lost = int(np.count_nonzero(strong)), int(np.count_nonzero(strong & ~above_now))
        figures |= {"strongest": count, "strongest_lost": lost}
        if MIN_STRONG <= count <= MAX_STRONG_SHARE * size and lost > MAX_STRONG_LOST * count:
            faults.append(f"{lost} of the {count} strongest anomalies of {name} are inliers to it")

        comparable, noticed, noticed_before = sample.noticed()
        if len(comparable):
            rates = [significant(float(side.mean()), 4) for side in (noticed, noticed_before)]
            figures |= {"win_rate": rates[0], "win_rate_previous": rates[1]}
        everywhere = np.ones(len(comparable), np.bool_)
        one_field = [(field, comparable.field == number) for number, field in enumerate(self.paired.fields)]
        for field, mask in [("field", everywhere), *one_field]:
            now, then = noticed[mask], noticed_before[mask]
            if len(now) < MIN_EXCHANGED or then.mean() - 0.5 < MIN_WIN_EXCESS:
                continue
            excess_lost = (1 - MAX_EXCESS_LOST) * (then - 0.5) - (now - 0.5)  # above 0 in the mean: too much is lost
            if excess_lost.mean() > STANDARD_ERRORS * excess_lost.std() / math.sqrt(len(now)):
                shares = f"in {now.mean():.0%} of the records, {name} in {then.mean():.0%}"
                faults.append(f"it notices an exchanged {field} {shares}")
                break  # a version that is blind to one field often is to several: the first one says enough
        return faults
