"""A worse model is sent back within its canary; a good one stays, whatever the traffic does meanwhile."""

from collections.abc import Callable

import pytest

from devtools import traffic
from tests.rollout.candidates import (
    RECORDS,
    broken_scale,
    candidate,
    current,
    fit,
    noise,
    repacked,
    shifted,
    verdict_of,
    with_anomalies,
)
from worker.model.store.bundle import Bundle

SEEDS = (0, 1)
BAD: dict[str, Callable[[int], Bundle]] = {
    "fitted on noise": lambda seed: fit(noise(1_500, 300 + seed), seed),
    "scales ten times too large": lambda seed: broken_scale(candidate(seed), 10),
    "scales ten times too small": lambda seed: broken_scale(candidate(seed), 0.1),
    "calibration five times too high": lambda seed: repacked(
        candidate(seed), calibration=candidate(seed).calibration * 5
    ),
    "calibration five times too low": lambda seed: repacked(
        candidate(seed), calibration=candidate(seed).calibration / 5
    ),
}


def before(seed: int) -> list[dict[str, object]]:
    return traffic.rows(3_000, 400 + seed)


def during(seed: int) -> list[dict[str, object]]:
    return traffic.rows(RECORDS + 2_000, 500 + seed)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", BAD)
def test_a_bad_model_is_sent_back_within_its_canary(kind: str, seed: int) -> None:
    verdict = verdict_of(current(seed), BAD[kind](seed), before(seed), during(seed))

    assert verdict is not None
    assert not verdict.passed
    assert verdict.figures["records"] <= RECORDS


@pytest.mark.parametrize("seed", SEEDS)
def test_a_model_that_calls_the_strongest_anomalies_inliers_is_sent_back(seed: int) -> None:
    poisoned = fit(with_anomalies(traffic.rows(1_500, 200 + seed), 0.3, seed), seed)

    verdict = verdict_of(current(seed), poisoned, before(seed), with_anomalies(during(seed), 0.02, seed))

    assert verdict is not None
    assert "strongest" in verdict.why


@pytest.mark.parametrize("seed", SEEDS)
def test_a_good_model_stays(seed: int) -> None:
    verdict = verdict_of(current(seed), candidate(seed), before(seed), with_anomalies(during(seed), 0.005, seed))

    assert verdict is not None
    assert verdict.passed, verdict.why
    assert verdict.figures["records"] == RECORDS


@pytest.mark.parametrize("seed", SEEDS)
def test_a_good_model_stays_when_a_flood_of_anomalies_comes_during_its_canary(seed: int) -> None:
    stream = during(seed)
    flooded = stream[:2_000] + with_anomalies(stream[2_000:], 0.3, seed)

    verdict = verdict_of(current(seed), candidate(seed), before(seed), flooded)

    assert verdict is not None
    assert verdict.passed, verdict.why


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("calm", [0, 3_000])
def test_a_good_model_stays_when_the_traffic_shifts_during_its_canary(calm: int, seed: int) -> None:
    stream = during(seed)

    verdict = verdict_of(current(seed), candidate(seed), before(seed), stream[:calm] + shifted(stream[calm:]))

    assert verdict is not None
    assert verdict.passed, verdict.why


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("late", [300, 4_000])
def test_a_refit_after_a_shift_stays_whether_or_not_the_old_threshold_has_followed(late: int, seed: int) -> None:
    """Late enough, the old model's thresholds have risen with the shift; before, it alerts on everything."""
    refitted = fit(shifted(traffic.rows(1_500, 200 + seed)), 1 + seed)
    earlier = before(seed) + shifted(traffic.rows(late, 600 + seed))

    verdict = verdict_of(current(seed), refitted, earlier, shifted(during(seed)))

    assert verdict is not None
    assert verdict.passed, verdict.why


def test_the_verdict_is_the_same_whatever_the_batching() -> None:
    verdicts = [
        verdict_of(current(0), version, before(0), with_anomalies(during(0), 0.01, 0), batch=batch)
        for version in (candidate(0), broken_scale(candidate(0), 0.1))
        for batch in (130, 1_000, 10_000)
    ]

    assert verdicts[0] == verdicts[1] == verdicts[2]
    assert verdicts[3] == verdicts[4] == verdicts[5]
    assert verdicts[0] != verdicts[3]


def test_a_fault_has_to_be_seen_at_two_checks_in_a_row() -> None:
    verdict = verdict_of(current(0), broken_scale(candidate(0), 0.1), before(0), during(0))

    assert verdict is not None
    assert verdict.figures["records"] == 2 * RECORDS // 10
