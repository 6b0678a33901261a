"""`worker run` as a process on a real broker: nothing lost, nothing twice, errors that say what to do."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import orjson
import pytest

from devtools import traffic
from devtools.brokers import produce, read_all
from devtools.sites import Site
from tests.contracts import VALID_ALERT, VALID_SCORE
from tests.rollout.candidates import broken_scale
from worker.broker.admin import ensure_topics
from worker.broker.client import Connection
from worker.model.store.model_store import ModelStore
from worker.records import Outgoing

pytestmark = pytest.mark.broker

NASTY: list[bytes | None] = [
    b"",
    b"{",
    b"[1, 2]",
    b"null",
    b'"text"',
    b"\xff\xfe\x00",
    b'{"amount": NaN}',
    b'{"amount": 1e999}',
    b'{"amount": "much"}',
    b'{"amount": true}',
    b'{"at": "yesterday"}',
    b'{"merchant": 3}',
    b'{"a":' * 2000 + b"1" + b"}" * 2000,
    b'{"id": "' + b"x" * 1_500_000 + b'"}',
    None,
    b'{"amount": 1, "amount": 2}',
    b'{"amount": 1e300}',
    b"{}",
]
TOMBSTONES = 1
SCORED = 3


@pytest.fixture
def make_site(connection: Connection, tmp_path: Path, group: str) -> Iterator[Callable[..., Site]]:
    with ExitStack() as stack:

        def make(partitions: int = 2, **settings: str) -> Site:
            site = Site(tmp_path, connection, f"in-{group}", **settings)
            stack.callback(site.close)
            topics = {site.input_topic: partitions, site.alerts: 1, site.dead_letters: 1, site.scores: 2}
            ensure_topics(connection, topics, configs={"max.message.bytes": "3000000"})
            return site

        yield make


def places(site: Site, topic: str) -> Counter[tuple[int, int]]:
    """Where the scored records stand in the input topic, and how often each was published."""
    sources = [orjson.loads(record.value or b"")["source"] for record in read_all(site.connection, topic)]
    return Counter((source["partition"], source["offset"]) for source in sources)


def test_without_a_model_it_says_so_is_not_ready_and_starts_when_one_appears(make_site: Callable[..., Site]) -> None:
    site = make_site()
    produce(site.connection, [Outgoing(site.input_topic, m.key, m.value) for m in traffic.messages(300)])
    worker = site.start()
    worker.wait_for("waiting for a model")

    site.put_model()
    site.wait_until_drained()

    assert worker.stop() == 0
    assert len(places(site, site.scores)) == 300


def test_bad_input_of_every_kind_is_dead_lettered_and_its_neighbours_are_scored(make_site: Callable[..., Site]) -> None:
    site = make_site(partitions=1, WORKER_BREAKER__CONSECUTIVE="0")
    site.put_model()
    good = [message.value for message in traffic.messages(100)]
    values = [*good[:50], *NASTY, *good[50:]]
    produce(site.connection, [Outgoing(site.input_topic, b"key", v, (("trace", b"1"),)) for v in values])
    worker = site.start()
    site.wait_until_drained()

    assert worker.stop() == 0, worker.log.read_text()
    dead = read_all(site.connection, site.dead_letters)
    scored = places(site, site.scores)
    assert set(scored.values()) == {1}
    assert len(scored) == len(good) + SCORED
    assert len(dead) == len(NASTY) - SCORED - TOMBSTONES
    for record in dead:
        headers = dict(record.headers)
        offset = int(headers["source.offset"] or b"")
        assert (record.value, record.key) == (values[offset], b"key")
        assert headers["trace"] == b"1"
        assert headers["error.code"]
        assert headers["error.detail"]
        assert (0, offset) not in scored


def test_published_alerts_and_scores_follow_their_schemas(make_site: Callable[..., Site]) -> None:
    site = make_site()
    site.put_model()
    produce(site.connection, [Outgoing(site.input_topic, m.key, m.value) for m in traffic.messages(1500)])
    worker = site.start()
    site.wait_until_drained()

    assert worker.stop() == 0
    alerts = read_all(site.connection, site.alerts)
    assert len(alerts) >= 10
    for record in alerts:
        VALID_ALERT.validate(orjson.loads(record.value or b""))
        assert dict(record.headers)["model.version"] == traffic.bundle().version.encode()
        assert record.key is not None
    for record in read_all(site.connection, site.scores):
        VALID_SCORE.validate(orjson.loads(record.value or b""))


def test_killed_in_mid_stream_it_loses_nothing_and_repeats_only_the_same_alert_ids(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(WORKER_BATCH__SIZE="64")
    site.put_model()
    records = [Outgoing(site.input_topic, m.key, m.value) for m in traffic.messages(6000)]
    produce(site.connection, records[:3000])
    for _ in range(3):
        before = sum(site.committed().values())
        worker = site.start()
        site.wait_until_beyond(before)
        worker.kill()
    produce(site.connection, records[3000:])
    worker = site.start()
    site.wait_until_drained()

    assert worker.stop() == 0
    scored = places(site, site.scores)
    assert len(scored) == 6000
    ids: dict[str, set[tuple[int, int]]] = {}
    for record in read_all(site.connection, site.alerts):
        alert = orjson.loads(record.value or b"")
        ids.setdefault(alert["alert_id"], set()).add((alert["source"]["partition"], alert["source"]["offset"]))
    assert all(len(records) == 1 for records in ids.values())
    assert len({place for records in ids.values() for place in records}) == len(ids)


def test_a_bad_version_that_was_forced_in_is_rolled_back_in_the_store_and_nothing_is_lost(
    make_site: Callable[..., Site],
) -> None:
    # Several batches at least: a slow machine could score all records by one version otherwise.
    site = make_site(
        WORKER_MODEL_CANARY_RECORDS="5000",
        WORKER_MODEL_SHADOW=traffic.bundle(1).version,
        WORKER_BATCH__SIZE="500",
    )
    site.put_model()
    bad, store = broken_scale(traffic.bundle(1), 0.1), ModelStore(site.folder / "models")
    store.save(traffic.bundle(1))
    worker = site.start()
    worker.wait_for("rebalanced")

    store.save(bad)
    store.promote(bad.version)
    worker.wait_for("model on canary")
    produce(site.connection, [Outgoing(site.input_topic, m.key, m.value) for m in traffic.messages(6000)])
    worker.wait_for("model rolled back in the store")
    site.wait_until_drained()

    assert worker.stop() == 0, worker.log.read_text()
    assert worker.said("times those of its calibration")
    assert store.current() == traffic.bundle().version
    assert store.marks()[bad.version].by == "worker"
    assert set(places(site, site.scores).values()) == {1}
    assert len(places(site, site.scores)) == 6000
    scores = [orjson.loads(record.value or b"") for record in read_all(site.connection, site.scores)]
    assert {score["model_version"] for score in scores} == {traffic.bundle().version, bad.version}


def test_a_worker_that_starts_soon_after_a_promotion_puts_the_version_on_canary(
    make_site: Callable[..., Site],
) -> None:
    site = make_site()
    site.put_model(0)
    site.put_model(1)
    worker = site.start()

    worker.wait_for("model on canary")

    assert worker.said(traffic.bundle(0).version)
    assert worker.stop() == 0


def test_a_model_of_another_schema_is_refused_with_both_fingerprints(make_site: Callable[..., Site]) -> None:
    site = make_site()
    site.put_model()
    (site.folder / "schema.toml").write_text('[fields.amount]\nkind = "numeric"\n')

    done = site.run("run")

    assert done.returncode == 1
    assert traffic.bundle().schema.fingerprint in done.stderr
    assert "Traceback" not in done.stderr


def test_a_stream_that_is_all_bad_stops_the_worker_with_its_own_code_and_keeps_the_offsets(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(partitions=1, WORKER_BREAKER__CONSECUTIVE="100")
    site.put_model()
    produce(site.connection, [Outgoing(site.input_topic, None, b"not json")] * 200)

    done = site.run("run")

    assert done.returncode == 3
    assert "WORKER_BREAKER__CONSECUTIVE" in done.stderr
    assert read_all(site.connection, site.dead_letters) == []
    assert site.committed() == {}


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"WORKER_BATCH__SIZE": "0"}, "WORKER_BATCH__SIZE"),
        ({"WORKER_BACTH__SIZE": "9"}, "WORKER_BATCH__SIZE"),
        ({"WORKER_SCHEMA_FILE": "none.toml"}, "none.toml"),
        ({"WORKER_DEVICE": "cuda:99"}, "WORKER_DEVICE"),
    ],
)
def test_wrong_settings_are_one_clear_line(tmp_path: Path, settings: dict[str, str], complaint: str) -> None:
    site = Site(tmp_path, Connection("127.0.0.1:1"), "nowhere")
    site.put_model()

    done = site.run("run", settings=settings)

    assert done.returncode == 1
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_train_once_from_a_file_and_from_the_topic_put_a_current_model_into_the_store(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(WORKER_MODEL__OPTIONS='{"steps": 200}', WORKER_TRAIN__MIN_RECORDS="500")
    history = [orjson.dumps(row) for row in traffic.rows(1200)]
    (site.folder / "history.jsonl").write_bytes(b"\n".join(history) + b"\n")
    produce(site.connection, [Outgoing(site.input_topic, None, value) for value in history])

    from_file = site.run("train", "--once", "--from", "history.jsonl", "--schema", "schema.toml")
    from_topic = site.run("train", "--once")
    listed = site.run("models", "list")

    assert from_file.returncode == 0, from_file.stderr
    assert from_topic.returncode == 0, from_topic.stderr
    assert "is current" in from_topic.stdout
    assert listed.stdout.count("history.jsonl") == 1
    assert listed.stdout.count("*") == 1


def test_a_store_that_can_not_be_written_is_said_before_the_fit(tmp_path: Path) -> None:
    site = Site(tmp_path, Connection("127.0.0.1:1"), "nowhere")
    (tmp_path / "taken").write_text("")
    (tmp_path / "history.jsonl").write_bytes(b"\n".join(orjson.dumps(row) for row in traffic.rows(1200)))

    done = site.run(
        "train",
        "--once",
        "--from",
        "history.jsonl",
        settings={"WORKER_MODEL_STORE": str(tmp_path / "taken" / "models")},
    )

    assert done.returncode == 1
    assert "can't be written" in done.stderr
    assert "Traceback" not in done.stderr
