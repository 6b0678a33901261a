"""Whether ordinary traffic has moved is told by the champion's scores alone."""

import math

import numpy as np
import pytest

from worker.trainer.drift import Condition, unexplained, weigh

RANDOM = np.random.default_rng(0)
CALIBRATION = RANDOM.lognormal(0, 0.5, 1_000)


def ordinary(count: int, level: float = 1.0) -> np.ndarray:
    return RANDOM.lognormal(0, 0.5, count) * level


def shuffled(*parts: np.ndarray) -> np.ndarray:
    return RANDOM.permutation(np.concatenate(parts))


def plain_unexplained(scores: np.ndarray, calibration: np.ndarray) -> float:
    """The definition, score by score."""
    explained = 1.0
    for q in (0.5, 0.75, 0.9):
        line = float(np.quantile(calibration, q))
        below = sum(1 for score in scores if score <= line) / len(scores)
        error = math.sqrt((1 - q) / q / len(calibration) + (1 - q) / q / len(scores))
        explained = min(explained, below / q + 2 * error)
    return 1 - explained


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.95])
def test_the_unexplained_share_is_what_its_definition_says_and_never_more_than_was_added(share: float) -> None:
    added = round(3_000 * share)
    scores = shuffled(ordinary(3_000 - added), ordinary(added, 20.0))

    found = unexplained(scores, CALIBRATION)

    assert found == pytest.approx(plain_unexplained(scores, CALIBRATION), abs=1e-12)
    assert share - 0.15 <= found <= share + 0.02


def test_few_calibration_rows_prove_less() -> None:
    scores = shuffled(ordinary(2_000), ordinary(1_000, 20.0))

    assert unexplained(scores, CALIBRATION[:40]) < unexplained(scores, CALIBRATION)


def test_traffic_like_the_calibration_is_settled() -> None:
    assert weigh(ordinary(5_000), CALIBRATION).condition is Condition.SETTLED


def test_anomalies_in_a_settled_stream_are_no_need() -> None:
    for share in (0.01, 0.05, 0.08):
        odd = round(5_000 * share)
        assert weigh(shuffled(ordinary(5_000 - odd), ordinary(odd, 15.0)), CALIBRATION).condition is Condition.SETTLED


def test_a_part_that_scores_higher_without_standing_apart_has_moved() -> None:
    assert weigh(shuffled(ordinary(3_000), ordinary(2_000, 2.5)), CALIBRATION).condition is Condition.MOVED


def test_a_body_that_moved_without_its_tail_is_no_need() -> None:
    flat = np.full(2_500, float(np.quantile(CALIBRATION, 0.9)))

    assert weigh(shuffled(ordinary(2_500), flat), CALIBRATION).condition is not Condition.MOVED


@pytest.mark.parametrize("level", [4.0, 40.0])
def test_traffic_that_was_replaced_is_gone(level: float) -> None:
    assert weigh(ordinary(5_000, level), CALIBRATION).condition is Condition.GONE


def test_a_population_of_its_own_stands_apart() -> None:
    assert weigh(shuffled(ordinary(3_500), ordinary(1_500, 60.0)), CALIBRATION).condition is Condition.APART


def test_the_figures_are_plain_numbers_without_infinities() -> None:
    figures = weigh(ordinary(5_000), CALIBRATION).figures()

    assert figures["condition"] == "settled"
    assert "cut" not in figures
    assert all(math.isfinite(value) for name, value in figures.items() if name != "condition")
