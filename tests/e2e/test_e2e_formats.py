"""`worker run` and `worker train` on a real broker, where a value is more than one JSON object."""

import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import fastavro
import orjson
import pytest

from devtools import traffic
from devtools.brokers import produce_values, read_all
from devtools.registry import running_registry, with_id
from devtools.sites import Site
from tests.contracts import VALID_ALERT, VALID_SCORE
from worker.broker.client import Connection
from worker.formats.base import Row

pytestmark = pytest.mark.broker

COUNTRY = {"type": "record", "name": "Merchant", "fields": [{"name": "country", "type": "string"}]}
TYPES = {"id": "string", "amount": "double", "merchant": COUNTRY, "channel": "string", "online": "boolean"}
WRITER = {
    "type": "record",
    "name": "Payment",
    "fields": [{"name": name, "type": sort} for name, sort in {**TYPES, "at": "string"}.items()],
}


@pytest.fixture
def make_site(connection: Connection, tmp_path: Path, group: str) -> Iterator[Callable[..., Site]]:
    with ExitStack() as stack:

        def make(**settings: str) -> Site:
            site = Site(tmp_path, connection, f"in-{group}", **settings)
            stack.callback(site.close)
            site.create_topics()
            return site

        yield make


def avro(row: Row) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, WRITER, row)
    return out.getvalue()


def test_each_record_that_an_array_wraps_is_scored_once(make_site: Callable[..., Site]) -> None:
    site = make_site(WORKER_INPUT__UNFOLD="Records")
    site.put_model()
    rows = [orjson.loads(message.value or b"") for message in traffic.messages(600)]
    parts = [rows[at : at + 3] for at in range(0, len(rows), 3)]
    produce_values(site.connection, site.input_topic, [orjson.dumps({"Records": part}) for part in parts])
    worker = site.start()
    site.wait_until_drained()

    assert worker.stop() == 0
    scores = [orjson.loads(record.value or b"") for record in read_all(site.connection, site.scores)]
    places = Counter((score["source"]["offset"], score["source"]["member"]) for score in scores)
    assert places == Counter((at, member) for at in range(len(parts)) for member in range(3))
    alerts = [orjson.loads(record.value or b"") for record in read_all(site.connection, site.alerts)]
    assert len({alert["alert_id"] for alert in alerts}) == len(alerts) >= 5
    assert all(alert["record"] == parts[alert["source"]["offset"]][alert["source"]["member"]] for alert in alerts)
    for score in scores:
        VALID_SCORE.validate(score)
    for alert in alerts:
        VALID_ALERT.validate(alert)


def test_avro_is_learned_and_scored_once_a_registry_that_was_away_answers(make_site: Callable[..., Site]) -> None:
    with running_registry() as registry:
        number = registry.add("payments-value", json.dumps(WRITER))
        site = make_site(
            WORKER_KAFKA__FORMAT="avro",
            WORKER_REGISTRY__URL=registry.url,
            WORKER_TRAIN__MIN_RECORDS="500",
            WORKER_MODEL__OPTIONS='{"steps": 50}',
        )
        values = [with_id(number, avro(row)) for row in traffic.rows(800)]
        produce_values(site.connection, site.input_topic, [*values, with_id(number + 1, b"")])
        registry.away = True
        train = site.start("train")
        train.wait_for("can't answer: HTTP 503")
        registry.away = False
        train.wait_for("first model")
        registry.away = True
        run = site.start("run")
        run.wait_for("retrying, nothing is lost")
        registry.away = False
        site.wait_until_drained()

        assert (train.stop(), run.stop()) == (0, 0)
    scored = [
        orjson.loads(record.value or b"")["source"]["offset"] for record in read_all(site.connection, site.scores)
    ]
    assert scored == list(range(len(values)))
    (dead,) = read_all(site.connection, site.dead_letters)
    assert dict(dead.headers)["error.code"] == b"unknown_schema"
