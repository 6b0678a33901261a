"""A broker that has just come back says for a moment what was committed long ago: nobody believes it."""

import pytest

from devtools import traffic
from devtools.stage import GROUP, Guarantee, Stage, Worker, assert_as_undisturbed
from worker.records import Partition

IN_0 = Partition("in", 0)
GUARANTEES: tuple[Guarantee, ...] = ("at_least_once", "exactly_once")


class Clock:
    """Monotonic seconds; a look at it takes a second."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


@pytest.fixture(autouse=True)
def never_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.stream.loop.MAX_BACKOFF_MS", 0)


def restarted(guarantee: Guarantee) -> tuple[Stage, Worker]:
    """A worker after one that handled 500 of 1000 records; it doubts older offsets for 15 s."""
    stage = Stage(guarantee=guarantee).feed(traffic.messages(1000))
    first = stage.worker()
    for _ in range(5):
        first.loop.step()
    first.die()
    stage.doubt_s = 15.0
    worker = stage.worker()
    worker.loop.checkpoints.doubt.monotonic = Clock()  # type: ignore[attr-defined]
    return stage, worker


@pytest.mark.parametrize("guarantee", GUARANTEES)
@pytest.mark.parametrize("past", [[{}], [{IN_0: 50}], [{}, {IN_0: 50}, {IN_0: 150}]])
def test_a_new_owner_that_is_told_older_offsets_asks_again(
    guarantee: Guarantee, past: list[dict[Partition, int]]
) -> None:
    stage, worker = restarted(guarantee)
    stage.broker.answer_from_the_past(*past)

    worker.drain()

    assert worker.seen.rebuilt == {}
    assert worker.seen.restored == {IN_0: 500}
    assert len(worker.seen.retries) == len(past)
    assert len(stage.published("scores")) == 1000
    assert_as_undisturbed(stage)


def test_in_transactions_the_offset_before_the_last_is_too_old_as_well() -> None:
    stage, worker = restarted("exactly_once")
    stage.broker.answer_from_the_past({IN_0: 400})

    worker.drain()

    assert worker.seen.restored == {IN_0: 500}
    assert_as_undisturbed(stage)


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_offsets_that_stay_where_an_operator_moved_them_are_believed_after_a_while(guarantee: Guarantee) -> None:
    stage, worker = restarted(guarantee)
    stage.broker._offsets[GROUP][IN_0] = 50
    worker.drain()

    assert 5 < len(worker.seen.retries) < 16
    assert "50" in worker.seen.rebuilt[IN_0]
    assert stage.published("scores")[500]["source"]["offset"] == 50


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_offsets_that_an_operator_moved_on_are_believed_at_once(guarantee: Guarantee) -> None:
    stage, worker = restarted(guarantee)
    stage.broker._offsets[GROUP][IN_0] = 700
    worker.drain()

    assert worker.seen.retries == []
    assert "700" in worker.seen.rebuilt[IN_0]
    assert len(stage.published("scores")) == 800
