"""The default policy on seeded streams, at the extremes, and across restarts."""

from collections.abc import Callable

import numpy as np
import pytest

from devtools.score_streams import (
    ACCEPTANCE,
    BEYOND,
    ScoreStream,
    flood,
    level_shift,
    make_stream,
    state_of,
    stationary,
)
from worker.records import FloatArray
from worker.thresholds.density import count_bins
from worker.thresholds.partition import PartitionThreshold, ThresholdState
from worker.thresholds.quantile import InlierQuantile, calibrated_quantile

QUANTILE = 0.99


def _judge(calibration: FloatArray, quantile: float = QUANTILE, window: int = 20_000) -> PartitionThreshold:
    return PartitionThreshold(InlierQuantile(calibration, quantile, window))


def _recall_and_false_alerts(stream: ScoreStream) -> tuple[float, float]:
    alert = stream.score > _judge(stream.calibration).compare(stream.score)
    return alert[stream.judged & stream.anomaly].mean(), alert[stream.judged & ~stream.anomaly].mean()


@pytest.mark.parametrize("make", ACCEPTANCE)
@pytest.mark.parametrize("seed", [0, 1])
def test_default_policy_holds_on_every_stream(make: Callable[[int], ScoreStream], seed: int) -> None:
    recall, false_alerts = _recall_and_false_alerts(make(seed))

    assert recall >= 0.9
    assert false_alerts <= 0.02


@pytest.mark.parametrize("make", BEYOND)
def test_default_policy_holds_on_harder_streams(make: Callable[[int], ScoreStream]) -> None:
    recall, false_alerts = _recall_and_false_alerts(make(0))

    assert recall >= 0.85
    assert false_alerts <= 0.02


def test_a_shift_is_announced_and_a_flood_is_not() -> None:
    shifted, flooded = level_shift(0, 10.0), flood(0, 0.9)
    after_shift, after_flood = (InlierQuantile(stream.calibration, QUANTILE) for stream in (shifted, flooded))

    PartitionThreshold(after_shift).compare(shifted.score)
    PartitionThreshold(after_flood).compare(flooded.score)

    assert (after_shift.shifts, after_flood.shifts) == (1, 0)


def test_the_cutoff_parts_a_flood_from_the_inliers() -> None:
    stream = flood(0)
    policy = InlierQuantile(stream.calibration, QUANTILE)

    PartitionThreshold(policy).compare(stream.score[:58_000])

    assert (policy.window.ring >= policy.cutoff).mean() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("quantile", [QUANTILE, 0.999])
@pytest.mark.parametrize("end", [10, 31_111, 57_000])
def test_restored_threshold_continues_as_if_never_stopped(end: int, quantile: float) -> None:
    stream = flood(0)
    undisturbed = _judge(stream.calibration, quantile)
    undisturbed.compare(stream.score[:end])
    restored = _judge(stream.calibration, quantile)
    restored.restore(state_of(undisturbed))
    rest = stream.score[end : end + 20_000]

    assert state_of(restored) == state_of(undisturbed)
    assert np.array_equal(restored.compare(rest), undisturbed.compare(rest))
    assert state_of(restored) == state_of(undisturbed)


def test_changed_slots_and_the_head_are_the_whole_state() -> None:
    stream = flood(0)
    live, stored = _judge(stream.calibration), {}
    for part in np.array_split(stream.score[:45_000], 23):
        live.compare(part)
        stored.update(live.policy.slots(only_changed=True))
    restored = _judge(stream.calibration)
    restored.restore(ThresholdState(live.head(), stored))

    assert state_of(restored) == state_of(live)


def test_batch_borders_never_matter() -> None:
    stream = flood(0)
    scores = stream.score[20_000:50_000]
    whole, parts = _judge(stream.calibration), _judge(stream.calibration)
    expected = whole.compare(scores)

    thresholds = np.concatenate([parts.compare(part) for part in np.array_split(scores, 77)])

    assert np.array_equal(thresholds, expected)


def test_counts_per_bin_equal_a_histogram_of_the_window() -> None:
    stream = flood(0)
    policy = InlierQuantile(stream.calibration, QUANTILE, 5_000)
    for part in np.array_split(stream.score[:33_000], 111):
        policy.update(part)

    assert np.array_equal(policy._counts, count_bins(policy.window.ring))


def test_one_population_in_a_full_window_gives_the_median_of_its_blocks() -> None:
    scores = np.random.default_rng(0).lognormal(0, 0.5, 20_000)
    policy = InlierQuantile(scores[:500], QUANTILE)
    policy.update(scores)

    error = np.sqrt(0.25 * 0.75 / 1_000)
    blocks = scores.reshape(20, 1_000)
    ranks = [QUANTILE, 0.25, 0.25 - error, 0.25 + error]
    top, location, low, high = np.quantile(blocks, ranks, axis=1, method="higher")
    now = np.median(location[-6:])
    move = np.log(now / location)
    chance = 2 * np.median((high - low) / 2) / now
    kept = 1 - np.minimum(1, chance / np.abs(move)) ** 2
    slope = np.clip(np.polyfit(np.log(location), np.log(top), 1)[0], 0, 1)

    assert policy.cutoff == np.inf
    assert policy.threshold() == pytest.approx(np.median(top * np.exp(move * kept * slope)), rel=1e-9)


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-30, 1e30])
def test_constant_scores_raise_no_alert_and_any_greater_score_does(value: float) -> None:
    scores = np.full(30_000, value)
    judge = _judge(scores[:10])

    thresholds = judge.compare(scores)

    assert (thresholds == value).all()
    assert np.nextafter(value, np.inf) > judge.compare(np.array([value]))[0]


def test_mostly_zero_scores_keep_a_threshold_near_their_quantile() -> None:
    random = np.random.default_rng(0)
    scores = np.where(random.random(60_000) < 0.9, 0.0, random.lognormal(0, 0.5, 60_000))

    alert = scores > _judge(scores[:500]).compare(scores)

    assert 0.005 < alert.mean() < 0.02


def test_ties_never_cost_more_false_alerts_than_the_quantile_allows() -> None:
    scores = np.round(np.random.default_rng(0).lognormal(0, 0.5, 60_000), 1)

    alert = scores > _judge(scores[:500]).compare(scores)

    assert 0.002 < alert.mean() < 0.012


@pytest.mark.parametrize("rows", [1, 3, 10])
def test_few_calibration_rows_are_outgrown_within_a_window(rows: int) -> None:
    stream = stationary(0)

    alert = stream.score > _judge(stream.calibration[:rows]).compare(stream.score)

    assert alert[20_000:][stream.anomaly[20_000:]].mean() >= 0.9
    assert alert[20_000:][~stream.anomaly[20_000:]].mean() <= 0.02


@pytest.mark.parametrize("window", [1, 7, 300, 2_500])
def test_small_windows_work(window: int) -> None:
    scores = np.random.default_rng(0).lognormal(0, 0.5, 3_000)
    judge = PartitionThreshold(InlierQuantile(scores[:200], QUANTILE, window), stride=min(window, 256))

    assert np.isfinite(judge.compare(scores)).all()


def test_two_modes_of_the_calibration_are_both_inliers() -> None:
    random = np.random.default_rng(0)
    scores = np.where(random.random(60_000) < 0.2, random.lognormal(3.0, 0.3, 60_000), random.lognormal(0, 0.3, 60_000))

    alert = scores > _judge(scores[:500]).compare(scores)

    assert alert.mean() <= 0.02


def test_a_rare_mode_of_the_calibration_holds_inliers_in_the_same_measure_only() -> None:
    random = np.random.default_rng(0)
    rare = random.random(60_000) < np.where(np.arange(60_000) < 40_000, 0.05, 0.3)
    scores = np.where(rare, random.lognormal(3.0, 0.2, 60_000), random.lognormal(0, 0.3, 60_000))
    policy = InlierQuantile(scores[:2_000], 0.995)

    alert = scores > PartitionThreshold(policy).compare(scores)

    assert alert[:40_000].mean() <= 0.01
    assert policy.cutoff < np.exp(3.0)


def test_quantiles_that_do_not_follow_the_location_stay() -> None:
    random = np.random.default_rng(0)
    low = random.lognormal(0, 0.2, 100_000) * (1 + 0.5 * np.sin(np.arange(100_000) / 2_000))
    scores = np.where(random.random(100_000) < 0.1, random.lognormal(3.0, 0.3, 100_000), low)

    alert = scores > _judge(scores[:2_000]).compare(scores)

    assert alert.mean() <= 0.012


def test_a_scale_that_is_a_million_times_larger_changes_nothing() -> None:
    def level(at: np.ndarray) -> FloatArray:
        return np.full(len(at), 2.0**20)

    stream = make_stream("large", 0, level=level, calibration_level=2.0**20)
    plain = make_stream("plain", 0)

    large = _judge(stream.calibration).compare(stream.score[:40_000])
    small = _judge(plain.calibration).compare(plain.score[:40_000])

    assert np.array_equal(large, small * 2.0**20)


def test_the_calibrated_quantile_is_a_little_below_the_quantile() -> None:
    scores = np.arange(1_000.0)

    assert 985 < calibrated_quantile(scores, QUANTILE) < 990
    assert calibrated_quantile(scores[:1], QUANTILE) == 0


@pytest.mark.parametrize("calibration", [[], [np.nan], [1.0, np.inf]])
def test_unusable_calibration_scores_are_refused(calibration: list[float]) -> None:
    with pytest.raises(ValueError, match=r"calibration|finite"):
        InlierQuantile(np.array(calibration), QUANTILE)
