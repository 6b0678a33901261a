"""Severities along streams: the strongest of an hour is never less severe, and what stands far out is critical."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from worker.records import NO_TIME, BoolArray, FloatArray, TimeArray
from worker.thresholds.budget import AlertBudget
from worker.thresholds.factory import FixedThreshold
from worker.thresholds.partition import Judgement, PartitionThreshold, ThresholdPolicy, ThresholdState
from worker.thresholds.quantile import InlierQuantile, SlidingQuantile
from worker.thresholds.severity import HOUR_MS, MAX_HOURS, SEVERITIES, SeverityOrder

CRITICAL = SEVERITIES.index("critical")
START_MS = 1_700_000_000_000 // HOUR_MS * HOUR_MS
COUNT = 40_000


@dataclass(frozen=True)
class Stream:
    """Scores of one partition; calibration (N,), and columns (B,). obvious: anomalies far from every inlier."""

    calibration: FloatArray
    score: FloatArray
    time_ms: TimeArray
    obvious: BoolArray


def stream(
    score: FloatArray, calibration: FloatArray, *, obvious: BoolArray | None = None, per_hour: int = 400
) -> Stream:
    none = np.zeros(len(score), bool)
    return Stream(
        calibration, score, START_MS + np.arange(len(score)) * HOUR_MS // per_hour, none if obvious is None else obvious
    )


def stationary(draw: Callable[[np.random.Generator, int], FloatArray]) -> Callable[[np.random.Generator], Stream]:
    return lambda random: stream(draw(random, COUNT), draw(random, 500))


def with_anomalies(random: np.random.Generator, share: float = 0.008) -> Stream:
    """Inliers with a light tail, and anomalies that go on from it without a gap, up to twelve times the threshold."""
    score = random.gamma(8, 1, COUNT)
    anomaly = random.random(COUNT) < share
    score[anomaly] = 20 * random.uniform(0.8, 12, anomaly.sum())
    return stream(score, random.gamma(8, 1, 500), obvious=anomaly & (score > 80))


def drifting(random: np.random.Generator) -> Stream:
    level = np.linspace(1, 3, COUNT)
    score = random.lognormal(0, 0.4, COUNT) * level
    return stream(score, random.lognormal(0, 0.4, 500))


def flood(random: np.random.Generator) -> Stream:
    score = random.lognormal(0, 0.4, COUNT)
    score[20_000:30_000:2] *= 30
    return stream(score, random.lognormal(0, 0.4, 500))


def bursts(random: np.random.Generator) -> Stream:
    """40 records in a row, ten times: so many that the first ones are in the tail of the next."""
    score = random.lognormal(0, 0.4, COUNT)
    anomaly = np.arange(COUNT) % 4_000 < 40
    score[anomaly] *= random.uniform(15, 60, anomaly.sum())
    return stream(score, random.lognormal(0, 0.4, 500), obvious=anomaly & (score > 20))


def a_tiny_partition(random: np.random.Generator) -> Stream:
    score = random.lognormal(0, 0.4, 300)
    score[[50, 150, 250]] = 9.0, 40.0, 20.0
    return stream(score, random.lognormal(0, 0.4, 40), obvious=score > 30, per_hour=5)


def constant(random: np.random.Generator) -> Stream:
    score = np.full(COUNT, 0.25)
    score[random.random(COUNT) < 0.001] = 0.3
    score[::4_000] = np.linspace(1, 9, len(score[::4_000]))
    return stream(score, np.full(500, 0.25))


def almost_all_zero(random: np.random.Generator) -> Stream:
    score = np.where(random.random(COUNT) < 0.004, random.exponential(1, COUNT), 0.0)
    return stream(score, np.zeros(500))


def a_drop(random: np.random.Generator) -> Stream:
    """The same traffic at a fiftieth of its level: by score all before is stronger, in multiples it is not."""
    score = random.lognormal(0, 0.4, COUNT)
    score[20_050:] /= 50
    return stream(score, random.lognormal(0, 0.4, 500), per_hour=100_000)


def without_times(random: np.random.Generator) -> Stream:
    plain = with_anomalies(random)
    return Stream(plain.calibration, plain.score, np.full(COUNT, NO_TIME), plain.obvious)


def out_of_order(random: np.random.Generator) -> Stream:
    plain = with_anomalies(random)
    times = plain.time_ms + random.integers(-10 * HOUR_MS, 1, COUNT)
    times[random.random(COUNT) < 0.001] = 4_070_908_800_000  # the year 2099
    return Stream(plain.calibration, plain.score, times, plain.obvious)


STREAMS: dict[str, Callable[[np.random.Generator], Stream]] = {
    "normal": stationary(lambda random, count: random.normal(10, 1, count)),
    "log-normal": stationary(lambda random, count: random.lognormal(0, 0.5, count)),
    "Pareto": stationary(lambda random, count: random.pareto(2, count) + 1),
    "anomalies in the tail": with_anomalies,
    "drifting": drifting,
    "flood": flood,
    "bursts": bursts,
    "a tiny partition": a_tiny_partition,
    "constant": constant,
    "almost all zero": almost_all_zero,
    "a drop": a_drop,
    "without times": without_times,
    "out of order": out_of_order,
}
POLICIES: dict[str, Callable[[FloatArray], ThresholdPolicy]] = {
    "inlier": lambda calibration: InlierQuantile(calibration, 0.995),
    "plain": lambda calibration: SlidingQuantile(calibration, 0.995),
    "budget": lambda calibration: AlertBudget(calibration, 50),
    "fixed": lambda calibration: FixedThreshold(float(np.quantile(calibration, 0.99)), np.sort(calibration)),
}


def violations(stream: Stream, judged: Judgement, strength: FloatArray) -> int:
    """Hours whose strongest exceedance is less severe than another one."""
    above = np.flatnonzero(stream.score > judged.threshold)
    hour = stream.time_ms[above] // HOUR_MS
    count = 0
    for one in np.unique(hour):
        here = above[hour == one]
        count += judged.severity[here[np.argmax(strength[here])]] < judged.severity[here].max()
    return count


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("policy", POLICIES)
def test_the_strongest_of_an_hour_is_never_less_severe_than_a_weaker_one(name: str, policy: str) -> None:
    stream = STREAMS[name](np.random.default_rng(1))

    judged = PartitionThreshold(POLICIES[policy](stream.calibration)).judge(stream.score, stream.time_ms)

    with np.errstate(divide="ignore", invalid="ignore"):
        multiple = np.where(judged.threshold > 0, stream.score / judged.threshold, stream.score)
    assert violations(stream, judged, stream.score) == 0
    assert violations(stream, judged, multiple) == 0


@pytest.mark.parametrize("name", ["anomalies in the tail", "bursts", "without times", "out of order"])
@pytest.mark.parametrize("policy", ["inlier", "plain"])
def test_what_stands_far_out_is_critical_however_much_of_it_was_alerted_before(name: str, policy: str) -> None:
    stream = STREAMS[name](np.random.default_rng(2))

    judged = PartitionThreshold(POLICIES[policy](stream.calibration)).judge(stream.score, stream.time_ms)

    assert stream.obvious.any()
    above = stream.obvious & (stream.score > judged.threshold)  # anomalies can hold up a plain quantile
    assert (judged.severity[above] == CRITICAL).mean() >= (0.95 if policy == "inlier" else 0.9)


INLIERS = {"anomalies in the tail": 0.99, "bursts": 0.985, "flood": 0.87}


@pytest.mark.parametrize("name", ["normal", "log-normal", "Pareto", "drifting", *INLIERS])
def test_hardly_an_inlier_is_critical(name: str) -> None:
    stream = STREAMS[name](np.random.default_rng(3))
    inlier = stream.score <= np.quantile(stream.score, INLIERS.get(name, 1.0))

    judged = PartitionThreshold(POLICIES["inlier"](stream.calibration)).judge(stream.score, stream.time_ms)

    assert (judged.severity[inlier] == CRITICAL).sum() <= 8


def test_a_budget_that_anomalies_use_up_calls_the_strongest_critical() -> None:
    stream = with_anomalies(np.random.default_rng(4))

    judged = PartitionThreshold(AlertBudget(stream.calibration, 50)).judge(stream.score, stream.time_ms)

    above = np.flatnonzero(stream.score > judged.threshold)[20:]
    strongest = above[np.argsort(stream.score[above])[-20:]]
    assert (judged.severity[strongest] == CRITICAL).all()


def test_the_tail_is_the_same_before_and_after_anomalies_were_alerted() -> None:
    random = np.random.default_rng(5)
    clean = random.gamma(8, 1, 60_000)
    policy = InlierQuantile(clean[:500], 0.995)
    judge = PartitionThreshold(policy)
    judge.judge(clean[:20_480])
    critical = []
    for start in range(20_480, 60_000, 1_024):
        scores = clean[start : start + 1_024].copy()
        scores[::150] = 20 * random.uniform(0.9, 12, len(scores[::150]))
        judge.judge(scores)
        multiples = np.linspace(1, 5, 400)
        critical.append(multiples[np.argmax(policy.tail_probability(multiples * policy.threshold()) < 1e-5)])

    assert min(critical) > 1.2
    assert max(critical) < 3


@pytest.mark.parametrize("name", ["anomalies in the tail", "a drop", "out of order", "bursts", "constant"])
@pytest.mark.parametrize("policy", POLICIES)
def test_batches_and_restarts_change_no_severity_and_no_state(name: str, policy: str) -> None:
    stream = STREAMS[name](np.random.default_rng(6))
    whole = PartitionThreshold(POLICIES[policy](stream.calibration))
    expected = whole.judge(stream.score, stream.time_ms)
    judge, severity = PartitionThreshold(POLICIES[policy](stream.calibration)), []
    for rows in np.array_split(np.arange(COUNT), 23):
        severity.append(judge.judge(stream.score[rows], stream.time_ms[rows]).severity)
        restarted = PartitionThreshold(POLICIES[policy](stream.calibration))
        restarted.restore(ThresholdState(judge.head(), judge.policy.slots()))
        judge = restarted

    assert np.array_equal(np.concatenate(severity), expected.severity)
    assert judge.head() == whole.head()


def levels(*rows: tuple[float, float, float, int]) -> NDArray[np.int8]:
    """Severities of exceedances: score, threshold, tail probability, hour."""
    score, threshold, tail, hour = np.array(rows, np.float64).T
    return SeverityOrder().judge(score, threshold, tail, hour.astype(np.int64) * HOUR_MS)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(2, 1, 1e-4, 0), (3, 1, 1e-2, 0)], [1, 1]),  # a stronger one, and the tail has become heavier meanwhile
        ([(3, 1, 1e-4, 0), (2, 1, 1e-6, 0)], [1, 1]),  # a weaker one, lighter
        ([(3, 1, 1e-4, 0), (2, 1, 1e-6, 1)], [1, 2]),  # of another hour
        ([(3, 1, 1e-6, 0), (4, 2, 1e-2, 0)], [2, 2]),  # stronger by score alone: exactly as severe
        ([(4, 2, 1e-2, 0), (3, 1, 1e-6, 0)], [0, 0]),  # stronger in multiples alone
        ([(4, 2, 1e-2, 0), (3, 1, 1e-6, 0), (5, 1, 1e-6, 0)], [0, 0, 2]),
        ([(3, 0, 1e-4, 0), (4, 0, 1e-2, 0), (2, 0, 1e-9, 0)], [1, 1, 1]),  # no multiples of a threshold of 0
        ([(3, 1, np.nan, 0), (4, 1, 1e-6, 0), (5, 1, np.nan, 0)], [0, 2, 2]),
    ],
)
def test_the_order_of_an_hour(rows: list[tuple[float, float, float, int]], expected: list[int]) -> None:
    assert levels(*rows).tolist() == expected


def test_a_late_record_finds_its_hour_within_a_day() -> None:
    hours = [(3.0, 1.0, 1e-6, 0), *((2.0, 1.0, 1e-2, hour) for hour in range(1, MAX_HOURS))]

    assert levels(*hours, (4.0, 1.0, 1e-2, 0))[-1] == CRITICAL
    assert levels(*hours, (2.0, 1.0, 1e-2, MAX_HOURS), (4.0, 1.0, 1e-2, 0))[-1] == 0


@pytest.mark.parametrize(
    "saved", [[[0, 1.0, 1.0]], [[0, 1.0, 1.0, 7]], [["x", 1.0, 1.0, 0]], [[0, "1", 1, 0]], [5], "hours", 3]
)
def test_a_damaged_order_is_refused(saved: object) -> None:
    with pytest.raises(ValueError, match="saved severities are damaged"):
        SeverityOrder().restore(saved)  # type: ignore[arg-type]  # whatever stands in a damaged state


@pytest.mark.parametrize("saved", [[1.0], ["x"] * 19, [2.0, *[1.0] * 18], [None] * 19, "tail", 5])
def test_a_damaged_tail_is_refused(saved: object) -> None:
    policy = InlierQuantile(np.arange(1.0, 500.0), 0.99)

    with pytest.raises(ValueError, match="the saved tail is damaged"):
        policy.restore({**policy.head(), "tail": saved}, policy.slots())


def test_a_state_that_was_saved_before_there_were_tails_goes_on_with_that_of_the_calibration() -> None:
    policy = InlierQuantile(np.random.default_rng(0).lognormal(0, 1, 500), 0.99)
    judge = PartitionThreshold(policy)
    head = {key: value for key, value in policy.head().items() if key != "tail"}
    before = policy.tail_probability(np.array([50.0]))
    policy.restore(head, policy.slots())

    assert policy.tail_probability(np.array([50.0])) == before
    assert judge.judge(np.array([1e3])).severity.tolist() == [CRITICAL]
