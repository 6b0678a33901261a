"""A node of two dies: leaders and coordinators move to the other one, and the worker follows them."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from kafka.protocol.metadata import CoordinatorType

from devtools import traffic
from devtools.brokers import JOIN_FAST, KAFKA_HOME
from devtools.kafka_stage import KafkaStage, step_until
from devtools.stage import Guarantee, Worker, assert_as_undisturbed
from tests.faults.cluster import Cluster
from worker.broker.client import Connection

pytestmark = [pytest.mark.broker, pytest.mark.kafka]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with closing(Cluster(Path(KAFKA_HOME or ""), tmp_path)) as cluster:
        yield cluster


def make_stage(cluster: Cluster, guarantee: Guarantee) -> tuple[KafkaStage, Worker]:
    """Its group, and the id of its transactions, are coordinated by the node that will die."""
    link = Connection(cluster.bootstrap_servers, options={**JOIN_FAST, "request_timeout_ms": 5000})
    group = cluster.led_by_the_second(CoordinatorType.GROUP, f"{guarantee}-{{}}-group")
    stage = KafkaStage(link, group.removesuffix("-group"), guarantee, "range")
    producer = cluster.led_by_the_second(CoordinatorType.TRANSACTION, f"{group}-worker-{{}}")
    stage.transaction_s = 6.0  # a client that waits for the node that died notices by this deadline
    stage.feed(traffic.messages(1200, partitions=4))
    return stage, stage.worker(producer.removeprefix(f"{group}-"), batch_size=50)


def test_leaders_and_coordinators_move_and_the_workers_go_on(cluster: Cluster) -> None:
    (once, first), (repeating, second) = (make_stage(cluster, kind) for kind in ("exactly_once", "at_least_once"))
    workers = [first, second]
    with closing(once.open), closing(repeating.open):
        step_until(workers, lambda: all(worker.seen.batches >= 10 for worker in workers), "a part is done")
        led_before = cluster.leaders(once.input)
        cluster.second.kill()
        step_until(workers, lambda: once.is_drained() and repeating.is_drained(), "all committed")

        assert set(led_before) == {1, 2}
        assert set(cluster.leaders(once.input)) == {1}
        assert set(cluster.coordinators(CoordinatorType.GROUP, [once.group, repeating.group]).values()) == {1}
        assert first.seen.rebuilt == second.seen.rebuilt == {}
        assert_as_undisturbed(once)
        assert_as_undisturbed(repeating)
