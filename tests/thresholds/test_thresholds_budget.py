"""Alerts per day and hour over event time, on seeded traffic."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from devtools.score_streams import state_of
from worker.records import FloatArray, TimeArray
from worker.thresholds.budget import DAY_MS, HOUR_MS, PARTS, PERIODS, AlertBudget, PartitionCount
from worker.thresholds.partition import PartitionThreshold, Strictest, ThresholdState
from worker.thresholds.quantile import SlidingQuantile

BUDGET = 50
CALIBRATION = np.random.default_rng(9).lognormal(0, 0.5, 500)
ByHour = Callable[[int], float]


def day_and_night(hour: int) -> float:
    return 200 * (1 + 0.8 * math.sin(2 * math.pi * hour / 24))


def traffic(
    rate: ByHour = day_and_night, level: ByHour = lambda _: 1, share: ByHour = lambda _: 0, days: int = 30
) -> tuple[FloatArray, TimeArray]:
    """Scores and event times: `rate` records an hour of log-normal scores, `share` of them from a flood."""
    random = np.random.default_rng(0)
    scores, times = [], []
    for hour in range(days * 24):
        count = random.poisson(rate(hour))
        flood = random.random(count) < share(hour)
        benign, planted = random.lognormal(0, 0.5, count), random.lognormal(2.5, 0.3, count)
        scores.append(np.where(flood, planted, benign) * level(hour))
        times.append(hour * HOUR_MS + np.sort(random.integers(0, HOUR_MS, count)))
    return np.concatenate(scores), np.concatenate(times)


def daily_alerts(scores: FloatArray, times: TimeArray, budget: float = BUDGET, period: int = DAY_MS) -> TimeArray:
    judge = PartitionThreshold(AlertBudget(CALIBRATION, budget, period), stride=128)
    return np.bincount(times // period, weights=scores > judge.compare(scores, times)).astype(np.int64)


def share_in_band(counts: TimeArray) -> float:
    """Days after the first week within 30% of the budget."""
    after = counts[PERIODS:]
    return float(((after >= 0.7 * BUDGET) & (after <= 1.3 * BUDGET)).mean())


def test_a_budget_is_held_by_day_and_night_on_nine_days_of_ten() -> None:
    counts = daily_alerts(*traffic())

    assert share_in_band(counts) >= 0.9
    assert counts[PERIODS:].mean() == pytest.approx(BUDGET, rel=0.05)


def test_a_budget_is_held_when_scores_follow_the_hour() -> None:
    counts = daily_alerts(*traffic(level=lambda hour: 1 + 0.3 * np.sin(2 * np.pi * hour / 24)))

    assert share_in_band(counts) >= 0.9


def test_traffic_that_doubles_costs_a_few_days_at_most() -> None:
    counts = daily_alerts(*traffic(rate=lambda hour: day_and_night(hour) * (1 if hour < 480 else 2)))

    assert share_in_band(counts) >= 0.9
    assert counts[20:].max() < 2 * BUDGET


def test_scores_that_triple_in_a_month_stay_within_twice_the_budget() -> None:
    counts = daily_alerts(*traffic(level=lambda hour: 3 ** (hour / 720)))

    assert counts[PERIODS:].max() < 2 * BUDGET
    assert counts[PERIODS:].mean() < 1.5 * BUDGET


def test_a_flood_of_a_day_is_bounded_and_forgotten_two_days_later() -> None:
    counts = daily_alerts(*traffic(share=lambda hour: 0.5 if hour // 24 == 20 else 0))

    assert counts[20] < 12 * BUDGET  # 2,400 records of the flood score above every other one
    assert share_in_band(np.delete(counts, [20, 21])) >= 0.9


def test_an_hourly_budget_is_held_on_average() -> None:
    counts = daily_alerts(*traffic(rate=lambda _: 2_000, days=4), budget=10, period=HOUR_MS)

    assert counts[PERIODS:].mean() == pytest.approx(10, rel=0.1)


def test_a_budget_below_one_a_day_is_held_over_weeks() -> None:
    counts = daily_alerts(*traffic(rate=lambda _: 50, days=150), budget=0.5)

    assert counts[75:].mean() == pytest.approx(0.5, rel=0.4)


def test_single_wrong_clocks_change_little() -> None:
    scores, times = traffic()
    wrong = times.copy()
    wrong[::100] = 4_000_000_000_000
    wrong[1::100] = -1
    wrong[2::100] = 0
    judge = PartitionThreshold(AlertBudget(CALIBRATION, BUDGET), stride=128)

    counts = np.bincount(times // DAY_MS, weights=scores > judge.compare(scores, wrong))

    assert share_in_band(counts.astype(np.int64)) >= 0.9


YEAR_2099_MS = 4_070_908_800_000
START_MS = 1_767_225_600_000 // DAY_MS * DAY_MS
RANDOM = np.random.default_rng(5)
WILD: dict[str, tuple[slice, TimeArray]] = {  # records of 30 days with 4,800 each, and their times
    "1,000 of one far year": (slice(72_000, 73_000), np.full(1_000, YEAR_2099_MS)),
    "3,500 of it": (slice(72_100, 75_600), np.full(3_500, YEAR_2099_MS)),
    "1,000 of the epoch": (slice(72_050, 73_050), np.arange(1_000)),
    "1,000 of many years": (slice(72_000, 73_000), RANDOM.integers(YEAR_2099_MS // 2, YEAR_2099_MS, 1_000)),
    "40% of a day": (slice(72_000, 76_000, 5), np.full(800, YEAR_2099_MS)),
    "two of three": (slice(72_000, 72_900, 2), np.full(450, YEAR_2099_MS)),
    "the next month": (slice(72_000, 73_500), START_MS + 60 * DAY_MS + np.arange(1_500)),
    "the first 500": (slice(0, 500), np.full(500, YEAR_2099_MS)),
    "far years and the epoch in turn": (slice(72_000, 74_000), np.where(np.arange(2_000) % 2, YEAR_2099_MS, 5)),
}


@pytest.mark.parametrize("name", WILD)
def test_wild_times_in_a_row_don_t_make_a_budget_forget_its_traffic(name: str) -> None:
    scores, days = traffic()
    times = START_MS + days
    rows, wild = WILD[name]
    times[rows] = wild
    judge = PartitionThreshold(AlertBudget(CALIBRATION, BUDGET))

    counts = np.bincount(days // DAY_MS, weights=scores > judge.compare(scores, times))

    assert counts[PERIODS:].max() <= 2 * BUDGET
    assert counts[PERIODS:].min() >= BUDGET / 3


def test_after_a_gap_of_weeks_a_budget_is_held_again() -> None:
    scores, times = traffic()
    times[72_000:] += 20 * DAY_MS
    judge = PartitionThreshold(AlertBudget(CALIBRATION, BUDGET))

    counts = np.bincount(times // DAY_MS, weights=scores > judge.compare(scores, times))

    assert np.median(counts[36:]) == pytest.approx(BUDGET, rel=0.4)
    assert counts.max() <= 4 * BUDGET


def test_traffic_so_thin_that_a_stride_takes_weeks_goes_on_as_fast_as_it_did() -> None:
    random = np.random.default_rng(2)
    scores, times = random.lognormal(0, 0.5, 4_000), START_MS + np.arange(4_000) * (DAY_MS // 10)
    budget = AlertBudget(CALIBRATION, 1)
    judge = PartitionThreshold(budget)

    alerts = scores > judge.compare(scores, times)

    assert budget._now_ms > times[-300]
    assert alerts[600:].sum() == pytest.approx(340, rel=0.5)


def test_a_stream_that_steps_back_by_months_starts_over() -> None:
    scores, times = traffic(days=10)
    budget = AlertBudget(CALIBRATION, BUDGET)
    judge = PartitionThreshold(budget, stride=128)
    judge.compare(scores, times + 100 * DAY_MS)

    judge.compare(scores, times)

    assert max(budget._parts) == times[-1] // (DAY_MS // PARTS)


def test_without_times_there_is_no_threshold() -> None:
    scores, _ = traffic(days=2)

    assert np.isnan(PartitionThreshold(AlertBudget(CALIBRATION, BUDGET)).compare(scores)).all()


def test_constant_scores_raise_no_alert() -> None:
    _, times = traffic(days=3)

    assert daily_alerts(np.zeros(len(times)), times).sum() == 0


@pytest.mark.parametrize("end", [100, 1_000, 30_001, 70_000])
def test_restored_budget_continues_as_if_never_stopped(end: int) -> None:
    scores, times = traffic(days=20)
    undisturbed = PartitionThreshold(AlertBudget(CALIBRATION, BUDGET), stride=128)
    undisturbed.compare(scores[:end], times[:end])
    restored = PartitionThreshold(AlertBudget(CALIBRATION, BUDGET), stride=128)
    restored.restore(state_of(undisturbed))

    assert state_of(restored) == state_of(undisturbed)
    rest = slice(end, end + 20_000)
    assert np.array_equal(
        restored.compare(scores[rest], times[rest]), undisturbed.compare(scores[rest], times[rest]), equal_nan=True
    )
    assert state_of(restored) == state_of(undisturbed)


def test_changed_slots_and_the_head_are_the_whole_state() -> None:
    scores, times = traffic(days=20)

    def both() -> PartitionThreshold:
        return PartitionThreshold(
            Strictest(SlidingQuantile(CALIBRATION, 0.99, 5_000), AlertBudget(CALIBRATION, BUDGET))
        )

    live, stored = both(), {}
    for part in range(0, len(scores), 3_000):
        live.compare(scores[part : part + 3_000], times[part : part + 3_000])
        stored.update(live.policy.slots(only_changed=True))
    restored = both()
    restored.restore(ThresholdState(live.head(), stored))

    assert state_of(restored) == state_of(live)


def test_of_two_policies_the_stricter_wins() -> None:
    scores, times = traffic(days=10)
    policies = SlidingQuantile(CALIBRATION, 0.99, 5_000), AlertBudget(CALIBRATION, BUDGET)
    alone = [PartitionThreshold(policy, 64).compare(scores, times) for policy in policies]
    again = SlidingQuantile(CALIBRATION, 0.99, 5_000), AlertBudget(CALIBRATION, BUDGET)

    together = PartitionThreshold(Strictest(*again), 64).compare(scores, times)

    assert np.array_equal(together, np.fmax(*alone))


@pytest.mark.parametrize("budget", [0, -1, np.nan, np.inf])
def test_a_budget_that_is_no_positive_number_is_refused(budget: float) -> None:
    with pytest.raises(ValueError, match="budget"):
        AlertBudget(CALIBRATION, budget)


SHARED = 20


class Topic:
    """A topic whose records are spread evenly over its partitions; each of them has a threshold of one budget."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        self.judges: list[PartitionThreshold] = []

    def judge(self, number: int) -> PartitionThreshold:
        while len(self.judges) <= number:
            count = PartitionCount(lambda: self.partitions)
            self.judges.append(PartitionThreshold(AlertBudget(CALIBRATION, SHARED, partitions=count), stride=64))
        return self.judges[number]

    def alerts(self, scores: FloatArray, times: TimeArray, days: range) -> TimeArray:
        """On each of these days."""
        counts = []
        for day in days:
            here = times // DAY_MS == day
            parts = (
                (scores[here][n :: self.partitions], times[here][n :: self.partitions]) for n in range(self.partitions)
            )
            counts.append(
                sum(int((part > self.judge(n).compare(part, at)).sum()) for n, (part, at) in enumerate(parts))
            )
        return np.array(counts)


@pytest.mark.parametrize(("before", "after"), [(1, 4), (1, 2), (2, 3), (1, 8), (4, 8), (3, 16), (4, 1)], ids=str)
def test_a_budget_follows_the_number_of_partitions(before: int, after: int) -> None:
    scores, times = traffic(days=60)
    topic = Topic(before)
    before_it = topic.alerts(scores, times, range(20))[PERIODS:]
    topic.partitions = after

    counts = topic.alerts(scores, times, range(20, 60))

    assert before_it.mean() == pytest.approx(SHARED, rel=0.25)
    assert counts.max() <= 2.5 * SHARED
    assert counts[20:].mean() == pytest.approx(SHARED, rel=0.3)


@pytest.mark.parametrize("after", [1, 2, 4, 9, 40])
def test_a_state_goes_on_under_another_number_of_partitions(after: int) -> None:
    """What was saved under 2 goes on as what was running under 2 does, from its next update on."""
    scores, times = traffic(days=20)
    count = {"running": 2, "restored": 2}
    running, restored = (
        PartitionThreshold(AlertBudget(CALIBRATION, SHARED, partitions=PartitionCount(lambda who=who: count[who])), 64)  # type: ignore[misc]
        for who in count
    )
    running.compare(scores[:50_048], times[:50_048])
    saved = state_of(running)
    count |= {"running": after, "restored": after}
    restored.restore(saved)
    rest = slice(50_048, 60_000)

    assert np.array_equal(restored.compare(scores[rest], times[rest]), running.compare(scores[rest], times[rest]))
    stored = state_of(restored)
    again = PartitionThreshold(AlertBudget(CALIBRATION, SHARED, partitions=PartitionCount(lambda: after)), 64)
    again.restore(stored)
    assert state_of(again) == stored


def test_a_number_of_partitions_that_is_not_known_now_stays_what_it_was() -> None:
    answers = iter([0, 3, 0, 5])
    count = PartitionCount(answers.__next__)

    assert [count.now() for _ in range(4)] == [1, 3, 3, 5]
