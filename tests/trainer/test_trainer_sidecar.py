"""The sidecar reads beside the workers, hands good versions to the store, and follows whoever else changes it."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from devtools.memory_broker import MemoryBroker
from devtools.memory_clients import MemoryReader
from devtools.refit_streams import Traffic
from tests.trainer.common import CREATED, bundle, trainer
from worker.errors import RegistryUnavailable, StoreUnavailable
from worker.formats.json_objects import JsonDecoder
from worker.model.store.model_store import ModelStore
from worker.model.store.pointer import Mark, Status
from worker.pipeline import Model
from worker.records import Outgoing, Partition
from worker.redaction import Redaction
from worker.trainer.sidecar import Sidecar, TrainerEvents
from worker.trainer.trainer import TrainerVerdict

EACH = 2_500
PARTIAL, ALL = bundle(partial=True), bundle()


class Seen(TrainerEvents):
    """Keeps what it has seen."""

    def __init__(self) -> None:
        self.verdicts: list[TrainerVerdict] = []
        self.events: list[str] = []

    def checked(self, verdict: TrainerVerdict, seconds: float) -> None:  # noqa: ARG002
        self.verdicts.append(verdict)

    def current_changed(self, version: str, why: str) -> None:
        self.events.append(f"current {version}: {why}")

    def vetoed(self, version: str, why: str) -> None:  # noqa: ARG002
        self.events.append(f"vetoed {version}")

    def outrun(self, candidate: str, why: str) -> None:  # noqa: ARG002
        self.events.append(f"outrun {candidate}")

    def passed_over(self, partition: Partition, records: int) -> None:  # noqa: ARG002
        self.events.append(f"passed over {records}")

    def state_lost(self, why: str) -> None:  # noqa: ARG002
        self.events.append("state lost")

    def state_not_saved(self, why: str) -> None:  # noqa: ARG002
        self.events.append("state not saved")


class Place:
    """A topic, a store, and sidecars whose clock the test moves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broker = MemoryBroker({"in": 2})
        self.store = ModelStore(folder / "models")
        self.reader = MemoryReader(self.broker)
        self.seen = Seen()
        self.traffic = Traffic(0)
        self.time = 0.0

    def start(
        self,
        current: Any = PARTIAL,
        *,
        drifted: int = 2,
        max_records: int = 100_000,
        name: str = "a",
        topic: str = "in",
    ) -> Sidecar:
        self.store.save(current)
        if self.store.current() is None:
            self.store.promote(current.version)
        return Sidecar(
            trainer(current, drifted=drifted),
            self.store,
            Model,
            topic=topic,
            interval_s=100,
            max_records=max_records,
            keep=10,
            state_file=self.folder / f"{name}.npz",
            decoder=JsonDecoder(1 << 20),
            events=self.seen,
            now=lambda: CREATED,
            clock=lambda: self.time,
        )

    def produce(self, rows: list[dict[str, Any]]) -> None:
        self.broker.append([Outgoing("in", None, orjson.dumps(row), partition=i % 2) for i, row in enumerate(rows)])

    def check(self, sidecar: Sidecar, rows: list[dict[str, Any]] | None = None, *, asked: bool = False) -> str:
        """More traffic, then a step at the time of the next check; what was decided."""
        self.produce(rows if rows is not None else self.traffic.rows(EACH))
        self.time += 101
        sidecar.step(self.reader, asked=asked)
        return self.seen.verdicts[-1].decision.value


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_better_version_becomes_current_with_its_verdict(place: Place) -> None:
    sidecar = place.start()

    assert [place.check(sidecar) for _ in range(2)] == ["not needed", "promoted"]

    current = place.store.current()
    assert current not in {None, PARTIAL.version}
    mark = place.store.marks()[str(current)]
    assert (mark.status, mark.by) == (Status.PROMOTED, "trainer")
    assert mark.figures["gate"]["detection"]
    assert place.store.load().report["verdict"]["reasons"]
    assert place.check(sidecar) == "not needed"


def test_between_checks_it_only_reads(place: Place) -> None:
    sidecar = place.start()
    place.produce(place.traffic.rows(2_000))

    sidecar.step(place.reader)

    assert place.seen.verdicts == []
    assert sidecar.state.next_offsets == {Partition("in", 0): 1_000, Partition("in", 1): 1_000}


def test_a_refused_candidate_is_kept_for_a_person_to_see(place: Place) -> None:
    sidecar = place.start(ALL)

    assert place.check(sidecar, place.traffic.rows(9_000), asked=True) == "rejected"

    (version,) = [entry for entry in place.store.versions() if entry.mark and entry.mark.status is Status.REJECTED]
    assert not version.current
    assert place.store.current() == ALL.version


def test_where_two_trainers_decide_at_once_one_wins(place: Place) -> None:
    first, second = place.start(name="a"), place.start(name="b")
    place.check(first)
    second.step(place.reader)
    place.produce(place.traffic.rows(EACH))
    place.time += 101
    original, other = place.store.save, list[str]()

    def save_while_the_other_promotes(bundle: Any) -> None:
        original(bundle)
        if not other:
            other.append(bundle.version)
            place.produce(place.traffic.rows(500))
            second.step(place.reader)

    place.store.save = save_while_the_other_promotes  # type: ignore[method-assign]
    first.step(place.reader)

    winner = place.store.current()
    assert winner not in {None, *other}
    assert place.seen.events == [f"current {winner}: promoted", f"outrun {other[0]}"]
    assert place.check(first) == "not needed"
    assert place.seen.verdicts[-1].current == winner


def test_a_version_that_somebody_else_promoted_is_the_current_one(place: Place) -> None:
    sidecar = place.start()
    place.store.save(ALL)
    place.store.promote(ALL.version)

    assert [place.check(sidecar) for _ in range(3)] == ["not needed"] * 3
    assert place.seen.verdicts[-1].current == ALL.version


def test_after_a_rollback_the_same_traffic_does_not_teach_it_again(place: Place) -> None:
    sidecar = place.start()
    assert [place.check(sidecar) for _ in range(2)][-1] == "promoted"
    bad = str(place.store.current())
    place.store.rollback(leaving=bad, mark=Mark(Status.ROLLED_BACK, CREATED, "worker", "alerts on everything"))

    assert [place.check(sidecar) for _ in range(3)] == ["not needed"] * 3
    assert "vetoed" in place.seen.verdicts[-1].reasons[0]
    assert place.store.current() == PARTIAL.version


def test_replaced_traffic_is_held_until_a_person_or_time_decides(place: Place) -> None:
    sidecar = place.start(ALL)
    place.check(sidecar)

    assert place.check(sidecar, place.traffic.rows(EACH, shifted=True)) == "held"
    held = sidecar.state.held
    assert place.store.marks()[str(held)].status is Status.HELD

    place.store.promote(str(held))
    assert place.check(sidecar, place.traffic.rows(EACH, shifted=True)) == "not needed"
    assert place.seen.verdicts[-1].current == held


def test_in_time_replaced_traffic_becomes_normal_and_what_was_held_is_superseded(place: Place) -> None:
    sidecar = place.start(ALL)
    place.check(sidecar)
    place.check(sidecar, place.traffic.rows(EACH, shifted=True))
    held = str(sidecar.state.held)

    assert place.check(sidecar, place.traffic.rows(EACH, shifted=True)) == "promoted"

    assert sidecar.state.held is None
    assert place.store.marks()[held].status is Status.CANDIDATE
    assert str(place.store.current()) in place.store.marks()[held].why


def test_replaced_traffic_that_was_vetoed_never_becomes_normal(place: Place) -> None:
    sidecar = place.start(ALL)
    place.check(sidecar)
    place.check(sidecar, place.traffic.rows(EACH, shifted=True))
    held = str(sidecar.state.held)
    place.store.mark(held, Mark(Status.VETOED, CREATED, "operator", "an attack"))

    decisions = [place.check(sidecar, place.traffic.rows(EACH, shifted=True)) for _ in range(4)]

    assert decisions == ["not needed"] * 4
    assert f"vetoed {held}" in place.seen.events
    assert place.store.current() == ALL.version


def test_the_first_sign_of_replaced_traffic_does_not_wait_for_the_clock(place: Place) -> None:
    sidecar = place.start(ALL)
    place.produce(place.traffic.rows(EACH, shifted=True))

    sidecar.step(place.reader)

    assert place.seen.verdicts[-1].decision.value == "held"


def test_a_restart_goes_on_where_it_was(place: Place) -> None:
    before = place.start(drifted=3)
    place.check(before)
    place.check(before)
    before.save()

    after = place.start(drifted=3)

    assert after.state.next_offsets == before.state.next_offsets
    assert place.check(after) == "promoted"


def test_a_damaged_state_is_reported_and_begun_anew(place: Place) -> None:
    (place.folder / "a.npz").write_bytes(b"garbage")

    sidecar = place.start()

    assert place.seen.events == ["state lost"]
    assert place.check(sidecar) == "not needed"


def test_a_state_that_cannot_be_saved_stops_nothing(place: Place) -> None:
    sidecar = place.start()
    (place.folder / "a.npz").mkdir()

    sidecar.save()

    assert place.seen.events[-1] == "state not saved"
    assert place.check(sidecar) == "not needed"


def test_more_than_a_step_may_read_is_passed_over(place: Place) -> None:
    sidecar = place.start(max_records=1_000)
    place.produce(place.traffic.rows(500))
    sidecar.step(place.reader)
    place.produce(place.traffic.rows(3_000))

    sidecar.step(place.reader)

    assert place.seen.events == ["passed over 1000", "passed over 1000"]
    assert sidecar.state.next_offsets == {Partition("in", 0): 1_750, Partition("in", 1): 1_750}


def test_of_several_topics_all_are_read(place: Place) -> None:
    place.broker.create_topic("other", 1)
    place.broker.append([Outgoing("other", None, orjson.dumps(row), partition=0) for row in place.traffic.rows(30)])
    place.produce(place.traffic.rows(200))
    sidecar = place.start(topic="in,other")

    sidecar.step(place.reader)

    assert sidecar.trainer.reservoir.seen == 230
    assert sidecar.state.next_offsets[Partition("other", 0)] == 30


def test_what_the_store_did_not_take_is_handed_over_when_it_is_back(place: Place) -> None:
    sidecar = place.start()
    place.check(sidecar)
    working, place.store.save = place.store.save, _unreachable  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        place.check(sidecar)
    assert place.store.current() == PARTIAL.version

    place.store.save = working  # type: ignore[method-assign]
    sidecar.step(place.reader)

    assert place.store.current() == place.seen.verdicts[-1].candidate


def _unreachable(bundle: Any) -> None:
    raise StoreUnavailable(f"no way to write {bundle.version}")


class Away(JsonDecoder):
    """As a registry's decoder whose registry does not answer."""

    def decode(self, messages: Any) -> Any:  # noqa: ARG002
        raise RegistryUnavailable("away")

    def rows(self, values: Any) -> Any:  # noqa: ARG002
        raise RegistryUnavailable("away")


def test_a_check_that_can_not_ask_for_a_schema_is_made_once_it_can(place: Place) -> None:
    sidecar = place.start()
    place.check(sidecar)
    there, sidecar.trainer.decoder = sidecar.trainer.decoder, Away()
    with pytest.raises(RegistryUnavailable):
        place.check(sidecar)
    assert sidecar.trainer.checks == 1

    sidecar.trainer.decoder = there
    sidecar.step(place.reader)

    assert [verdict.decision.value for verdict in place.seen.verdicts] == ["not needed", "promoted"]


def test_records_that_can_not_be_masked_now_are_not_saved_and_stop_nothing(place: Place) -> None:
    sidecar = place.start()
    place.produce(place.traffic.rows(100))
    sidecar.step(place.reader)
    sidecar.trainer.current = Model(PARTIAL, redaction=Redaction(["id"]))
    sidecar.trainer.decoder = Away()

    sidecar.save()

    assert place.seen.events == ["state not saved"]
    assert not (place.folder / "a.npz").exists()
