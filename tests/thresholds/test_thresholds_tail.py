"""Tail probabilities are held against what then happens."""

from collections.abc import Callable

import numpy as np
import pytest

from devtools.score_streams import flood, make_stream
from worker.records import FloatArray
from worker.thresholds.budget import HOUR_MS, AlertBudget
from worker.thresholds.partition import PartitionThreshold, ThresholdPolicy
from worker.thresholds.quantile import InlierQuantile, SlidingQuantile
from worker.thresholds.tail import LEVELS, TailData, fit_tail

Draw = Callable[[np.random.Generator, int], FloatArray]

STATIONARY: dict[str, Draw] = {
    "log-normal": lambda random, count: random.lognormal(0, 0.5, count),
    "wide log-normal": lambda random, count: random.lognormal(0, 1, count),
    "exponential": lambda random, count: random.exponential(1, count),
    "gamma": lambda random, count: random.gamma(8, 1, count),
    "Pareto": lambda random, count: random.pareto(2, count) + 1,
    "mean square": lambda random, count: (random.normal(0, 1, (count, 10)) ** 2).mean(1),
    "uniform": lambda random, count: random.random(count),
    "two modes": lambda random, count: np.where(
        random.random(count) < 0.2, random.lognormal(2.5, 0.3, count), random.lognormal(0, 0.4, count)
    ),
}


@pytest.mark.parametrize("name", STATIONARY)
@pytest.mark.parametrize("make", [InlierQuantile, SlidingQuantile])
def test_probabilities_are_within_a_factor_of_two_on_held_out_scores(
    name: str, make: Callable[[FloatArray, float], ThresholdPolicy]
) -> None:
    random = np.random.default_rng(0)
    policy = make(STATIONARY[name](random, 500), 0.98)
    PartitionThreshold(policy).compare(STATIONARY[name](random, 25_600))
    held_out = STATIONARY[name](random, 200_000)

    predicted = policy.tail_probability(held_out)

    assert 0.005 <= (predicted <= 0.01).mean() <= 0.02
    assert 0.0005 <= (predicted <= 0.001).mean() <= 0.002


def test_probabilities_along_a_stream_are_within_a_factor_of_two() -> None:
    random = np.random.default_rng(0)
    judge = PartitionThreshold(InlierQuantile(random.lognormal(0, 0.5, 500), 0.98))

    tails = judge.judge(random.lognormal(0, 0.5, 200_000)).tail_probability[20_000:]

    assert 0.005 <= (tails <= 0.01).mean() <= 0.02
    assert 0.0005 <= (tails <= 0.001).mean() <= 0.002


def test_probabilities_follow_the_location_of_a_season() -> None:
    stream = make_stream(
        "season", 0, lambda at: 1 + 0.5 * np.sin(2 * np.pi * at / 40_000), lambda at: np.zeros(len(at))
    )

    tails = PartitionThreshold(InlierQuantile(stream.calibration, 0.98)).judge(stream.score).tail_probability

    assert 0.005 <= (tails <= 0.01).mean() <= 0.02
    assert 0.0005 <= (tails <= 0.001).mean() <= 0.002


def test_a_flood_does_not_make_its_scores_inliers() -> None:
    stream = flood(0)
    judge = PartitionThreshold(InlierQuantile(stream.calibration, 0.99))

    tails = judge.judge(stream.score[:60_000]).tail_probability[40_000:]

    assert np.nanmedian(tails[stream.anomaly[40_000:60_000]]) < 0.001


def test_only_scores_above_the_threshold_have_a_probability_and_it_is_at_most_that_of_the_threshold() -> None:
    random = np.random.default_rng(0)
    scores = random.lognormal(0, 0.5, 30_000)
    threshold, tails, _ = PartitionThreshold(InlierQuantile(scores[:500], 0.99)).judge(scores)

    assert np.array_equal(np.isfinite(tails), scores > threshold)
    assert np.nanmax(tails) < 0.0102


def test_judging_in_other_batches_gives_the_same() -> None:
    stream = flood(0)
    scores = stream.score[25_000:40_000]
    whole = PartitionThreshold(InlierQuantile(stream.calibration, 0.99)).judge(scores)
    judge = PartitionThreshold(InlierQuantile(stream.calibration, 0.99))

    parts = [judge.judge(part) for part in np.array_split(scores, 37)]

    assert np.array_equal(np.concatenate([part.threshold for part in parts]), whole.threshold)
    assert np.array_equal(np.concatenate([part.tail_probability for part in parts]), whole.tail_probability, True)


def test_comparing_gives_the_thresholds_of_judging() -> None:
    stream = flood(0)
    compared, judged = (PartitionThreshold(InlierQuantile(stream.calibration, 0.99)) for _ in range(2))

    assert np.array_equal(compared.compare(stream.score), judged.judge(stream.score).threshold)


def test_a_higher_score_is_never_more_probable() -> None:
    scores = np.sort(np.random.default_rng(0).lognormal(0, 0.5, 5_000))
    tail = fit_tail(TailData(scores, 5_000, float(scores[-50]), 0.01))
    assert tail is not None

    probability = tail.probability(np.linspace(0, 100, 20_000))

    assert (np.diff(probability) <= 0).all()
    assert LEVELS[-1] <= probability[-1] < 1e-6


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_constant_scores_leave_the_probability_to_their_number(value: float) -> None:
    policy = InlierQuantile(np.full(10, value), 0.99)

    assert policy.tail_probability(np.array([value + 1]))[0] == pytest.approx(1 / 20_001)


@pytest.mark.parametrize("count", range(1, 12))
def test_a_tail_of_very_few_scores_is_still_a_probability(count: int) -> None:
    for policy in (InlierQuantile(np.arange(count, dtype=np.float64), 0.9), SlidingQuantile(np.arange(1.0, count + 1))):
        probability = policy.tail_probability(np.array([-1.0, 0.5, 100.0, 1e6]))

        assert ((probability > 0) & (probability <= 1)).all()
        assert (np.diff(probability) <= 0).all()


def test_a_budget_knows_the_rank_of_a_score_in_its_memory() -> None:
    scores = np.arange(1_000.0)
    budget = AlertBudget(scores, 50)
    budget.update(scores, np.full(1_000, HOUR_MS))

    assert budget.tail_probability(np.array([990.0, 5_000.0])) == pytest.approx([11 / 1_001, 1 / 1_001])
