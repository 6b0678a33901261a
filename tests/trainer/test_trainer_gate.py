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
from worker.thresholds.inlier import calibrated_quantile
from worker.trainer.candidate import Window, calibration_of, in_units_of, look_at, scores_of, tail_back
from worker.trainer.drift import weigh
from worker.trainer.gate import Judged, judge

QUANTILE = 0.99
ROWS, TRUTH = planted(Traffic(7).rows(6_000), 0.02, 1)
FOLD = np.random.default_rng(0).random(len(ROWS))


def window(champion: Bundle) -> tuple[Window, float]:
    model = Model(champion)
    evidence = weigh(scores_of(model, ROWS), champion.calibration, QUANTILE)
    return look_at(model, ROWS, FOLD, evidence), evidence.threshold


def judged(champion: Bundle, challenger: Bundle) -> Judged:
    seen, threshold = window(champion)
    return judge(Model(champion), Model(challenger), seen, threshold=threshold, quantile=QUANTILE, seed=0)


def test_the_twin_of_the_champion_is_no_worse_and_no_better() -> None:
    found = judged(bundle(7), bundle(7))

    assert found.failures == ["it is no better in anything"]
    assert not found.passed


def test_a_model_of_all_traffic_passes_against_one_of_a_part() -> None:
    found = judged(bundle(7, few=True), bundle(7))

    assert found.passed, found
    assert any("alerts" in gain for gain in found.gains)


def test_a_model_of_a_part_does_not_pass_against_one_of_all_traffic() -> None:
    found = judged(bundle(7), bundle(7, few=True))

    assert any("of ordinary records" in failure for failure in found.failures)


def test_a_model_fitted_on_noise_is_refused() -> None:
    assert judged(bundle(7), noise_bundle()).failures


@pytest.mark.parametrize("factor", [0.1, 0.5, 2.0, 10.0])
def test_a_model_with_a_broken_scale_is_refused(factor: float) -> None:
    found = judged(bundle(7), broken_scale_bundle(bundle(7), factor))

    assert found.failures != ["it is no better in anything"]
    assert found.failures


def test_a_model_that_no_longer_alerts_what_the_champion_alerted_most_is_refused() -> None:
    champion = bundle(7, few=True)
    deaf = replace(bundle(7), calibration=np.sort(np.append(bundle(7).calibration, np.full(30, 1e3))))

    assert any("strongest alerts" in failure for failure in judged(champion, deaf).failures)


def test_a_model_that_no_longer_finds_planted_anomalies_is_refused() -> None:
    blind, threshold = window(bundle(7, few=True))
    strangers = replace(blind, flagged=np.zeros(len(ROWS), np.bool_), apart=np.zeros(len(ROWS), np.bool_))

    found = judge(Model(bundle(7)), Model(noise_bundle()), strangers, threshold=threshold, quantile=QUANTILE, seed=0)

    assert any("planted anomalies" in failure for failure in found.failures)


def test_too_few_rows_are_no_basis() -> None:
    seen, threshold = window(bundle(7))
    few = Window(seen.rows[:300], seen.score[:300], seen.fold[:300], seen.flagged[:300], seen.apart[:300])

    found = judge(Model(bundle(7)), Model(bundle(7)), few, threshold=threshold, quantile=QUANTILE, seed=0)

    assert "ordinary rows to judge by" in found.failures[0]


def test_the_figures_tell_both_sides() -> None:
    figures = judged(bundle(7, few=True), bundle(7)).figures

    assert set(figures["detection"]) == {"champion", "challenger"}
    assert figures["detection"]["challenger"] > figures["detection"]["champion"]


def test_the_tail_that_the_champion_flagged_comes_back_into_the_calibration() -> None:
    champion, challenger = Model(bundle(7, few=True)), Model(bundle(7))
    seen, _ = window(champion.bundle)
    held = (seen.fold >= 0.7) & (seen.fold < 0.85)
    ordinary = int((held & seen.ordinary).sum())

    calibration = calibration_of(challenger, seen, QUANTILE)
    tail = tail_back(challenger, seen, held, QUANTILE, ordinary)

    assert len(calibration) == ordinary + len(tail)
    assert 0 < len(tail) <= round(ordinary * 0.01 / 0.99)
    flagged = np.sort(scores_of(challenger, seen.pick(held & seen.flagged & ~seen.apart)))
    assert tail.tolist() == flagged[: len(tail)].tolist()


def test_a_challenger_scores_in_the_unit_of_the_champion(tmp_path: Path) -> None:
    champion, other = bundle(7, few=True), bundle(7)

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

    assert in_units_of(bundle(7, few=True), fixed, QUANTILE) is fixed
