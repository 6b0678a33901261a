"""Whether normal traffic has drifted is seen in the current model's scores alone."""

import math

import numpy as np
import pytest

from worker.trainer.drift import DriftState, assess_drift, share_drifted

RANDOM = np.random.default_rng(0)
CALIBRATION = RANDOM.lognormal(0, 0.5, 1_000)


def inliers(count: int, level: float = 1.0) -> np.ndarray:
    return RANDOM.lognormal(0, 0.5, count) * level


def shuffled(*parts: np.ndarray) -> np.ndarray:
    return RANDOM.permutation(np.concatenate(parts))


def plain_share(scores: np.ndarray, calibration: np.ndarray) -> float:
    """The definition, score by score."""
    explained = 1.0
    for q in (0.5, 0.75, 0.9):
        line = float(np.quantile(calibration, q))
        below = sum(1 for score in scores if score <= line) / len(scores)
        error = math.sqrt((1 - q) / q / len(calibration) + (1 - q) / q / len(scores))
        explained = min(explained, below / q + 2 * error)
    return 1 - explained


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.95])
def test_the_drifted_share_is_what_its_definition_says_and_never_more_than_was_added(share: float) -> None:
    added = round(3_000 * share)
    scores = shuffled(inliers(3_000 - added), inliers(added, 20.0))

    drifted = share_drifted(scores, CALIBRATION)

    assert drifted == pytest.approx(plain_share(scores, CALIBRATION), abs=1e-12)
    assert share - 0.15 <= drifted <= share + 0.02


def test_few_calibration_rows_prove_less() -> None:
    scores = shuffled(inliers(2_000), inliers(1_000, 20.0))

    assert share_drifted(scores, CALIBRATION[:40]) < share_drifted(scores, CALIBRATION)


def test_traffic_like_the_calibration_is_stable() -> None:
    assert assess_drift(inliers(5_000), CALIBRATION).state is DriftState.STABLE


def test_anomalies_in_a_stable_stream_are_no_drift() -> None:
    for share in (0.01, 0.05, 0.08):
        added = round(5_000 * share)
        assert (
            assess_drift(shuffled(inliers(5_000 - added), inliers(added, 15.0)), CALIBRATION).state is DriftState.STABLE
        )


def test_a_part_that_scores_higher_without_a_valley_has_drifted() -> None:
    assert assess_drift(shuffled(inliers(3_000), inliers(2_000, 2.5)), CALIBRATION).state is DriftState.DRIFTED


def test_a_bulk_that_rose_without_its_tail_is_no_drift() -> None:
    flat = np.full(2_500, float(np.quantile(CALIBRATION, 0.9)))

    assert assess_drift(shuffled(inliers(2_500), flat), CALIBRATION).state is not DriftState.DRIFTED


@pytest.mark.parametrize("level", [4.0, 40.0])
def test_traffic_that_is_not_known_any_more_was_replaced(level: float) -> None:
    assert assess_drift(inliers(5_000, level), CALIBRATION).state is DriftState.REPLACED


def test_scores_beyond_a_density_valley_are_a_new_population() -> None:
    assert assess_drift(shuffled(inliers(3_500), inliers(1_500, 60.0)), CALIBRATION).state is DriftState.NEW_POPULATION


def test_the_figures_are_plain_numbers_without_infinities() -> None:
    figures = assess_drift(inliers(5_000), CALIBRATION).figures()

    assert figures["state"] == "stable"
    assert "cutoff" not in figures
    assert all(math.isfinite(value) for name, value in figures.items() if name != "state")
