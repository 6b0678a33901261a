"""The trainer refits where normal traffic has drifted, after it was patient enough, and nowhere else."""

import numpy as np
import pytest

from devtools.refit_streams import Traffic, planted
from tests.trainer.common import CREATED, OPTIONS, bundle, observe, trainer
from worker.formats.base import Row
from worker.pipeline import Model
from worker.processes.wiring import make_trainer
from worker.settings import Settings, TrainSettings
from worker.trainer.drift import DriftState
from worker.trainer.trainer import Check, Streak, Trainer

EACH = 2_500


def checks_of(watching: Trainer, parts: list[list[Row]], *, asked: bool = False) -> list[Check]:
    checks = []
    for rows in parts:
        observe(watching, rows)
        checks.append(watching.check(CREATED, asked=asked))
    return checks


def decisions(checks: list[Check]) -> list[str]:
    return [check.verdict.decision.value for check in checks]


def normal(traffic: Traffic, count: int = EACH) -> list[Row]:
    return planted(traffic.rows(count), 0.02, 5)[0]


def mixed(traffic: Traffic, known: int, new: int) -> list[Row]:
    rows = traffic.rows(known) + traffic.rows(new, shifted=True)
    return [rows[place] for place in np.random.default_rng(0).permutation(len(rows)).tolist()]


def test_stable_traffic_needs_no_refit() -> None:
    traffic = Traffic(0)

    checks = checks_of(trainer(bundle()), [normal(traffic) for _ in range(4)])

    assert decisions(checks) == ["not needed"] * 4
    assert checks[0].verdict.figures["drift"]["state"] == "stable"


def test_too_few_records_are_waited_for() -> None:
    assert decisions(checks_of(trainer(bundle()), [Traffic(0).rows(100)])) == ["waiting"]


def test_a_model_of_a_part_of_the_traffic_is_replaced_after_as_many_checks_as_it_takes() -> None:
    watching, traffic = trainer(bundle(partial=True), drifted=3), Traffic(0)

    checks = checks_of(watching, [normal(traffic) for _ in range(3)])

    assert decisions(checks) == ["not needed", "not needed", "promoted"]
    assert checks[2].candidate is not None
    assert checks[2].candidate.bundle.report["verdict"]["decision"] == "promoted"
    assert checks[2].verdict.candidate == checks[2].candidate.bundle.version


def test_traffic_is_stable_for_what_was_promoted() -> None:
    watching, traffic = trainer(bundle(partial=True)), Traffic(0)
    last = checks_of(watching, [normal(traffic) for _ in range(2)])[-1]
    assert last.candidate is not None

    watching.use(last.candidate)

    assert decisions(checks_of(watching, [normal(traffic) for _ in range(2)])) == ["not needed"] * 2


def test_the_same_traffic_leads_to_the_same_candidate() -> None:
    versions = set()
    for _ in range(2):
        traffic = Traffic(0)
        versions.add(
            checks_of(trainer(bundle(partial=True)), [normal(traffic) for _ in range(2)])[-1].verdict.candidate
        )

    assert len(versions) == 1


def test_a_drift_that_pauses_is_waited_for_anew() -> None:
    watching, traffic = trainer(bundle(partial=True), drifted=3), Traffic(0)
    known = [1.0] * 4 + [0.0] * 4
    calm = traffic.rows(EACH, weights=[weight / 4 for weight in known])

    checks = checks_of(watching, [normal(traffic), normal(traffic), calm, normal(traffic), normal(traffic)])

    assert decisions(checks) == ["not needed"] * 5


def test_replaced_traffic_is_announced_with_a_candidate_and_becomes_normal_in_time() -> None:
    watching, traffic = trainer(bundle(), replaced=3), Traffic(0)
    shifted = [traffic.rows(2 * EACH, shifted=True) for _ in range(3)]

    checks = checks_of(watching, [normal(traffic), *shifted])

    assert decisions(checks) == ["not needed", "held", "not needed", "promoted"]
    assert checks[1].verdict.candidate is not None
    assert checks[1].verdict.figures["drifted_fields"].keys() >= {"amount", "country"}


def test_replaced_traffic_of_few_records_is_announced_first_and_held_once_there_are_enough() -> None:
    watching, traffic = trainer(bundle(), replaced=3), Traffic(0)

    checks = checks_of(watching, [normal(traffic), traffic.rows(500, shifted=True), traffic.rows(EACH, shifted=True)])

    assert decisions(checks) == ["not needed", "rejected", "held"]
    assert checks[1].verdict.figures["drift"]["state"] == "replaced"


def test_a_veto_lasts_until_traffic_is_stable_again() -> None:
    watching, traffic = trainer(bundle(), replaced=2), Traffic(0)
    checks_of(watching, [traffic.rows(EACH, shifted=True)])
    watching.veto()

    assert decisions(checks_of(watching, [traffic.rows(EACH, shifted=True) for _ in range(3)])) == ["not needed"] * 3
    assert decisions(checks_of(watching, [normal(traffic), traffic.rows(EACH, shifted=True)])) == ["not needed", "held"]


def test_a_new_population_is_never_learned_without_a_person() -> None:
    watching, traffic = trainer(bundle(), drifted=2), Traffic(0)
    parts = [mixed(traffic, 1_500, 1_000) for _ in range(4)]

    checks = checks_of(watching, parts)

    assert {check.verdict.figures["drift"]["state"] for check in checks} == {"new_population"}
    assert decisions(checks) == ["not needed", "held", "not needed", "not needed"]
    assert "adopt or veto" in checks[1].verdict.reasons[0]


def test_the_candidate_of_a_new_population_has_learned_it() -> None:
    watching, traffic = trainer(bundle(), drifted=1), Traffic(0)

    (check,) = checks_of(watching, [mixed(traffic, 3_000, 2_000)])

    assert check.candidate is not None
    watching.use(check.candidate)
    observe(watching, mixed(traffic, 1_500, 1_000))
    assert watching.check(CREATED).verdict.figures["drift"]["state"] == "stable"


def test_asked_it_fits_and_judges_whatever_the_drift() -> None:
    checks = checks_of(trainer(bundle()), [normal(Traffic(0), 6_000)], asked=True)

    assert decisions(checks) in (["rejected"], ["promoted"])
    assert checks[0].verdict.figures["gate"]


def test_replaced_traffic_does_not_wait_for_the_clock_and_is_not_diluted_by_what_came_before() -> None:
    watching, traffic = trainer(bundle()), Traffic(0)
    observe(watching, normal(traffic))
    assert not watching.is_alarmed()

    observe(watching, traffic.rows(1_900, shifted=True))
    assert not watching.is_alarmed()
    observe(watching, traffic.rows(200, shifted=True))

    assert watching.is_alarmed()
    assert watching.check(CREATED).verdict.figures["drift"]["state"] == "replaced"
    assert watching.streak.since == EACH + 100  # four blocks of 500 from the end
    observe(watching, traffic.rows(2_100, shifted=True))
    assert not watching.is_alarmed()  # a check has said so


def test_records_that_do_not_fit_the_schema_teach_nothing() -> None:
    watching = trainer(bundle(partial=True), drifted=1)
    rows = [row if place % 10 else {"amount": "no number"} for place, row in enumerate(Traffic(0).rows(6_000))]

    observe(watching, rows)

    assert len(watching.reservoir) == 5_400


@pytest.mark.parametrize("state", list(DriftState))
def test_another_current_version_starts_with_a_clean_slate(state: DriftState) -> None:
    watching = trainer(bundle())
    watching.streak = Streak(state, 5, 0)
    observe(watching, Traffic(0).rows(1_000))

    watching.use(watching.current)

    assert watching.streak[:2] == (DriftState.STABLE, 0)
    assert len(watching.buffer) == 0
    assert len(watching.reservoir) == 1_000
    assert np.isfinite(watching.reservoir.records().key).all()


def test_a_candidate_keeps_no_records_where_the_settings_say_none() -> None:
    settings = Settings(train=TrainSettings(rehearsal_records=0, drifted_checks=1, min_records=500))
    watching = make_trainer(settings, Model(bundle(partial=True)), Model)
    watching.options = OPTIONS

    (check,) = checks_of(watching, [normal(Traffic(0))])

    assert check.candidate is not None
    assert check.candidate.bundle.rehearsal == ()
