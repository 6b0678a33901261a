"""A scorer that is slower than the group's patience, on Apache Kafka: heartbeats go on, batches shrink, it ends."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import pytest

from devtools import traffic
from devtools.kafka_stage import KafkaStage, step_until
from devtools.stage import Worker, assert_as_undisturbed
from worker.broker.client import Connection
from worker.records import Outcome, RawMessage

pytestmark = [pytest.mark.broker, pytest.mark.kafka]

SESSION_S, POLL_INTERVAL_S = 2.0, 3.0
HASTY = {"session_timeout_ms": 2000, "heartbeat_interval_ms": 200}


@contextmanager
def hasty_group(connection: Connection, group: str, **options: int) -> Iterator[KafkaStage]:
    stage = KafkaStage(
        Connection(connection.bootstrap_servers, options={**HASTY, **options}), group, "exactly_once", "range"
    )
    with closing(stage.open):
        yield stage


def slow_worker(stage: KafkaStage, record_s: float) -> tuple[Worker, list[int]]:
    """A worker whose model needs so long for a record, and the sizes of its batches."""
    worker = stage.worker(batch_size=1000, max_batch_s=POLL_INTERVAL_S / 4)
    sizes: list[int] = []
    process = worker.pipeline.process

    def slowly(messages: Sequence[RawMessage], detected_at: str | None = None) -> Outcome:
        sizes.append(len(messages))
        time.sleep(len(messages) * record_s)
        return process(messages, detected_at)

    worker.pipeline.process = slowly  # type: ignore[method-assign]
    return worker, sizes


def test_a_batch_longer_than_the_session_costs_no_membership(connection: Connection, group: str) -> None:
    with hasty_group(connection, group) as stage:
        stage.feed(traffic.messages(100, partitions=4))
        worker, sizes = slow_worker(stage, record_s=1.25 * SESSION_S / 100)

        step_until([worker], stage.is_drained, "all committed")

        assert max(sizes) * 1.25 * SESSION_S / 100 > SESSION_S
        assert worker.seen.lost == []
        assert_as_undisturbed(stage)


def test_a_batch_longer_than_the_poll_interval_is_read_again_in_smaller_ones(
    connection: Connection, group: str
) -> None:
    with hasty_group(connection, group, max_poll_interval_ms=int(POLL_INTERVAL_S * 1000)) as stage:
        stage.feed(traffic.messages(400, partitions=4))
        worker, sizes = slow_worker(stage, record_s=1.5 * POLL_INTERVAL_S / 400)

        step_until([worker], stage.is_drained, "all committed")

        assert max(sizes) > 300
        assert worker.seen.lost
        assert max(sizes[sizes.index(max(sizes)) + 1 :]) < 100
        assert_as_undisturbed(stage)
