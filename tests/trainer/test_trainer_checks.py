"""The trainer refits where ordinary traffic has moved, after it was patient enough, and nowhere else."""

import numpy as np
import pytest

from devtools.refit_streams import Traffic, planted
from tests.trainer.common import CREATED, OPTIONS, bundle, observe, trainer
from worker.formats.base import Row
from worker.pipeline import Model
from worker.processes.wiring import make_trainer
from worker.settings import Settings, TrainSettings
from worker.trainer.drift import Condition
from worker.trainer.trainer import Look, Trainer

EACH = 2_500


def looks(watching: Trainer, parts: list[list[Row]], *, asked: bool = False) -> list[Look]:
    found = []
    for rows in parts:
        observe(watching, rows)
        found.append(watching.look(CREATED, asked=asked))
    return found


def decisions(found: list[Look]) -> list[str]:
    return [look.verdict.decision.value for look in found]


def ordinary(traffic: Traffic, count: int = EACH) -> list[Row]:
    return planted(traffic.rows(count), 0.02, 5)[0]


def mixed(traffic: Traffic, known: int, new: int) -> list[Row]:
    rows = traffic.rows(known) + traffic.rows(new, shifted=True)
    return [rows[place] for place in np.random.default_rng(0).permutation(len(rows)).tolist()]


def test_settled_traffic_needs_no_refit() -> None:
    traffic = Traffic(0)

    found = looks(trainer(bundle()), [ordinary(traffic) for _ in range(4)])

    assert decisions(found) == ["not needed"] * 4
    assert found[0].verdict.figures["need"]["condition"] == "settled"


def test_too_few_records_are_waited_for() -> None:
    assert decisions(looks(trainer(bundle()), [Traffic(0).rows(100)])) == ["waiting"]


def test_a_model_of_a_part_of_the_traffic_is_replaced_after_as_many_looks_as_it_takes() -> None:
    watching, traffic = trainer(bundle(few=True), moved=3), Traffic(0)

    found = looks(watching, [ordinary(traffic) for _ in range(3)])

    assert decisions(found) == ["not needed", "not needed", "promoted"]
    assert found[2].candidate is not None
    assert found[2].candidate.bundle.report["verdict"]["decision"] == "promoted"
    assert found[2].verdict.candidate == found[2].candidate.bundle.version


def test_what_was_promoted_is_settled_with_the_traffic() -> None:
    watching, traffic = trainer(bundle(few=True)), Traffic(0)
    last = looks(watching, [ordinary(traffic) for _ in range(2)])[-1]
    assert last.candidate is not None

    watching.use(last.candidate)

    assert decisions(looks(watching, [ordinary(traffic) for _ in range(2)])) == ["not needed"] * 2


def test_the_same_traffic_leads_to_the_same_candidate() -> None:
    versions = set()
    for _ in range(2):
        traffic = Traffic(0)
        versions.add(looks(trainer(bundle(few=True)), [ordinary(traffic) for _ in range(2)])[-1].verdict.candidate)

    assert len(versions) == 1


def test_a_move_that_pauses_is_waited_for_anew() -> None:
    watching, traffic = trainer(bundle(few=True), moved=3), Traffic(0)
    known = [1.0] * 4 + [0.0] * 4
    calm = traffic.rows(EACH, weights=[weight / 4 for weight in known])

    found = looks(watching, [ordinary(traffic), ordinary(traffic), calm, ordinary(traffic), ordinary(traffic)])

    assert decisions(found) == ["not needed"] * 5


def test_replaced_traffic_is_announced_with_a_candidate_and_becomes_ordinary_in_time() -> None:
    watching, traffic = trainer(bundle(), gone=3), Traffic(0)
    shifted = [traffic.rows(EACH, shifted=True) for _ in range(3)]

    found = looks(watching, [ordinary(traffic), *shifted])

    assert decisions(found) == ["not needed", "held", "not needed", "promoted"]
    assert found[1].verdict.candidate is not None
    assert found[1].verdict.figures["drift"].keys() >= {"amount", "country"}


def test_replaced_traffic_of_few_records_is_announced_first_and_held_once_there_are_enough() -> None:
    watching, traffic = trainer(bundle(), gone=3), Traffic(0)

    found = looks(watching, [ordinary(traffic), traffic.rows(500, shifted=True), traffic.rows(EACH, shifted=True)])

    assert decisions(found) == ["not needed", "rejected", "held"]
    assert found[1].verdict.figures["need"]["condition"] == "gone"


def test_a_veto_lasts_until_traffic_is_settled_again() -> None:
    watching, traffic = trainer(bundle(), gone=2), Traffic(0)
    looks(watching, [traffic.rows(EACH, shifted=True)])
    watching.veto()

    assert decisions(looks(watching, [traffic.rows(EACH, shifted=True) for _ in range(3)])) == ["not needed"] * 3
    assert decisions(looks(watching, [ordinary(traffic), traffic.rows(EACH, shifted=True)])) == ["not needed", "held"]


def test_a_part_that_stands_apart_is_never_learned_without_a_person() -> None:
    watching, traffic = trainer(bundle(), moved=2), Traffic(0)
    parts = [mixed(traffic, 1_500, 1_000) for _ in range(4)]

    found = looks(watching, parts)

    assert {look.verdict.figures["need"]["condition"] for look in found} == {"apart"}
    assert decisions(found) == ["not needed", "held", "not needed", "not needed"]
    assert "adopt or veto" in found[1].verdict.reasons[0]


def test_the_candidate_of_a_part_that_stands_apart_has_learned_it() -> None:
    watching, traffic = trainer(bundle(), moved=1), Traffic(0)

    (found,) = looks(watching, [mixed(traffic, 3_000, 2_000)])

    assert found.candidate is not None
    watching.use(found.candidate)
    observe(watching, mixed(traffic, 1_500, 1_000))
    assert watching.look(CREATED).verdict.figures["need"]["condition"] == "settled"


def test_asked_it_fits_and_judges_whatever_the_need() -> None:
    found = looks(trainer(bundle()), [ordinary(Traffic(0), 6_000)], asked=True)

    assert decisions(found) in (["rejected"], ["promoted"])
    assert found[0].verdict.figures["gate"]


def test_replaced_traffic_does_not_wait_for_the_clock_and_is_not_diluted_by_what_came_before() -> None:
    watching, traffic = trainer(bundle()), Traffic(0)
    observe(watching, ordinary(traffic))
    assert not watching.is_alarmed()

    observe(watching, traffic.rows(1_900, shifted=True))
    assert not watching.is_alarmed()
    observe(watching, traffic.rows(200, shifted=True))

    assert watching.is_alarmed()
    assert watching.look(CREATED).verdict.figures["need"]["condition"] == "gone"
    assert watching.streak[2] == EACH + 100  # four blocks of 500 from the end
    observe(watching, traffic.rows(2_100, shifted=True))
    assert not watching.is_alarmed()  # a look has said so


def test_records_that_do_not_fit_the_schema_teach_nothing() -> None:
    watching = trainer(bundle(few=True), moved=1)
    rows = [row if place % 10 else {**row, "amount": "no number"} for place, row in enumerate(Traffic(0).rows(6_000))]

    observe(watching, rows)

    assert len(watching.window) == 5_400


@pytest.mark.parametrize("condition", list(Condition))
def test_another_champion_starts_with_a_clean_slate(condition: Condition) -> None:
    watching = trainer(bundle())
    watching.streak = (condition, 5, 0)
    observe(watching, Traffic(0).rows(1_000))

    watching.use(watching.champion)

    assert watching.streak[:2] == (Condition.SETTLED, 0)
    assert len(watching.stretch) == 0
    assert len(watching.window) == 1_000
    assert np.isfinite(watching.window.keys()).all()


def test_a_candidate_keeps_no_records_where_none_are_wanted() -> None:
    settings = Settings(train=TrainSettings(rehearsal_records=0, moved_looks=1, min_records=500))
    watching = make_trainer(settings, Model(bundle(few=True)), Model)
    watching._options = OPTIONS

    (found,) = looks(watching, [ordinary(Traffic(0))])

    assert found.candidate is not None
    assert found.candidate.bundle.rehearsal == ()
