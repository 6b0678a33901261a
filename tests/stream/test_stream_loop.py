"""Publish, then commit: whatever fails in between, nothing is lost and nothing is scored with another threshold."""

from collections.abc import Callable

import orjson
import pytest

from devtools import traffic
from devtools.memory_broker import Action
from devtools.memory_clients import MemoryConsumer
from devtools.stage import GROUP, Guarantee, Killed, Stage, assert_as_undisturbed, make_model, undisturbed
from worker.broker.base import Polled
from worker.errors import (
    BreakerTripped,
    BrokerUnavailable,
    DeliveryError,
    Fenced,
    RecordTooLarge,
    SettingsError,
    TransientError,
)
from worker.pipeline import Model
from worker.records import Message, Partition
from worker.stream.breaker import Breaker

IN_0 = Partition("in", 0)
STEPS_THAT_FAIL: list[tuple[Guarantee, Action, int, bool]] = [
    ("at_least_once", "build", 0, False),
    ("at_least_once", "send", 0, False),
    ("at_least_once", "send", 50, True),
    ("at_least_once", "flush", 0, False),
    ("at_least_once", "flush", 0, True),
    ("at_least_once", "flush", 1, False),
    ("at_least_once", "flush", 1, True),
    ("at_least_once", "commit", 0, False),
    ("exactly_once", "build", 0, False),
    ("exactly_once", "transact", 0, False),
]


@pytest.mark.parametrize(("guarantee", "action", "skip", "after"), STEPS_THAT_FAIL)
def test_nothing_is_committed_before_all_of_it_is_acknowledged(
    guarantee: Guarantee, action: Action, skip: int, after: bool
) -> None:
    stage = Stage(guarantee=guarantee).feed(traffic.messages(600))
    worker = stage.worker()
    error: type[TransientError] = DeliveryError if action in {"send", "flush"} else BrokerUnavailable
    stage.broker.fail(action, error("injected"), after=after, skip=skip)

    worker.loop.step()

    assert stage.broker.offsets(GROUP) == {}
    assert [str(error) for error in worker.seen.retries] == ["injected"]
    worker.drain()
    assert_as_undisturbed(stage)


def test_a_commit_whose_answer_was_lost_is_not_published_twice_in_transactions() -> None:
    stage = Stage(guarantee="exactly_once").feed(traffic.messages(600))
    worker = stage.worker()
    for _ in range(3):
        stage.broker.fail("transact", BrokerUnavailable("no answer"), after=True)
        worker.loop.step()
        worker.loop.step()

    worker.drain()

    assert_as_undisturbed(stage)


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_a_held_batch_is_dropped_when_its_partitions_are_revoked(guarantee: Guarantee) -> None:
    stage = Stage(partitions=2, guarantee=guarantee).feed(traffic.messages(2000, partitions=2))
    first, second = stage.worker("a"), stage.worker("b")
    for _ in range(3):
        first.loop.step()
    action: Action = "flush" if guarantee == "at_least_once" else "transact"
    stage.broker.fail(action, DeliveryError("injected"))
    first.loop.step()
    second.loop.step()
    before = len(stage.broker.records("scores"))
    stage.broker.fail(action, DeliveryError("injected"))
    first.loop.step()

    assert first.seen.lost == ["their partitions were revoked"]
    assert len(stage.broker.records("scores")) == before
    second.die()
    first.drain()
    assert_as_undisturbed(stage)


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
@pytest.mark.parametrize("is_first_poll", [False, True])
def test_records_of_a_partition_that_is_lost_while_they_are_polled_are_left_to_its_new_owner(
    guarantee: Guarantee, is_first_poll: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(partitions=2, guarantee=guarantee).feed(traffic.messages(2000, partitions=2))
    first, second = stage.worker("a"), stage.worker("b")
    if not is_first_poll:
        first.loop.step()
    poll = first.consumer.poll

    def poll_and_lose(timeout_ms: int, max_records: int, max_bytes: int | None = None) -> Polled:
        polled = poll(timeout_ms, max_records, max_bytes)
        if polled and not second.seen.owned:
            second.loop.step()
            assert isinstance(first.consumer, MemoryConsumer)
            first.consumer._rejoin()
        return polled

    monkeypatch.setattr(first.consumer, "poll", poll_and_lose)
    first.loop.step()
    while not stage.is_drained():
        second.loop.step()
        first.loop.step()

    assert len(first.seen.owned) == len(second.seen.owned) == 1
    assert_as_undisturbed(stage)


def test_polling_that_fails_is_tried_again() -> None:
    stage = Stage().feed(traffic.messages(300))
    worker = stage.worker()
    stage.broker.fail("poll", BrokerUnavailable("away"), times=2)

    worker.drain()

    assert len(worker.seen.retries) == 2
    assert_as_undisturbed(stage)


def test_a_second_process_with_the_same_transactional_id_ends_the_first() -> None:
    stage = Stage(guarantee="exactly_once").feed(traffic.messages(1500))
    zombie = stage.worker("same")
    for _ in range(3):
        zombie.loop.step()
    zombie.loop._collect()
    zombie.loop._process()
    zombie.die()
    owner = stage.worker("same")
    owner.loop.step()

    with pytest.raises(Fenced):
        zombie.loop.step()

    owner.drain()
    assert_as_undisturbed(stage)


def bad(count: int, first: int = 0) -> list[Message]:
    return [Message("in", 0, first + n, 0, None, b"not json") for n in range(count)]


def test_a_stream_that_turns_bad_trips_the_breaker_with_that_batch_uncommitted() -> None:
    stage = Stage().feed([*traffic.messages(200), *bad(1000, 200)])
    worker = stage.worker(breaker=Breaker(invalid_ratio=1.0, window=100, consecutive=250))

    with pytest.raises(BreakerTripped, match="300 invalid records in a row"):
        worker.drain()

    committed = stage.broker.offsets(GROUP)[IN_0]
    assert committed == 400
    assert len(stage.broker.records("dead")) == committed - 200


def test_too_large_an_alert_loses_its_record_and_says_so() -> None:
    stage = Stage()
    huge = {**traffic.rows(1)[0], "amount": 5e6, "note": "x" * 99_700}
    stage.feed([*traffic.messages(100), Message("in", 0, 100, 0, b"key", orjson.dumps(huge))])
    worker = stage.worker().drain()

    alert = stage.broker.records("alerts")[-1]
    document = orjson.loads(alert.value or b"")
    assert worker.seen.short == 1
    assert document["source"]["offset"] == 100
    assert document["record"] is None
    assert document["truncated"] is True
    assert dict(alert.headers)["truncated"] == b"true"


def test_too_large_a_dead_letter_keeps_what_fits() -> None:
    stage = Stage().feed([Message("in", 0, 0, 0, b"key", b"x" * 350_000)])
    stage.worker().drain()

    (dead,) = stage.broker.records("dead")
    assert dead.value == b"x" * 87_500
    assert dict(dead.headers)["truncated"] == b"true"
    assert dict(dead.headers)["error.code"] == b"invalid_json"


def test_too_large_a_checkpoint_is_a_setting_to_change() -> None:
    stage = Stage().feed(traffic.messages(100))
    worker = stage.worker()
    worker.loop._collect()
    worker.loop._process()
    assert worker.loop._batch is not None
    (_, checkpoint), *_ = worker.loop._batch.checkpoints
    stage.broker.fail("flush", RecordTooLarge("refused", [checkpoint]))

    with pytest.raises(SettingsError, match=r"\[threshold.stride\]"):
        worker.loop.step()


def once(model: Model, when: Callable[[], bool]) -> Callable[[], Model | None]:
    """A watcher that has this model ready from then on, one time."""
    models = [model]
    return lambda: models.pop() if models and when() else None


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_a_new_model_takes_over_between_two_batches_with_thresholds_of_its_own(guarantee: Guarantee) -> None:
    messages = traffic.messages(1500)
    stage = Stage(guarantee=guarantee).feed(messages)
    first = stage.worker(new_model=once(make_model(1), lambda: stage.broker.offsets(GROUP).get(IN_0) == 400))
    for _ in range(8):
        first.loop.step()
    first.die()
    last = stage.worker(seed=1).drain()

    old, _ = undisturbed(messages[:400])
    new, _ = undisturbed(messages[400:], seed=1)
    assert first.seen.swaps == [(traffic.bundle(0).version, traffic.bundle(1).version)]
    assert last.seen.restored == {IN_0: 800}
    assert stage.scored() == old | new


def test_the_version_in_force_does_not_replace_itself() -> None:
    stage = Stage().feed(traffic.messages(1000))
    worker = stage.worker(new_model=lambda: make_model(0)).drain()

    assert worker.seen.swaps == []
    assert_as_undisturbed(stage)


def test_a_swap_whose_first_batch_was_not_committed_starts_again_from_the_calibration_of_the_new_model() -> None:
    messages = traffic.messages(1000)
    stage = Stage().feed(messages)
    first = stage.worker(new_model=once(make_model(1), lambda: stage.broker.offsets(GROUP).get(IN_0) == 400))
    for _ in range(4):
        first.loop.step()
    stage.broker.fail("commit", Killed())
    with pytest.raises(Killed):
        first.loop.step()
    first.die()

    last = stage.worker(seed=1).drain()

    old, _ = undisturbed(messages[:400])
    new, _ = undisturbed(messages[400:], seed=1)
    assert last.seen.restored == {}
    assert traffic.bundle(0).version in last.seen.rebuilt[IN_0]
    assert stage.scored() == old | new


def test_a_stop_delivers_the_open_batch() -> None:
    stage = Stage().feed(traffic.messages(100))
    worker = stage.worker()
    stage.broker.fail("flush", DeliveryError("injected"), times=2)

    worker.loop.run(lambda: bool(worker.seen.retries))

    assert stage.broker.offsets(GROUP) == {IN_0: 100}
    assert_as_undisturbed(stage)


def test_a_stop_gives_up_what_can_not_be_delivered_in_time() -> None:
    stage = Stage().feed(traffic.messages(100))
    worker = stage.worker()
    stage.broker.fail("flush", DeliveryError("injected"), times=100)

    worker.loop.run(lambda: bool(worker.seen.retries), drain_s=0.0)

    assert "0 s" in worker.seen.lost[0]
    assert stage.broker.offsets(GROUP) == {}


class Clock:
    """Monotonic seconds, moved by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("busy_s", "waits_ms"), [(0.0, 50), (0.02, 30), (0.2, None)])
def test_the_time_that_a_batch_takes_counts_as_waiting_time_of_the_next(busy_s: float, waits_ms: int | None) -> None:
    stage, clock = Stage().feed(traffic.messages(300)), Clock()
    worker = stage.worker(batch_size=200, monotonic=clock)
    worker.loop.max_wait_ms = 50
    worker.loop.step()
    clock.now += busy_s
    asked: list[int] = []
    poll = worker.consumer.poll

    def note(timeout_ms: int, max_records: int, max_bytes: int | None = None) -> Polled:
        asked.append(timeout_ms)
        clock.now += timeout_ms / 1000 if len(asked) > 1 else 0.0
        return poll(0, max_records, max_bytes)

    worker.consumer.poll = note  # type: ignore[method-assign]

    worker.loop.step()

    assert asked[1:2] == ([] if waits_ms is None else [waits_ms])
    assert stage.broker.offsets(GROUP) == {IN_0: 300}
