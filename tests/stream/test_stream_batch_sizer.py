"""Whatever is slow, batches shrink until the loop polls often enough: nothing is read again for ever."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from devtools import traffic
from devtools.stage import GROUP, Guarantee, Stage, Worker, assert_as_undisturbed
from worker.errors import BrokerUnavailable, DeliveryError
from worker.records import Outcome, Outgoing, Partition, RawMessage
from worker.stream.sizing import BatchSizer

GUARANTEES: tuple[Guarantee, ...] = ("at_least_once", "exactly_once")
POLL_INTERVAL_S = 20.0


class Clock:
    """Monotonic seconds, moved by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def slow_down(worker: Worker, clock: Clock, record_s: float) -> list[int]:
    """Scoring takes so long a record, and the group gives the member up as it does; the sizes of the batches."""
    sizes: list[int] = []
    process = worker.pipeline.process

    def slowly(messages: Sequence[RawMessage], detected_at: str | None = None) -> Outcome:
        sizes.append(len(messages))
        clock.now += len(messages) * record_s
        if len(messages) * record_s > POLL_INTERVAL_S:
            worker.stage.broker.leave(worker.consumer)  # type: ignore[arg-type]
        return process(messages, detected_at)

    worker.pipeline.process = slowly  # type: ignore[method-assign]
    return sizes


def clocked(stage: Stage, clock: Clock, **options: Any) -> Worker:
    return stage.worker(batch_size=1000, max_batch_s=POLL_INTERVAL_S / 4, monotonic=clock, **options)


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_a_scorer_so_slow_that_the_member_is_thrown_out_gets_smaller_batches_and_ends(guarantee: Guarantee) -> None:
    stage, clock = Stage(guarantee=guarantee).feed(traffic.messages(1500)), Clock()
    worker = clocked(stage, clock)
    sizes = slow_down(worker, clock, record_s=0.1)

    worker.drain(100)

    assert sizes[:3] == [1000, 50, 50]
    assert len(worker.seen.lost) == 1
    assert worker.seen.sizes == [50]
    assert_as_undisturbed(stage)


def test_once_the_scorer_is_fast_again_batches_grow_to_their_full_size() -> None:
    stage, clock = Stage().feed(traffic.messages(6000)), Clock()
    worker = clocked(stage, clock)
    sizes = slow_down(worker, clock, record_s=0.1)
    while len(sizes) < 2:  # a batch, and after the way back into the group another one
        worker.loop.step()
    del worker.pipeline.process

    worker.drain()

    assert sizes == [1000, 50]
    assert worker.loop._batch_sizer.size == 1000


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_a_batch_that_the_broker_can_not_take_in_time_goes_out_in_smaller_ones(
    guarantee: Guarantee, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(partitions=2, guarantee=guarantee).feed(traffic.messages(2000, partitions=2))
    worker = stage.worker(batch_size=1000)
    publish = worker.loop.delivery.publish

    def slowly(
        outgoing: Sequence[Outgoing], next_offsets: Mapping[Partition, int], state: Sequence[Outgoing] = ()
    ) -> None:
        if len(outgoing) > 300:
            raise DeliveryError("not acknowledged in time")
        publish(outgoing, next_offsets, state)

    worker.loop.delivery.publish = slowly  # type: ignore[method-assign]
    monkeypatch.setattr("worker.stream.loop.MAX_BACKOFF_MS", 0)

    worker.drain(200)

    assert "not acknowledged in 5 attempts" in worker.seen.lost[0]
    assert sum(stage.broker.offsets(GROUP).values()) == 2000
    assert_as_undisturbed(stage)


def test_what_was_committed_without_an_answer_is_not_read_again_when_its_batch_is_divided(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(guarantee="exactly_once").feed(traffic.messages(500))
    worker = stage.worker(stateful=False)
    monkeypatch.setattr("worker.stream.loop.MAX_BACKOFF_MS", 0)
    worker.loop.step()
    stage.broker.fail("transact", BrokerUnavailable("no answer"), after=True)
    stage.broker.fail("committed", BrokerUnavailable("no answer"), times=4)

    worker.drain()

    assert "not acknowledged in 5 attempts" in worker.seen.lost[0]
    assert len(stage.published("scores")) == len(stage.scored()) == 500


def test_an_outage_of_the_broker_divides_no_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(guarantee="exactly_once").feed(traffic.messages(500))
    worker = stage.worker(batch_size=1000)
    monkeypatch.setattr("worker.stream.loop.MAX_BACKOFF_MS", 0)
    stage.broker.fail("transact", BrokerUnavailable("no answer"))
    stage.broker.fail("build", BrokerUnavailable("no answer"), times=20)

    worker.drain()

    assert len(worker.seen.retries) == 22  # the answer that was lost, the outage, and a second question afterwards
    assert worker.seen.lost == []
    assert_as_undisturbed(stage)


def test_a_single_record_is_never_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage().feed(traffic.messages(1))
    worker = stage.worker(batch_size=1000)
    stage.broker.fail("flush", DeliveryError("not acknowledged"), times=12)
    monkeypatch.setattr("worker.stream.loop.MAX_BACKOFF_MS", 0)

    worker.drain()

    assert len(worker.seen.retries) == 12
    assert worker.seen.lost == []


@pytest.mark.parametrize(
    ("seconds", "size", "smaller"), [(5.0, 100, False), (10.0, 100, False), (20.0, 50, True), (1e9, 1, True)]
)
def test_the_next_batch_has_as_many_records_as_fit_into_the_time(seconds: float, size: int, smaller: bool) -> None:
    sizer = BatchSizer(max_records=100, max_batch_s=10.0)

    assert sizer.adapt(100, seconds) is smaller
    assert sizer.size == size


def test_a_small_batch_that_was_slow_makes_the_next_ones_no_larger() -> None:
    sizer = BatchSizer(max_records=100, max_batch_s=10.0)
    sizer.adapt(3, 30.0)

    assert sizer.size == 1
    assert [sizer.adapt(1, 1.0) or sizer.size for _ in range(8)] == [2, 4, 8, 16, 32, 64, 100, 100]
