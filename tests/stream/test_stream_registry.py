"""A schema registry that is away holds the batch; nothing of the topic becomes a dead letter for it."""

import pytest

from devtools import traffic
from devtools.stage import GROUP, Guarantee, Stage, assert_as_undisturbed
from worker.errors import RegistryUnavailable
from worker.records import RawMessage


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_a_batch_whose_schemas_can_not_be_asked_for_waits_as_it_is(
    guarantee: Guarantee, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(guarantee=guarantee).feed(traffic.messages(600))
    worker = stage.worker()
    process = worker.loop.pipeline.process
    failures = [RegistryUnavailable("away")] * 3

    def process_or_fail(messages: list[RawMessage], detected_at: str | None = None) -> object:
        if failures:
            raise failures.pop()
        return process(messages, detected_at)

    monkeypatch.setattr(worker.loop.pipeline, "process", process_or_fail)
    worker.loop.step()

    assert stage.broker.offsets(GROUP) == {}
    assert [str(error) for error in worker.seen.retries] == ["away"]
    worker.drain()
    assert len(worker.seen.retries) == 3
    assert_as_undisturbed(stage)


def test_records_that_wait_for_a_schema_are_left_to_the_new_owner_of_their_partition(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(partitions=2).feed(traffic.messages(2000, partitions=2))
    first, second = stage.worker("a"), stage.worker("b")
    process, away = first.loop.pipeline.process, [True]

    def process_or_fail(messages: list[RawMessage], detected_at: str | None = None) -> object:
        if away[0]:
            raise RegistryUnavailable("away")
        return process(messages, detected_at)

    monkeypatch.setattr(first.loop.pipeline, "process", process_or_fail)
    for _ in range(3):
        first.loop.step()
        second.loop.step()
    away[0] = False
    while not stage.is_drained():
        second.loop.step()
        first.loop.step()

    assert len(first.seen.owned) == len(second.seen.owned) == 1
    assert_as_undisturbed(stage)
