"""The plain sliding quantile against numpy over a deque."""

from collections import deque

import numpy as np
import pytest

from devtools.score_streams import state_of
from worker.records import FloatArray
from worker.thresholds.partition import PartitionThreshold, ThresholdState
from worker.thresholds.quantile import SlidingQuantile
from worker.thresholds.window import ScoreWindow, spread_seed

WINDOW, STRIDE, QUANTILE = 2_500, 64, 0.99


def _scores(count: int, seed: int = 0) -> FloatArray:
    return np.round(np.random.default_rng(seed).lognormal(0, 0.5, count), 2).astype(np.float32).astype(np.float64)


def _judge(
    quantile: float = QUANTILE, window: int = WINDOW, calibration: FloatArray | None = None
) -> PartitionThreshold:
    return PartitionThreshold(
        SlidingQuantile(_scores(300, 9) if calibration is None else calibration, quantile, window), STRIDE
    )


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.99, 0.9999])
@pytest.mark.parametrize("window", [64, 1_000, 2_500])
def test_threshold_is_the_quantile_of_a_deque_of_the_last_scores(quantile: float, window: int) -> None:
    calibration, scores = _scores(300, 9), _scores(6_000)
    reference = deque(spread_seed(calibration, window).tolist(), maxlen=window)
    expected = np.empty(len(scores))
    for start in range(0, len(scores), STRIDE):
        expected[start : start + STRIDE] = np.quantile(np.array(reference), quantile, method="higher")
        reference.extend(scores[start : start + STRIDE].tolist())

    thresholds = _judge(quantile, window, calibration).compare(scores)

    assert np.array_equal(thresholds, expected)


def test_batch_borders_never_matter() -> None:
    scores = _scores(5_000)
    whole, parts = _judge(), _judge()
    expected = whole.compare(scores)
    borders = np.sort(np.random.default_rng(1).choice(5_000, 40, replace=False))

    thresholds = np.concatenate([parts.compare(part) for part in np.split(scores, borders)])

    assert np.array_equal(thresholds, expected)
    assert state_of(parts) == state_of(whole)


def test_restored_threshold_continues_as_if_never_stopped() -> None:
    scores = _scores(6_000)
    undisturbed = _judge()
    undisturbed.compare(scores[:3_333])
    restored = _judge()
    restored.restore(state_of(undisturbed))

    assert state_of(restored) == state_of(undisturbed)
    assert np.array_equal(restored.compare(scores[3_333:]), undisturbed.compare(scores[3_333:]))


def test_commits_that_write_only_changed_slots_restore_the_whole_state() -> None:
    scores = _scores(9_000)
    live, stored = _judge(), {}
    writes = []
    for part in np.array_split(scores, 30):
        live.compare(part)
        changed = live.policy.slots(only_changed=True)
        stored.update(changed)
        writes.append(len(changed))
    restored = _judge()
    restored.restore(ThresholdState(live.head(), stored))

    assert writes[0] == 3
    assert max(writes[1:]) <= 2
    assert state_of(restored) == state_of(live)


def test_scores_that_fit_float32_are_saved_in_four_bytes() -> None:
    state = state_of(_judge())

    assert sum(len(data) for data in state.slots.values()) == 4 * WINDOW + 3


def test_every_run_of_the_seed_resembles_the_whole() -> None:
    seed = spread_seed(np.linspace(0, 1, 1_000), 20_000)

    shares = [(seed[start : start + 1_000] > 0.9).mean() for start in range(0, 20_000, 500)]

    assert 0.097 < min(shares) <= max(shares) < 0.103


def test_window_without_calibration_has_no_threshold_until_it_holds_enough() -> None:
    judge = PartitionThreshold(SlidingQuantile(np.empty(0), 0.99, 1_000), 50)

    thresholds = judge.compare(_scores(300))

    assert np.isnan(thresholds[:100]).all()
    assert np.isfinite(thresholds[100:]).all()


def test_window_without_calibration_equals_a_growing_deque() -> None:
    window = ScoreWindow(np.empty(0), 100)
    scores = _scores(250)
    for part in np.array_split(scores, 9):
        window.push(part)

    assert np.array_equal(np.sort(window.ring), np.sort(scores[-100:]))


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-30])
def test_constant_scores_equal_their_threshold_and_raise_no_alert(value: float) -> None:
    scores = np.full(3_000, value)

    thresholds = _judge(calibration=scores[:10]).compare(scores)

    assert (thresholds == value).all()
    assert not (scores > thresholds).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_score_that_is_not_finite_is_refused_and_changes_nothing(bad: float) -> None:
    judge = _judge()
    judge.compare(_scores(100))
    before = state_of(judge)

    with pytest.raises(ValueError, match="not finite"):
        judge.compare(np.array([1.0, bad]))
    assert state_of(judge) == before


@pytest.mark.parametrize("change", ["stride", "window", "bytes", "head"])
def test_a_state_that_does_not_fit_is_refused(change: str) -> None:
    head, slots = state_of(_judge())
    target = _judge(window=3_000 if change == "window" else WINDOW)
    if change == "stride":
        target = PartitionThreshold(target.policy, STRIDE + 1)
    if change == "bytes":
        slots = {**slots, 0: b"\x09" + slots[0][1:]}
    if change == "head":
        head = b"{"

    with pytest.raises(ValueError, match=r"saved|width|unexpected"):
        target.restore(ThresholdState(head, slots))
