"""`worker run` as a process, killed in mid-stream: scores, thresholds and alerts as if nothing had happened."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from devtools import traffic
from devtools.brokers import produce, read_all
from devtools.sites import Site
from worker.broker.client import Connection
from worker.pipeline import Model
from worker.processes.wiring import make_pipeline
from worker.records import Message, Outgoing
from worker.settings.tree import Settings, ThresholdSettings

RECORDS = 9_000
PARTITIONS = 2
KILLS = 3
THRESHOLD = ThresholdSettings(quantile=0.97, window=1000, stride=64)

pytestmark = pytest.mark.broker


@pytest.fixture(params=["at_least_once", pytest.param("exactly_once", marks=pytest.mark.kafka)])
def site(request: pytest.FixtureRequest, connection: Connection, tmp_path: Path, group: str) -> Iterator[Site]:
    settings = {
        "WORKER_DELIVERY": request.param,
        "WORKER_INSTANCE_ID": f"{group}-0",
        "WORKER_BATCH__SIZE": "100",
        "WORKER_KAFKA__STATE_TOPIC": f"in-{group}-state",
        **{
            f"WORKER_THRESHOLD__{name.upper()}": str(value)
            for name, value in THRESHOLD.model_dump(exclude_none=True).items()
        },
    }
    with closing(Site(tmp_path, connection, f"in-{group}", **settings)) as site:
        site.create_topics(PARTITIONS)
        yield site


def documents(site: Site, topic: str) -> list[dict[str, Any]]:
    read_committed = site.environment["WORKER_DELIVERY"] == "exactly_once"
    return [orjson.loads(r.value or b"") for r in read_all(site.connection, topic, read_committed=read_committed)]


def place(document: dict[str, Any]) -> tuple[int, int]:
    return document["source"]["partition"], document["source"]["offset"]


def test_killed_again_and_again_it_scores_and_alerts_like_an_undisturbed_run(site: Site) -> None:
    site.put_model()
    messages: list[Message] = traffic.messages(RECORDS, partitions=PARTITIONS, topic=site.input_topic)
    produce(
        site.connection, [Outgoing(m.topic, m.key, m.value, partition=m.partition) for m in messages], timeout_s=90.0
    )
    for _ in range(KILLS):
        before = sum(site.committed().values())
        worker = site.start()
        site.wait_until_beyond(before + RECORDS // (2 * KILLS))
        worker.kill()
    worker = site.start()
    site.wait_until_drained()

    assert worker.stop() == 0, worker.log.read_text()
    assert worker.said("threshold restored")
    outcome = make_pipeline(Settings(threshold=THRESHOLD), Model(traffic.bundle())).process(messages)
    scores = outcome.scores
    rows = zip(scores.messages, scores.score.tolist(), scores.threshold.tolist(), strict=True)
    published = documents(site, site.scores)
    assert {place(score): (score["score"], score["threshold"]) for score in published} == {
        (message.partition, message.offset): (score, threshold) for message, score, threshold in rows
    }
    assert len({(place(score), score["threshold"]) for score in published}) == RECORDS
    alerts = [alert["alert_id"] for alert in documents(site, site.alerts)]
    assert set(alerts) == {alert.alert_id for alert in outcome.alerts}
    if site.environment["WORKER_DELIVERY"] == "exactly_once":
        assert len(published) == RECORDS
        assert len(alerts) == len(set(alerts))
