"""One worker on several topics with different numbers of partitions: nothing is lost, and each has its thresholds."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from devtools import traffic
from devtools.brokers import produce, read_all
from devtools.sites import Site
from worker.broker.admin import ensure_topics, topic_partitions
from worker.broker.client import Connection
from worker.broker.topic_ids import begin_at_end
from worker.pipeline import Model
from worker.processes.wiring import make_pipeline
from worker.records import Message, Outgoing, Partition
from worker.settings import Settings, ThresholdSettings

THRESHOLD = ThresholdSettings(quantile=0.99, window=500, stride=64)
RECORDS = 2000  # of each topic
PARTITIONS = {"eu": 1, "us": 3, "later": 2}

pytestmark = pytest.mark.kafka


@pytest.fixture(params=["list", "pattern"])
def site(request: pytest.FixtureRequest, connection: Connection, tmp_path: Path, group: str) -> Iterator[Site]:
    named = f"in-{group}.us,in-{group}.eu" if request.param == "list" else rf"^in-{group}\.(us|eu|later)$"
    settings = {
        "WORKER_KAFKA__INPUT_TOPIC": named,
        "WORKER_DELIVERY": "exactly_once",
        "WORKER_INSTANCE_ID": f"{group}-0",
        "WORKER_BATCH__SIZE": "100",
        "WORKER_KAFKA__STATE_TOPIC": f"state-{group}",
        **{
            f"WORKER_THRESHOLD__{name.upper()}": str(value)
            for name, value in THRESHOLD.model_dump(exclude_none=True).items()
        },
    }
    with closing(Site(tmp_path, connection, f"in-{group}", **settings)) as site:
        ensure_topics(connection, {site.alerts: 1, site.dead_letters: 1, site.scores: 1})
        site.input_topic = named
        site.put_model()
        yield site


def fill(site: Site, group: str, name: str) -> list[Message]:
    """Creates a topic with its records, which are others than those of another topic."""
    topic = f"in-{group}.{name}"
    ensure_topics(site.connection, {topic: PARTITIONS[name]})
    seed = 1 + list(PARTITIONS).index(name)
    messages = traffic.messages(RECORDS, partitions=PARTITIONS[name], seed=seed, topic=topic)
    produce(site.connection, [Outgoing(m.topic, m.key, m.value, partition=m.partition) for m in messages], 90.0)
    return messages


def documents(site: Site, topic: str) -> list[dict[str, Any]]:
    return [orjson.loads(r.value or b"") for r in read_all(site.connection, topic, read_committed=True)]


def test_killed_in_between_every_topic_and_partition_is_scored_as_undisturbed_and_once(site: Site, group: str) -> None:
    messages = fill(site, group, "eu") + fill(site, group, "us")
    worker = site.start()
    site.wait_until_beyond(RECORDS)
    worker.kill()
    worker = site.start()
    site.wait_until_beyond(RECORDS * 3 // 2)
    if site.input_topic.startswith("^"):  # one that appears while the worker runs
        messages += fill(site, group, "later")
    site.wait_until_drained()

    assert worker.stop() == 0, worker.log.read_text()
    assert worker.said("threshold restored")
    outcome = make_pipeline(Settings(threshold=THRESHOLD), Model(traffic.bundle())).process(messages)
    scores = outcome.scores
    published = documents(site, site.scores)
    assert sorted(
        (
            score["source"]["topic"],
            score["source"]["partition"],
            score["source"]["offset"],
            score["score"],
            score["threshold"],
        )
        for score in published
    ) == sorted(
        (message.topic, message.partition, message.offset, score, threshold)
        for message, score, threshold in zip(
            scores.messages, scores.score.tolist(), scores.threshold.tolist(), strict=True
        )
    )
    alerts = [alert["alert_id"] for alert in documents(site, site.alerts)]
    assert sorted(alerts) == sorted(alert.alert_id for alert in outcome.alerts)
    assert topic_partitions(site.connection)[site.environment["WORKER_KAFKA__STATE_TOPIC"]] == 3


def test_a_group_that_begins_at_the_end_does_so_in_all_topics_and_reads_later_ones_whole(
    connection: Connection, group: str
) -> None:
    first, second, later = (f"{name}-{group}" for name in ("first", "second", "later"))
    ensure_topics(connection, {first: 1, second: 2})
    produce(connection, [Outgoing(topic, None, b"{}", partition=0) for topic in (first, second) for _ in range(5)])

    assert begin_at_end(connection, f"{first},{second}", group) == {
        Partition(first, 0): 5,
        Partition(second, 0): 5,
        Partition(second, 1): 0,
    }
    ensure_topics(connection, {later: 1})
    assert begin_at_end(connection, f"{first},{second},{later}", group) == {}
