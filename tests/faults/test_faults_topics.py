"""`worker run` while its topic, the topic's partitions and its group's offsets change, on Apache Kafka."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import orjson
import pytest
from kafka import TopicPartition
from kafka.admin import NewPartitions

from devtools import traffic
from devtools.brokers import JOIN_FAST, eventually, free_ports, produce, read_all
from devtools.sites import Site
from worker.broker.admin import ensure_topics, topic_partitions
from worker.broker.client import Connection, admin_client, build_producer
from worker.records import Message, Outgoing

pytestmark = pytest.mark.kafka
QUICK = {"WORKER_KAFKA__OPTIONS": json.dumps({**JOIN_FAST, "metadata_max_age_ms": 500})}


@pytest.fixture
def site(connection: Connection, tmp_path: Path, group: str) -> Iterator[Site]:
    with closing(Site(tmp_path, connection, f"in-{group}", **QUICK)) as here:
        here.create_topics()
        here.put_model()
        yield here


def feed(site: Site, messages: list[Message]) -> None:
    produce(site.connection, [Outgoing(site.input_topic, None, m.value, partition=m.partition) for m in messages])


def documents(site: Site, topic: str) -> list[dict[str, Any]]:
    return [orjson.loads(record.value or b"") for record in read_all(site.connection, topic)]


def places(site: Site) -> list[tuple[int, int]]:
    """Where the records stood that were scored, in the order of their scores."""
    return [(score["source"]["partition"], score["source"]["offset"]) for score in documents(site, site.scores)]


def wait_for_scores(site: Site, count: int) -> None:
    eventually(lambda: len(places(site)) >= count, 60, f"{count} scores")


def recreate(site: Site, partitions: int = 1) -> None:
    with admin_client(site.connection) as admin:
        admin.delete_topics([site.input_topic])
    eventually(lambda: site.input_topic not in topic_partitions(site.connection), 30, "it is gone")
    ensure_topics(site.connection, {site.input_topic: partitions})


def test_from_the_end_on_and_all_of_what_is_added_later(site: Site, connection: Connection) -> None:
    feed(site, traffic.messages(50))
    latest = {"WORKER_KAFKA__START_FROM": "latest"}
    worker = site.start(settings=latest)
    worker.wait_for("partitions begin")
    feed(site, traffic.messages(30))
    wait_for_scores(site, 30)
    with admin_client(connection) as admin:
        admin.create_partitions({site.input_topic: NewPartitions(3)})
    feed(site, [message for message in traffic.messages(90, partitions=3) if message.partition == 1])
    wait_for_scores(site, 60)
    assert worker.stop() == 0
    feed(site, [message for message in traffic.messages(90, partitions=3) if message.partition == 2])

    site.start(settings=latest)
    wait_for_scores(site, 90)

    assert sorted(places(site)) == [
        *((0, offset) for offset in range(50, 80)),
        *((1, offset) for offset in range(30)),
        *((2, offset) for offset in range(30)),
    ]


def test_a_topic_that_is_created_again_is_waited_for_and_has_other_alert_ids_as_replay_has(site: Site) -> None:
    (port,) = free_ports(1)
    messages = traffic.messages(400)
    feed(site, messages)
    worker = site.start(settings={"WORKER_HTTP__PORT": str(port)})
    wait_for_scores(site, 400)
    with admin_client(site.connection) as admin:
        admin.delete_topics([site.input_topic])
    worker.wait_for("there is no such topic")
    assert site.input_topic in readiness(port)
    ensure_topics(site.connection, {site.input_topic: 1})
    feed(site, messages)

    wait_for_scores(site, 800)

    eventually(lambda: sum(site.committed().values()) == 400, 30, "committed")
    assert worker.stop() == 0
    assert places(site) == [(0, offset) for offset in range(400)] * 2
    assert worker.said("is of the topic")
    alerts = documents(site, site.alerts)
    ids = [alert["alert_id"] for alert in alerts]
    first, second = ids[: len(ids) // 2], ids[len(ids) // 2 :]
    assert first
    assert not set(first) & set(second)
    assert [alert["score"] for alert in alerts[: len(first)]] == [alert["score"] for alert in alerts[len(first) :]]
    done = site.run("replay", "--topic", site.input_topic, "--out", "out")
    assert done.returncode == 0, done.stderr
    lines = (site.folder / "out" / "alerts.jsonl").read_bytes().splitlines()
    assert [orjson.loads(line)["alert_id"] for line in lines] == second


def readiness(port: int) -> str:
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return str(answer.read())
    except OSError as error:
        return str(error.read()) if hasattr(error, "read") else str(error)


def test_offsets_that_were_deleted_after_the_first_batches_are_read_from_the_beginning(site: Site) -> None:
    feed(site, traffic.messages(300))
    worker = site.start()
    wait_for_scores(site, 300)
    eventually(lambda: sum(site.committed().values()) == 300, 30, "committed")
    assert worker.stop() == 0
    with admin_client(site.connection) as admin:
        admin.delete_group_offsets(site.group, [TopicPartition(site.input_topic, 0)])

    again = site.start()
    wait_for_scores(site, 600)

    assert places(site) == [(0, offset) for offset in range(300)] * 2
    assert again.said("the group's committed offset is None")


@pytest.mark.parametrize(
    ("settings", "is_left_out"),
    [({}, True), ({"WORKER_KAFKA__ISOLATION_LEVEL": "read_uncommitted"}, False)],
    ids=["default", "uncommitted"],
)
def test_worker_and_replay_leave_out_the_same_aborted_records(
    site: Site, settings: dict[str, str], is_left_out: bool
) -> None:
    values = [message.value for message in traffic.messages(90)]
    producer = build_producer(site.connection, transactional_id=f"{site.group}-{is_left_out}")
    producer.init_transactions()
    for part, end in ((values[:30], "commit"), (values[30:60], "abort"), (values[60:], "commit")):
        producer.begin_transaction()
        for value in part:
            producer.send(site.input_topic, value, partition=0)
        producer.flush()
        getattr(producer, f"{end}_transaction")()
    producer.close()
    expected = 60 if is_left_out else 90

    worker = site.start(settings=settings)
    wait_for_scores(site, expected)
    eventually(lambda: sum(site.committed().values()) >= 92, 30, "all is committed")

    assert worker.stop() == 0
    assert len(places(site)) == expected
    done = site.run("replay", "--topic", site.input_topic, "--out", "out", settings=settings)
    assert done.returncode == 0, done.stderr
    assert orjson.loads((site.folder / "out" / "metrics.json").read_bytes())["scored"] == expected
