"""A threshold that is fixed before the first record, and the rules that it comes from."""

import copy

import numpy as np
import pytest

from devtools.score_streams import state_of
from worker.thresholds.factory import FixedThreshold, ThresholdRule
from worker.thresholds.partition import PartitionThreshold

TRAINING = np.sort(np.random.default_rng(0).gamma(2.0, 1.0, 5000))


@pytest.mark.parametrize(
    ("rule", "theta"),
    [
        (ThresholdRule(), None),
        (ThresholdRule("fixed", 0.0), 0.0),
        (ThresholdRule("fixed", 0.7), 0.7),
        (ThresholdRule("training-quantile"), np.quantile(TRAINING, 0.95)),
        (ThresholdRule("training-quantile", 0.5), np.median(TRAINING)),
        (ThresholdRule("contamination"), np.percentile(TRAINING, 90)),
        (ThresholdRule("contamination", 0.25), np.percentile(TRAINING, 75)),
    ],
)
def test_a_rule_turns_training_scores_into_a_threshold(rule: ThresholdRule, theta: float | None) -> None:
    assert rule.theta(TRAINING) == theta


def test_it_stays_what_it_is_whatever_comes() -> None:
    threshold = PartitionThreshold(FixedThreshold(3.0, TRAINING), 64)
    scores = np.random.default_rng(1).gamma(9.0, 9.0, 1000)

    thresholds = threshold.compare(scores)

    assert set(thresholds.tolist()) == {3.0}
    assert copy.deepcopy(threshold).compare(scores).tolist() == thresholds.tolist()


def test_a_score_at_the_threshold_is_no_alert_and_zero_is_a_threshold() -> None:
    threshold = PartitionThreshold(FixedThreshold(0.0, TRAINING), 64)

    judged = threshold.judge(np.array([0.0, 1e-9]))

    assert np.isnan(judged.tail_probability[0])
    assert judged.tail_probability[1] == pytest.approx(1.0, abs=1e-3)


def test_tail_probabilities_are_shares_of_the_training_scores_and_go_on_beyond_them() -> None:
    policy = FixedThreshold(1.0, TRAINING)
    some, far = float(TRAINING[-500]), float(TRAINING[-1] * 1.1)

    share, beyond, further = policy.tail_probability(np.array([some, far, 1.1 * far]))

    assert share == pytest.approx(0.1, abs=0.001)
    assert 0 < further < beyond < 1 / 5000
    assert np.isnan(FixedThreshold(1.0, np.empty(0)).tail_probability(np.array([2.0]))).all()


def test_a_saved_state_continues_in_mid_stride_and_one_of_another_threshold_is_refused() -> None:
    scores = np.random.default_rng(1).gamma(2.0, 1.0, 1000)
    whole, first = (PartitionThreshold(FixedThreshold(3.0, TRAINING), 64) for _ in range(2))
    first.compare(scores[:500])

    second = PartitionThreshold(FixedThreshold(3.0, TRAINING), 64)
    second.restore(state_of(first))

    whole.compare(scores[:500])
    assert state_of(second) == state_of(whole)
    assert second.policy.slots(only_changed=True) == {}
    with pytest.raises(ValueError, match=r"threshold 3.0, this one is 3.5"):
        PartitionThreshold(FixedThreshold(3.5, TRAINING), 64).restore(state_of(first))


def test_a_score_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        FixedThreshold(1.0, TRAINING).update(np.array([np.nan]))
