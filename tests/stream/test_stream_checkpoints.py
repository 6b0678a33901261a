"""Thresholds go on where they were, whoever dies when."""

import pytest

from devtools import traffic
from devtools.memory_broker import Action
from devtools.stage import Guarantee, Killed, Stage, Worker, assert_as_undisturbed
from worker.errors import BrokerUnavailable, CommitRefused, DeliveryError
from worker.records import Partition
from worker.thresholds.factory import ThresholdFactory

GUARANTEES: tuple[Guarantee, ...] = ("at_least_once", "exactly_once")
IN_0 = Partition("in", 0)

# (action, its calls that pass in the batch, whether its effect happens): a batch flushes its results, then its state
MOMENTS: dict[str, tuple[Action, int, bool]] = {
    "before the results": ("flush", 0, False),
    "between results and state": ("flush", 0, True),
    "before the state": ("flush", 1, False),
    "between state and commit": ("flush", 1, True),
    "before the commit": ("commit", 0, False),
    "after the commit": ("commit", 0, True),
}


def kill_at(stage: Stage, worker: Worker, action: Action, skip: int, *, after: bool) -> None:
    """Three batches, then the end in the middle of the fourth."""
    for _ in range(3):
        worker.loop.step()
    stage.broker.fail(action, Killed(), after=after, skip=skip)
    with pytest.raises(Killed):
        worker.loop.step()
    worker.die()


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_step_the_next_worker_goes_on_with_the_same_thresholds(moment: str) -> None:
    action, skip, after = MOMENTS[moment]
    stage = Stage().feed(traffic.messages(3000))
    for size in (100, 70, 130):
        kill_at(stage, stage.worker(batch_size=size), action, skip, after=after)

    stage.worker().drain()

    assert_as_undisturbed(stage)


@pytest.mark.parametrize("after", [False, True])
def test_killed_around_a_transaction_nothing_is_lost_or_repeated(after: bool) -> None:
    stage = Stage(guarantee="exactly_once").feed(traffic.messages(3000))
    for size in (100, 70, 130):
        kill_at(stage, stage.worker(batch_size=size), "transact", 0, after=after)

    stage.worker().drain()

    assert_as_undisturbed(stage)


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_partitions_that_change_owners_take_their_thresholds_along(guarantee: Guarantee) -> None:
    stage = Stage(partitions=4, guarantee=guarantee).feed(traffic.messages(6000, partitions=4))
    first, second = stage.worker("a"), stage.worker("b")
    for _ in range(5):
        first.loop.step()
    for _ in range(5):
        second.loop.step()
        first.loop.step()
    second.die()

    first.drain()

    assert second.seen.batches > 0
    assert first.seen.rebuilt == second.seen.rebuilt == {}
    assert_as_undisturbed(stage)


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_one_state_partition_serves_many_input_partitions(guarantee: Guarantee) -> None:
    stage = Stage(partitions=3, state_partitions=1, guarantee=guarantee).feed(traffic.messages(3000, partitions=3))
    for _ in range(3):
        worker = stage.worker()
        for _ in range(4):
            worker.loop.step()
        worker.die()

    stage.worker().drain()

    assert_as_undisturbed(stage)


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_a_batch_whose_commit_is_refused_is_scored_again_with_the_same_thresholds(guarantee: Guarantee) -> None:
    stage = Stage(guarantee=guarantee).feed(traffic.messages(2000))
    worker = stage.worker()
    action: Action = "commit" if guarantee == "at_least_once" else "transact"
    for _ in range(4):
        worker.loop.step()
        stage.broker.fail(action, CommitRefused("the group has a new generation"))
        worker.loop.step()

    worker.drain()

    assert len(worker.seen.lost) == 4
    assert_as_undisturbed(stage)


@pytest.mark.parametrize(
    ("unacknowledged", "repeated"), [(0, {"alerts", "scores"}), (1, {"state"})], ids=["results", "checkpoints"]
)
def test_a_retried_publish_writes_the_same_bytes_and_nothing_that_was_acknowledged(
    unacknowledged: int, repeated: set[str]
) -> None:
    stage = Stage().feed(traffic.messages(300))
    worker = stage.worker()
    worker.loop.step()
    before = {topic: len(stage.broker.records(topic)) for topic in ("alerts", "scores", "state")}
    stage.broker.fail("flush", DeliveryError("acknowledgement lost"), after=True, skip=unacknowledged)
    worker.loop.step()
    once = {topic: written(stage, topic)[start:] for topic, start in before.items()}

    worker.loop.step()

    assert worker.seen.batches == 2
    assert once["alerts"]
    for topic in repeated:
        assert written(stage, topic)[before[topic] :] == once[topic] * 2
    for topic in before.keys() - repeated:
        assert len(set(records := written(stage, topic)[before[topic] :])) == len(records)


def written(stage: Stage, topic: str) -> list[tuple[bytes | None, bytes | None]]:
    return [(message.key, message.value) for message in stage.broker.records(topic)]


def test_no_record_is_scored_while_the_state_can_not_be_read() -> None:
    stage = Stage().feed(traffic.messages(2000))
    first = stage.worker()
    for _ in range(5):
        first.loop.step()
    first.die()
    second = stage.worker()
    stage.broker.fail("committed", BrokerUnavailable("away"), times=2)
    before = len(stage.broker.records("scores"))
    second.loop.step()
    assert len(stage.broker.records("scores")) == before

    second.drain()

    assert len(second.seen.retries) == 2
    assert second.seen.restored == {IN_0: 500}
    assert_as_undisturbed(stage)


def test_what_a_frozen_process_writes_late_does_not_harm_the_new_owner() -> None:
    stage = Stage().feed(traffic.messages(3000))
    frozen = stage.worker("a")
    for _ in range(3):
        frozen.loop.step()
    stage.broker.fail("flush", Killed(), skip=1)
    with pytest.raises(Killed):
        frozen.loop.step()  # its results are out, its state is not
    late = frozen.loop._batch
    assert late is not None
    frozen.die()
    owner = stage.worker("b", batch_size=90)
    for _ in range(4):
        owner.loop.step()
    stage.broker.append([record for _, record in late.checkpoints])
    owner.die()

    last = stage.worker("c").drain()

    assert last.seen.rebuilt == {}
    assert_as_undisturbed(stage)


def test_a_state_half_written_when_the_worker_died_is_not_used() -> None:
    stage = Stage().feed(traffic.messages(2000))
    first = stage.worker()
    for _ in range(3):
        first.loop.step()
    stage.broker.fail("flush", Killed(), skip=1)
    with pytest.raises(Killed):
        first.loop.step()
    half = first.loop._batch
    assert half is not None
    stage.broker.append([record for _, record in half.checkpoints][:-1])  # slots without their head
    first.die()

    last = stage.worker().drain()

    assert last.seen.restored == {IN_0: 300}
    assert_as_undisturbed(stage)


def test_a_position_beyond_the_saved_offset_leaves_no_record_out() -> None:
    stage = Stage().feed(traffic.messages(1000))
    first = stage.worker()
    for _ in range(5):
        first.loop.step()
    first.die()
    second = stage.worker()
    second.consumer.poll(0, 0)
    second.consumer.seek({IN_0: 700})

    second.drain()

    assert_as_undisturbed(stage)


def test_a_fixed_threshold_goes_on_after_a_restart_and_starts_anew_where_it_was_changed() -> None:
    stage = Stage().feed(traffic.messages(300))

    def worker(theta: float, steps: int) -> Worker:
        started = stage.worker()
        started.pipeline._threshold_factory = ThresholdFactory(stride=64, rule="fixed", rule_values={"fixed": theta})
        for _ in range(steps):
            started.loop.step()
        started.die()
        return started

    worker(0.5, 3)
    again, changed = worker(0.5, 3), worker(0.6, 3)

    assert (len(again.seen.restored), again.seen.rebuilt) == (1, {})
    assert "saved state is of the threshold 0.5" in next(iter(changed.seen.rebuilt.values()))
    assert {threshold for scored in stage.scored().values() for _, threshold, _ in scored} <= {0.5, 0.6}
