"""Real network connections (NSL-KDD) through a real broker: schema inferred, fitted on normal records, scored live."""

import os
from collections import Counter
from pathlib import Path

import orjson
import pytest
from sklearn.metrics import roc_auc_score

from devtools.brokers import produce, read_all
from devtools.sites import Site
from tests.contracts import VALID_ALERT
from worker.broker.admin import ensure_topics
from worker.broker.client import Connection
from worker.records import Outgoing

FILE = Path(os.environ.get("WORKER_TEST_DATA", "")) / "nsl_kdd_train20.jsonl.gz"
FITTED_ON = 2048
PARTITIONS = 4

pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(not FILE.is_file(), reason="needs nsl_kdd_train20.jsonl.gz in WORKER_TEST_DATA"),
    pytest.mark.timeout(400),
]


def test_attacks_rank_above_normal_connections(connection: Connection, group: str, tmp_path: Path) -> None:
    import gzip

    lines = gzip.decompress(FILE.read_bytes()).splitlines()
    labels = [orjson.loads(line)["label"] for line in lines]
    normal = [index for index, label in enumerate(labels) if not label][:FITTED_ON]
    (tmp_path / "normal.jsonl").write_bytes(b"\n".join(lines[index] for index in normal) + b"\n")
    site = Site(tmp_path, connection, f"connections-{group}")
    ensure_topics(
        connection, {site.input_topic: PARTITIONS, site.scores: PARTITIONS, site.alerts: 1, site.dead_letters: 1}
    )
    inferred = site.run("infer-schema", str(FILE), "--ignore", "label", "--ignore", "attack")
    assert inferred.returncode == 0, inferred.stderr
    (tmp_path / "schema.toml").write_text(inferred.stdout)
    fitted = site.run("train", "--once", "--from", "normal.jsonl")
    assert fitted.returncode == 0, fitted.stderr
    rest = [index for index in range(len(lines)) if index not in set(normal)]
    produce(connection, [Outgoing(site.input_topic, str(index).encode(), lines[index]) for index in rest], 120)
    worker = site.start()
    site.wait_until_drained(240)
    assert worker.stop() == 0, worker.log.read_text()

    label_at = {
        (record.partition, record.offset): orjson.loads(record.value or b"")["label"]
        for record in read_all(connection, site.input_topic)
    }
    scores = [orjson.loads(record.value or b"") for record in read_all(connection, site.scores)]
    dead = read_all(connection, site.dead_letters)
    alerts = [orjson.loads(record.value or b"") for record in read_all(connection, site.alerts)]
    places = Counter((score["source"]["partition"], score["source"]["offset"]) for score in scores)
    auc = roc_auc_score([label_at[place] for place in places], [score["score"] for score in scores])
    print(f"{len(places)} scored once, {len(dead)} dead letters, {len(alerts)} alerts, ROC-AUC {auc:.4f}")  # noqa: T201

    assert set(places.values()) == {1}
    assert set(places) == set(label_at)
    assert dead == []
    assert auc >= 0.98
    for alert in alerts:
        VALID_ALERT.validate(alert)
        assert any(reason["observed"] != reason["expected"] for reason in alert["explanation"])
