"""Members come and go on a real broker: each partition's thresholds go on with its new owner."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from devtools import traffic
from devtools.kafka_stage import PARTITIONS, KafkaStage, step_until
from devtools.stage import Guarantee, assert_as_undisturbed
from worker.broker.admin import ensure_compacted, ensure_topics
from worker.broker.client import Connection

pytestmark = pytest.mark.broker


@pytest.fixture
def make_stage(connection: Connection, group: str) -> Iterator[Callable[[Guarantee, str], KafkaStage]]:
    with ExitStack() as stack:

        def make(guarantee: Guarantee, assignor: str) -> KafkaStage:
            stage = KafkaStage(connection, group, guarantee, assignor)
            stack.enter_context(closing(stage.open))
            return stage

        yield make


@pytest.mark.kafka
def test_a_state_topic_with_another_policy_is_reported(connection: Connection, group: str) -> None:
    ensure_topics(connection, {f"{group}-in": 3, f"{group}-state": 1}, {"cleanup.policy": "delete"})

    assert "cleanup.policy=delete" in (ensure_compacted(connection, f"{group}-state", like=f"{group}-in") or "")


@pytest.mark.parametrize(
    ("guarantee", "assignor"),
    [
        ("at_least_once", "range"),
        pytest.param("at_least_once", "cooperative-sticky", marks=pytest.mark.kafka),
        pytest.param("exactly_once", "range", marks=pytest.mark.kafka),
        pytest.param("exactly_once", "cooperative-sticky", marks=pytest.mark.kafka),
    ],
)
def test_members_come_and_go_and_thresholds_follow_the_partitions(
    make_stage: Callable[[Guarantee, str], KafkaStage], guarantee: Guarantee, assignor: str
) -> None:
    stage = make_stage(guarantee, assignor)
    messages = traffic.messages(6000, partitions=PARTITIONS)
    stage.feed(messages[:2000])
    first = stage.worker("a")
    step_until([first], stage.is_drained, "the first part is done")
    second = stage.worker("b")
    step_until([first, second], lambda: len(first.seen.owned) == len(second.seen.owned) == 2, "both have partitions")
    stage.feed(messages[2000:4000])
    step_until([first, second], stage.is_drained, "the second part is done")
    second.die()
    stage.feed(messages[4000:])
    step_until([first], stage.is_drained, "the third part is done")

    assert first.seen.rebuilt == second.seen.rebuilt == {}
    assert len(second.seen.restored) == PARTITIONS // 2
    assert_as_undisturbed(stage)
    if assignor == "cooperative-sticky":
        assert len(first.seen.revoked) == PARTITIONS // 2
