"""How a partition comes by its threshold: rules and policies by name, and the factory that puts them together.

A rule says whether a threshold rolls with the traffic or is one number for good, which the training scores give. A
policy says which scores a rolling threshold is a quantile of. An alert budget can take the place of both, or stand
beside them: then the stricter one counts.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from typing_extensions import override

from worker.records import FloatArray, TimeArray
from worker.registry import Registry
from worker.thresholds.budget import ALONE, AlertBudget, PartitionCount
from worker.thresholds.partition import STRIDE, PartitionThreshold, Strictest, ThresholdPolicy
from worker.thresholds.quantile import InlierQuantile, SlidingQuantile
from worker.thresholds.tail import START_SHARE, TailData, fit_tail, ranked
from worker.thresholds.window import require_finite


class FixedThreshold(ThresholdPolicy):
    """Always the same number, whatever the traffic does.

    theta      the threshold
    training   sorted scores of the fitted records (n,), for the tail probabilities; may be empty
    """

    def __init__(self, theta: float, training: FloatArray) -> None:
        self._theta = theta
        self._training = training
        self._tail = None
        if len(training):
            start = float(training[-1 - int(START_SHARE * len(training))])
            self._tail = fit_tail(TailData(training, len(training), start, START_SHARE))

    def __deepcopy__(self, memo: dict[int, Any]) -> "FixedThreshold":
        """Itself: nothing in it ever changes, and the training scores need not stand in memory for each partition."""
        del memo
        return self

    @override
    def threshold(self) -> float:
        return self._theta

    @override
    def update(self, scores: FloatArray, event_time_ms: TimeArray | None = None) -> None:
        require_finite(scores)

    @override
    def tail_probability(self, scores: FloatArray) -> FloatArray:
        if self._tail is not None:
            return self._tail.probability(scores)  # the same for good, as the threshold
        known = len(self._training)
        return ranked(self._training, known, scores) if known else np.full(len(scores), np.nan)

    @override
    def head(self) -> dict[str, Any]:
        return {"fixed": self._theta}

    @override
    def restore(self, head: dict[str, Any], slots: dict[int, bytes]) -> None:
        if slots or head.get("fixed") != self._theta:
            raise ValueError(f"saved state is of the threshold {head.get('fixed')}, this one is {self._theta}")


MakePolicy = Callable[[FloatArray, float, int], ThresholdPolicy]
"""From calibration scores (N,), the quantile, and the scores in a window."""

POLICIES: Registry[MakePolicy] = Registry("threshold policy")
POLICIES.register("inlier", InlierQuantile)
POLICIES.register("plain", SlidingQuantile)


Rule = Callable[[FloatArray, float | None], float | None]
"""From training scores (n,) and the rule's value, if it has one, the threshold for good; None: a policy rolls it."""


def _quantile(training: FloatArray, share: float) -> float:
    return float(np.quantile(training, share))  # between two scores, as numpy has it


# The value of contamination is the share of anomalous records, as in PyOD.
RULES: Registry[Rule] = Registry("threshold rule")
RULES.register("rolling", lambda *_: None)
RULES.register("fixed", lambda _, value: value)
RULES.register("training-quantile", lambda training, share: _quantile(training, 0.95 if share is None else share))
RULES.register("contamination", lambda training, share: _quantile(training, 1 - (0.1 if share is None else share)))


@dataclass(frozen=True, slots=True)
class ThresholdRule:
    """The rule that a model asks for, as its manifest has it.

    name    one of RULES
    value   the rule's number; None: its default, where it has one
    """

    name: str = "rolling"
    value: float | None = None

    def theta(self, training: FloatArray) -> float | None:
        """The threshold for good that training scores (n,) give; None where it rolls."""
        return RULES[self.name](training, self.value)


@dataclass(frozen=True, slots=True)
class ThresholdFactory:
    """Makes the threshold of a partition from the scores that a model was fitted and calibrated with.

    policy        name of the policy of a rolling threshold
    quantile      share of the scores below a rolling threshold, in (0, 1)
    window        scores that the quantile is taken of
    stride        scored records between two updates, at most the window
    rule          name of the rule; None: the one that the model asks for
    rule_values   a rule's value by its name; where there is none, the model's own
    budgets       alerts of all partitions in a period, and the period in milliseconds
    partitions    how many share the budgets
    with_rule     whether the rule counts beside the budgets; without budgets it always does
    """

    policy: str = "inlier"
    quantile: float = 0.995
    window: int = 20_000
    stride: int = STRIDE
    rule: str | None = None
    rule_values: Mapping[str, float] = field(default_factory=dict)
    budgets: tuple[tuple[float, int], ...] = ()
    partitions: PartitionCount = ALONE
    with_rule: bool = True

    def rule_for(self, own: ThresholdRule) -> ThresholdRule:
        """The rule that counts for a model that asks for `own`."""
        name = self.rule or own.name
        return ThresholdRule(name, self.rule_values.get(name, own.value if name == own.name else None))

    def make(self, calibration: FloatArray, training: FloatArray, own: ThresholdRule) -> PartitionThreshold:
        """A threshold that has seen no record yet.

        calibration   scores of normal records that the model was not fitted on (N,), N >= 1
        training      sorted scores of the records that it was fitted on (n,)
        own           the rule that the model asks for
        """
        policies: list[ThresholdPolicy] = [
            AlertBudget(calibration, *budget, self.partitions) for budget in self.budgets
        ]
        if self.with_rule or not policies:
            theta = self.rule_for(own).theta(training)
            if theta is None:  # first of all: of several policies, the first one knows how rare a score is
                policies.insert(0, POLICIES[self.policy](calibration, self.quantile, self.window))
            else:
                policies.insert(0, FixedThreshold(theta, training))
        policy = policies[0] if len(policies) == 1 else Strictest(*policies)
        return PartitionThreshold(policy, min(self.stride, self.window))

    def nominal_rate(self, training: FloatArray, own: ThresholdRule) -> float:
        """Share of inliers that a threshold of this factory alerts on; 0 where only a budget says how many."""
        if self.budgets and not self.with_rule:
            return 0.0
        theta = self.rule_for(own).theta(training)
        return 1 - self.quantile if theta is None else float((training > theta).mean())
