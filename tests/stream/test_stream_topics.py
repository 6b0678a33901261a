"""What a group does when its topic, the topic's partitions or its own offsets are not what they were.

Whoever moves or deletes offsets is followed, a topic that was created again is another one, and no saved state makes a
record be passed over.
"""

from collections.abc import Callable

import pytest

from devtools import traffic
from devtools.stage import GROUP, Guarantee, Stage, Worker, undisturbed
from worker.records import Message, Partition

GUARANTEES: tuple[Guarantee, ...] = ("at_least_once", "exactly_once")
IN_0 = Partition("in", 0)
OLD, NEW = traffic.messages(600), traffic.messages(900, seed=7)


def after_batches(stage: Stage, batches: int) -> None:
    """A worker that handled so many batches of 100 records, and ended."""
    worker = stage.worker()
    for _ in range(batches):
        worker.loop.step()
    worker.die()


def offsets_scored(stage: Stage, since: int = 0) -> list[int]:
    return [score["source"]["offset"] for score in stage.published("scores")[since:]]


def recreate(stage: Stage, messages: list[Message], partitions: int = 1) -> None:
    stage.broker.delete_topic("in")
    stage.broker.create_topic("in", partitions)
    stage.fed = []
    stage.feed(messages)


def delete_offsets(stage: Stage) -> None:
    del stage.broker._offsets[GROUP][IN_0]
    del stage.broker._starts_of[GROUP][IN_0]


def move_to(offset: int) -> Callable[[Stage], None]:
    def move(stage: Stage) -> None:
        stage.broker._offsets[GROUP][IN_0] = offset

    return move


@pytest.mark.parametrize("guarantee", GUARANTEES)
@pytest.mark.parametrize(
    ("batches", "change", "begins_at"),
    [
        pytest.param(1, delete_offsets, 0, id="deleted after the first batch"),
        pytest.param(2, delete_offsets, 0, id="deleted after the second batch"),
        pytest.param(6, delete_offsets, 0, id="deleted at the end"),
        pytest.param(1, move_to(0), 0, id="moved to where the first batch began"),
        pytest.param(1, move_to(1), 1, id="moved into the first batch"),
        pytest.param(3, move_to(200), 200, id="moved to where the last batch began"),
        pytest.param(3, move_to(100), 100, id="moved to where an earlier batch began"),
        pytest.param(3, move_to(299), 299, id="moved back by one"),
        pytest.param(3, move_to(301), 301, id="moved on by one"),
        pytest.param(1, move_to(600), 600, id="moved to the end"),
    ],
)
def test_offsets_that_somebody_moved_or_deleted_are_followed(
    guarantee: Guarantee, batches: int, change: Callable[[Stage], None], begins_at: int
) -> None:
    stage = Stage(guarantee=guarantee).feed(OLD)
    after_batches(stage, batches)
    change(stage)

    worker = stage.worker().drain()

    assert offsets_scored(stage, batches * 100) == list(range(begins_at, 600))
    assert worker.seen.rebuilt.keys() | worker.seen.restored.keys() | worker.seen.begun.keys() == (
        {IN_0} if begins_at < 600 or IN_0 in worker.seen.rebuilt else set()
    )


@pytest.mark.parametrize("guarantee", GUARANTEES)
@pytest.mark.parametrize("batches", [1, 2, 6])
@pytest.mark.parametrize("length", [50, 600, 900])
def test_a_topic_that_was_created_again_while_nobody_read_it_is_read_whole(
    guarantee: Guarantee, batches: int, length: int
) -> None:
    stage = Stage(guarantee=guarantee).feed(OLD)
    after_batches(stage, batches)
    earlier, before = stage.broker.topic_id("in"), len(offsets_scored(stage))
    alerted = stage.alerted()
    recreate(stage, NEW[:length])

    worker = stage.worker().drain()

    assert offsets_scored(stage, before) == list(range(length))
    assert worker.seen.begun == {IN_0: 0}
    assert f"topic {earlier}" in worker.seen.rebuilt[IN_0]
    fresh, alerts = undisturbed(stage.fed)
    assert stage.published("scores")[before]["threshold"] == fresh[0, 0].pop()[1]
    assert len(stage.alerted() - alerted) == len(alerts)


@pytest.mark.parametrize("guarantee", GUARANTEES)
@pytest.mark.parametrize("length", [50, 900])
def test_a_topic_that_is_created_again_under_a_running_worker_is_read_whole(guarantee: Guarantee, length: int) -> None:
    stage = Stage(guarantee=guarantee).feed(OLD)
    worker = stage.worker()
    for _ in range(3):
        worker.loop.step()
    alerted = stage.alerted()
    recreate(stage, NEW[:length])

    worker.drain()

    assert offsets_scored(stage, 300) == list(range(length))
    assert not alerted & {alert["alert_id"] for alert in stage.published("alerts")[len(alerted) :]}


def test_a_topic_that_is_gone_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.stream.loop.IDLE_POLL_MS", 1)
    stage = Stage().feed(OLD)
    worker = stage.worker()
    worker.loop.step()
    stage.broker.delete_topic("in")
    for _ in range(3):
        worker.loop.step()

    assert worker.consumer.missing_topics() == ["in"]
    stage.broker.create_topic("in", 3)
    stage.fed = []
    stage.feed(traffic.messages(300, partitions=3))
    worker.drain()
    assert len(offsets_scored(stage, 100)) == 300
    assert worker.consumer.missing_topics() == []


def alert_ids(stage: Stage) -> list[str]:
    return [alert["alert_id"] for alert in stage.published("alerts")]


def test_ids_of_alerts_stay_the_same_within_each_life_of_a_topic_and_differ_between_them() -> None:
    """The same 600 records three times; in each, a worker that is killed and one that repeats a batch."""
    stage = Stage()
    seen: list[list[str]] = []
    for _ in range(3):
        if stage.fed:
            stage.broker.delete_topic("in")
            stage.broker.create_topic("in", 1)
            stage.fed = []
        stage.feed(OLD)
        before = len(alert_ids(stage))
        after_batches(stage, 3)
        stage.broker._offsets[GROUP][IN_0] = 100
        stage.worker().drain().die()
        seen.append(alert_ids(stage)[before:])

    first, second, third = (set(ids) for ids in seen)
    assert first == undisturbed(OLD)[1]
    assert not first & second
    assert not first & third
    assert not second & third
    assert len(first) == len(second) == len(third)
    assert all(len(ids) > len(set(ids)) for ids in seen)  # what was scored again had its ids again


def test_a_group_that_begins_at_the_end_stays_there_before_it_has_read_anything() -> None:
    stage = Stage(partitions=2).feed(traffic.messages(400, partitions=2))
    stage.broker.begin_at_end("in", GROUP)
    first = stage.worker()
    first.loop.step()
    first.die()
    new = traffic.messages(500, partitions=2)[400:]
    stage.fed = []
    stage.feed(new)

    stage.worker().drain()

    assert sorted(offsets_scored(stage)) == sorted(message.offset for message in new)


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("is_running", [True, False])
def test_partitions_that_are_added_begin_at_their_beginning_also_where_the_group_began_at_the_end(
    is_running: bool, members: int
) -> None:
    stage = Stage(partitions=1).feed(traffic.messages(100))
    stage.broker.begin_at_end("in", GROUP)
    workers = [stage.worker(f"worker {number}") for number in range(members)]
    for worker in workers * 2:
        worker.loop.step()
    if not is_running:
        for worker in workers:
            worker.die()
    stage.broker.add_partitions("in", 4)
    stage.broker.add_partitions("state", 4)
    later = traffic.messages(400, partitions=4)
    stage.fed = []
    stage.feed([message for message in later if message.partition])
    if not is_running:
        workers = [stage.worker(f"worker {number}") for number in range(members)]

    step_until_drained(stage, workers)

    assert offsets_scored(stage) != []
    scored = {(score["source"]["partition"], score["source"]["offset"]) for score in stage.published("scores")}
    assert scored == {(message.partition, message.offset) for message in later if message.partition}


def step_until_drained(stage: Stage, workers: list[Worker]) -> None:
    for _ in range(100):
        for worker in workers:
            worker.loop.step()
        committed = stage.broker.offsets(GROUP)
        added = [partition for partition in stage.broker.partitions("in") if partition.partition]
        if all(committed.get(partition, 0) == stage.broker.bounds(partition)[1] for partition in added):
            return
    raise AssertionError("not drained")
