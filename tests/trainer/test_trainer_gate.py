"""A challenger that is worse in anything that can be measured without labels does not pass."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from devtools.refit_streams import Traffic, planted
from tests.trainer.common import broken_scale_bundle, bundle, noise_bundle
from worker.model.store.bundle import Bundle, with_report
from worker.model.store.model_store import ModelStore
from worker.pipeline import Model
from worker.thresholds.factory import ThresholdRule
from worker.thresholds.quantile import calibrated_quantile
from worker.trainer.candidate import (
    GateVerdict,
    RecentRows,
    calibration_of,
    in_units_of,
    judge,
    max_alert_rate,
    recent_rows,
    restore_tail,
    scores_of,
)
from worker.trainer.drift import assess_drift

QUANTILE = 0.99
ROWS, TRUTH = planted(Traffic(7).rows(6_000), 0.02, 1)
SPLIT_DRAW = np.random.default_rng(0).random(len(ROWS))


def recent_of(champion: Bundle) -> tuple[RecentRows, float]:
    model = Model(champion)
    drift = assess_drift(scores_of(model, ROWS), champion.calibration, QUANTILE)
    return recent_rows(model, ROWS, SPLIT_DRAW, drift), drift.threshold


def judged(champion: Bundle, challenger: Bundle) -> GateVerdict:
    recent, threshold = recent_of(champion)
    return judge(Model(champion), Model(challenger), recent, threshold=threshold, quantile=QUANTILE, seed=0)


def test_the_twin_of_the_champion_is_no_worse_and_no_better() -> None:
    verdict = judged(bundle(7), bundle(7))

    assert verdict.failures == ["it is no better in anything"]
    assert not verdict.passed


def test_a_model_of_all_traffic_passes_against_one_of_a_part() -> None:
    verdict = judged(bundle(7, partial=True), bundle(7))

    assert verdict.passed, verdict
    assert any("alerts" in gain for gain in verdict.gains)


def test_a_model_of_a_part_does_not_pass_against_one_of_all_traffic() -> None:
    verdict = judged(bundle(7), bundle(7, partial=True))

    assert any("of the inliers" in failure for failure in verdict.failures)


def test_a_model_fitted_on_noise_is_refused() -> None:
    assert judged(bundle(7), noise_bundle()).failures


@pytest.mark.parametrize("factor", [0.1, 0.5, 2.0, 10.0])
def test_a_model_with_a_broken_scale_is_refused(factor: float) -> None:
    verdict = judged(bundle(7), broken_scale_bundle(bundle(7), factor))

    assert verdict.failures != ["it is no better in anything"]
    assert verdict.failures


def test_a_model_that_no_longer_alerts_what_the_champion_alerted_most_is_refused() -> None:
    champion = bundle(7, partial=True)
    deaf = replace(bundle(7), calibration=np.sort(np.append(bundle(7).calibration, np.full(30, 1e3))))

    assert any("strongest alerts" in failure for failure in judged(champion, deaf).failures)


def test_a_model_that_no_longer_detects_planted_anomalies_is_refused() -> None:
    unflagged, threshold = recent_of(bundle(7, partial=True))
    strangers = replace(unflagged, flagged=np.zeros(len(ROWS), np.bool_), new_population=np.zeros(len(ROWS), np.bool_))

    verdict = judge(Model(bundle(7)), Model(noise_bundle()), strangers, threshold=threshold, quantile=QUANTILE, seed=0)

    assert any("planted anomalies" in failure for failure in verdict.failures)


@pytest.mark.parametrize(("rows", "calibrated"), [(800, 800), (2_000, 800), (800, 2_000), (5_000, 5_000)])
def test_a_challenger_like_the_champion_is_hardly_ever_refused_by_chance(rows: int, calibrated: int) -> None:
    rng = np.random.default_rng(0)
    limit = max_alert_rate(QUANTILE, rows=rows, calibrated=calibrated)

    rates = [
        float((rng.random(rows) > calibrated_quantile(np.sort(rng.random(calibrated)), QUANTILE)).mean())
        for _ in range(2_000)
    ]

    assert np.mean(np.array(rates) > limit) <= 0.003  # 800 on both sides: 0.0065 by the judged rows' error alone


def test_too_few_rows_are_no_basis() -> None:
    recent, threshold = recent_of(bundle(7))
    first = slice(300)
    start = RecentRows(
        recent.rows[first],
        recent.score[first],
        recent.split_draw[first],
        recent.flagged[first],
        recent.new_population[first],
    )

    verdict = judge(Model(bundle(7)), Model(bundle(7)), start, threshold=threshold, quantile=QUANTILE, seed=0)

    assert "inliers to judge by" in verdict.failures[0]


def test_the_figures_hold_both_sides() -> None:
    figures = judged(bundle(7, partial=True), bundle(7)).figures

    assert set(figures["detection"]) == {"current", "candidate"}
    assert figures["detection"]["candidate"] > figures["detection"]["current"]


def test_the_tail_that_the_champion_flagged_comes_back_into_the_calibration() -> None:
    champion, challenger = Model(bundle(7, partial=True)), Model(bundle(7))
    recent, _ = recent_of(champion.bundle)
    calibrating = (recent.split_draw >= 0.7) & (recent.split_draw < 0.85)
    inliers = int((calibrating & recent.inlier).sum())

    calibration = calibration_of(challenger, recent, QUANTILE)
    tail = restore_tail(challenger, recent, calibrating, QUANTILE, inliers)

    assert len(calibration) == inliers + len(tail)
    assert 0 < len(tail) <= round(inliers * 0.01 / 0.99)
    flagged = np.sort(scores_of(challenger, recent.pick(calibrating & recent.flagged & ~recent.new_population)))
    assert tail.tolist() == flagged[: len(tail)].tolist()


def test_a_challenger_scores_in_the_unit_of_the_champion(tmp_path: Path) -> None:
    champion, other = bundle(7, partial=True), bundle(7)

    challenger = with_report(in_units_of(champion, other, QUANTILE), verdict={})

    line = calibrated_quantile(champion.calibration, QUANTILE)
    assert calibrated_quantile(challenger.calibration, QUANTILE) == pytest.approx(line, rel=1e-4)
    factor = line / calibrated_quantile(other.calibration, QUANTILE)
    assert scores_of(Model(challenger), ROWS) == pytest.approx(scores_of(Model(other), ROWS) * factor, rel=1e-5)
    store = ModelStore(tmp_path)
    store.save(challenger)
    assert store.load(challenger.version).score == challenger.score  # its golden rows still hold


def test_the_unit_of_a_model_with_a_fixed_threshold_stays() -> None:
    fixed = replace(bundle(7), rule=ThresholdRule("fixed", 0.5))

    assert in_units_of(bundle(7, partial=True), fixed, QUANTILE) is fixed
