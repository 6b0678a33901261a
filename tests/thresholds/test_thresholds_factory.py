"""The factory puts rule, policy and budgets together; new policies and rules are one registration away."""

from collections.abc import Iterator

import numpy as np
import pytest

from worker.errors import SettingsError
from worker.processes.wiring import threshold_factory
from worker.settings import ThresholdSettings
from worker.thresholds.budget import DAY_MS, AlertBudget
from worker.thresholds.factory import POLICIES, RULES, FixedThreshold, ThresholdFactory, ThresholdRule
from worker.thresholds.partition import Strictest
from worker.thresholds.quantile import InlierQuantile, SlidingQuantile

SCORES = np.sort(np.random.default_rng(0).gamma(2.0, 1.0, 500))
ROLLING = ThresholdRule()


class Doubled(SlidingQuantile):
    def threshold(self) -> float | None:
        threshold = super().threshold()
        return None if threshold is None else 2 * threshold


@pytest.fixture
def _registered() -> Iterator[None]:
    POLICIES.register("doubled", Doubled)
    RULES.register("double-max", lambda training, factor: (2.0 if factor is None else factor) * float(training.max()))
    yield
    POLICIES.pop("doubled")
    RULES.pop("double-max")


@pytest.mark.usefixtures("_registered")
def test_a_registered_policy_and_a_registered_rule_are_taken_by_the_settings() -> None:
    rolling = threshold_factory(ThresholdSettings(policy="doubled", quantile=0.9, window=500))
    fixed = threshold_factory(ThresholdSettings(rule="double-max"))

    assert rolling.make(SCORES, SCORES, ROLLING).policy.threshold() == 2 * np.quantile(SCORES, 0.9, method="higher")
    assert fixed.make(SCORES, SCORES, ROLLING).policy.threshold() == 2 * SCORES.max()


def test_an_unknown_policy_or_rule_is_named_with_the_nearest_one() -> None:
    with pytest.raises(SettingsError, match=r"unknown threshold policy 'inlyer'.*'inlier'"):
        ThresholdFactory("inlyer").make(SCORES, SCORES, ROLLING)
    with pytest.raises(SettingsError, match=r"unknown threshold rule 'roling'.*'rolling'"):
        ThresholdFactory().make(SCORES, SCORES, ThresholdRule("roling"))


def test_a_budget_counts_alone_or_beside_the_rule_of_the_model() -> None:
    own = ThresholdRule("fixed", 3.0)
    alone = ThresholdFactory(budgets=((50, DAY_MS),), with_rule=False).make(SCORES, SCORES, own).policy
    combined = ThresholdFactory(budgets=((50, DAY_MS),)).make(SCORES, SCORES, own).policy

    assert isinstance(alone, AlertBudget)
    assert isinstance(combined, Strictest)
    assert [type(policy) for policy in combined.policies] == [FixedThreshold, AlertBudget]


def test_a_stride_is_no_longer_than_the_window() -> None:
    threshold = ThresholdFactory(window=100).make(SCORES, SCORES, ROLLING)

    assert isinstance(threshold.policy, InlierQuantile)
    assert threshold.stride == 100
