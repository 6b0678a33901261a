"""Open groups and rate limits travel with their partition: whoever dies when, the published alerts are the same."""

from collections.abc import Sequence

import pytest

from devtools import stage as stages
from devtools.grouping import GROUPING, bursts, make
from devtools.memory_broker import Action
from devtools.stage import Guarantee, Killed, Stage
from worker.alerts.encode import encode_alert
from worker.records import Message

DETECTED_AT = "2026-01-01T00:00:00.000Z"


@pytest.fixture(autouse=True)
def _with_grouping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "make_pipeline", lambda *_: make(grouping=GROUPING))


def undisturbed(messages: Sequence[Message]) -> set[bytes]:
    return {encode_alert(alert) for alert in make().process(messages, DETECTED_AT).alerts}


def published(stage: Stage) -> list[bytes]:
    return [message.value or b"" for message in stage.records("alerts")]


@pytest.mark.parametrize(
    ("action", "skip", "after"),
    [("flush", 0, False), ("flush", 0, True), ("flush", 1, True), ("commit", 0, False), ("commit", 0, True)],
)
def test_killed_at_any_step_the_next_worker_publishes_what_an_undisturbed_one_would(
    action: Action, skip: int, after: bool
) -> None:
    messages = bursts(partitions=1)
    stage = Stage().feed(messages)
    for size in (90, 130, 170):
        worker = stage.worker(batch_size=size)
        for _ in range(2):
            worker.loop.step()
        stage.broker.fail(action, Killed(), after=after, skip=skip)
        with pytest.raises(Killed):
            worker.loop.step()
        worker.die()

    last = stage.worker().drain()

    assert last.seen.rebuilt == {}
    assert set(published(stage)) == undisturbed(messages)


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_partitions_that_change_owners_take_their_groups_along(guarantee: Guarantee) -> None:
    messages = bursts(partitions=3)
    stage = Stage(partitions=3, guarantee=guarantee).feed(messages)
    first, second = stage.worker("a", batch_size=60), stage.worker("b", batch_size=60)
    for _ in range(4):
        first.loop.step()
    for _ in range(5):
        second.loop.step()
        first.loop.step()
    second.die()

    first.drain()

    assert second.seen.batches > 0
    assert set(published(stage)) == undisturbed(messages)
    assert len(published(stage)) == len(set(published(stage)))
