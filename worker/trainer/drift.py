"""Has ordinary traffic moved? Asked of the champion's scores alone, one stretch of traffic at a time.

A refit on traffic that has not moved gains nothing and lets unlabelled anomalies leak in, so need comes first. Four
kinds of traffic are told apart:

- settled: the body of the scores is where the calibration has it.
- moved: a part of the ordinary traffic scores higher than the calibration explains, and its tail with it. A flood of
  anomalies can look the same, but ends; so this has to last.
- gone: almost nothing is left of the traffic that the model knows. A flood adds records, a change replaces them.
- apart: beyond a valley in the scores lives a population that the calibration does not hold. New ordinary traffic or a
  flood of anomalies: scores cannot tell, a person has to.
"""

import math
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from worker.records import FloatArray
from worker.texts import significant
from worker.thresholds.inlier import InlierQuantile, calibrated_quantile

BODY = (0.5, 0.75, 0.9)
"""Quantiles of the calibration at which the body of the scores is looked at."""

ERRORS = 2.0
"""Standard errors that a move has to exceed: few calibration rows prove little."""

MOVED = 0.15
"""Share of the ordinary traffic that must score beyond what the calibration explains."""

TAIL = 1.25
"""... and the tail with it: the threshold over the calibrated one."""

GONE = 0.90
"""Share of all traffic that must have moved for the old traffic to be gone."""

APART = 0.10
"""Share of all traffic beyond the valley that is worth a person's look."""

STRIDE = 256


class Condition(StrEnum):
    """What one stretch of traffic looks like."""

    SETTLED = "settled"
    MOVED = "moved"
    GONE = "gone"
    APART = "apart"


@dataclass(frozen=True, slots=True)
class Evidence:
    """Of one stretch of scores.

    records     scores looked at
    moved       share of the ordinary ones that the calibration does not explain, at least, in [0, 1]
    replaced    the same of all scores
    tail        threshold now over the calibrated threshold; 1 = as calibrated
    beyond      share of all scores beyond the valley
    cut         score of the valley; infinite where there is none
    threshold   quantile of the ordinary scores
    """

    records: int
    moved: float
    replaced: float
    tail: float
    beyond: float
    cut: float
    threshold: float

    @property
    def condition(self) -> Condition:
        """The kind of traffic."""
        if self.replaced >= GONE:
            return Condition.GONE
        if self.moved >= MOVED and self.tail >= TAIL:
            return Condition.MOVED
        return Condition.APART if self.beyond >= APART else Condition.SETTLED

    def figures(self) -> dict[str, Any]:
        """Plain data for JSON, rounded for people."""
        values = {name: value for name, value in asdict(self).items() if value < math.inf}
        return {"condition": self.condition.value, **{name: significant(value, 4) for name, value in values.items()}}


def unexplained(scores: FloatArray, calibration: FloatArray) -> float:
    """Share of scores (B,) that can't come from where the calibration scores (N,) come from, at least; in [0, 1].

    If a share p of the scores were like the calibration, at least p·q of all would lie below its quantile q. So p is at
    most the least ratio over the quantiles (Storey 2002, the estimate of the share of true null hypotheses), here with
    ERRORS standard errors of both samples on top.
    """
    if not len(scores):
        return 0.0
    ordered, explained = np.sort(scores), 1.0
    for q in BODY:
        below = np.searchsorted(ordered, np.quantile(calibration, q), side="right") / len(scores)
        error = math.sqrt((1 - q) / q * (1 / len(calibration) + 1 / len(scores)))
        explained = min(explained, below / q + ERRORS * error)
    return 1.0 - explained


def weigh(scores: FloatArray, calibration: FloatArray, quantile: float = 0.99) -> Evidence:
    """Evidence from a stretch of scores (B,) in order of arrival, B >= 1, and the champion's calibration (N,)."""
    policy = InlierQuantile(calibration, quantile, window=len(scores))
    for start in range(0, len(scores), STRIDE):
        policy.update(scores[start : start + STRIDE])
    ordinary = scores[scores < policy.cutoff]
    calibrated = calibrated_quantile(np.sort(calibration), quantile)
    return Evidence(
        records=len(scores),
        moved=unexplained(ordinary, calibration),
        replaced=unexplained(scores, calibration),
        tail=policy.threshold() / calibrated if calibrated > 0 else 1.0,
        beyond=1 - len(ordinary) / len(scores),
        cut=policy.cutoff,
        threshold=policy.threshold(),
    )
