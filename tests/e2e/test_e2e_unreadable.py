"""`worker` against a topic that somebody else writes: poisoned headers, large records, bombs. Memory is the batch's."""

from collections.abc import Iterator
from pathlib import Path

import kafka
import pytest

from devtools import traffic
from devtools.brokers import produce, read_all
from devtools.sites import Site, WorkerProcess
from worker.broker.client import Connection
from worker.broker.record_batch import HeaderName
from worker.records import Outgoing

pytestmark = [pytest.mark.broker, pytest.mark.kafka]

POISON = HeaderName(b"\xff\xfe\xfd")
GOOD = [message.value or b"" for message in traffic.messages(400)]
LARGE = 40
MIB = 1 << 20


@pytest.fixture
def site(connection: Connection, tmp_path: Path, group: str) -> Iterator[Site]:
    site = Site(
        tmp_path,
        connection,
        f"in-{group}",
        WORKER_BATCH__MAX_BYTES=str(2 * MIB),
        WORKER_KAFKA__MAX_UNPACKED_BYTES=str(64 * MIB),
    )
    site.create_topics()
    yield site
    site.close()


def padded(value: bytes, size: int) -> bytes:
    return value[:-1] + b', "pad": "' + b"x" * (size - len(value)) + b'"}'


def produce_compressed(site: Site, values: list[bytes]) -> None:
    """All in one record batch, gzip."""
    producer = kafka.KafkaProducer(
        bootstrap_servers=site.connection.bootstrap_servers,
        compression_type="gzip",
        linger_ms=5000,
        batch_size=1 << 30,
        max_request_size=1 << 30,
    )
    for value in values:
        producer.send(site.input_topic, value)
    producer.flush()
    producer.close()


def peak_bytes(worker: WorkerProcess) -> int:
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def test_poison_and_bombs_cost_themselves_alone_and_memory_is_that_of_a_batch(site: Site) -> None:
    site.put_model()
    topic = site.input_topic
    produce(site.connection, [Outgoing(topic, b"k", value) for value in GOOD])
    worker = site.start()
    site.wait_until_drained()
    before = peak_bytes(worker)

    produce(site.connection, [Outgoing(topic, b"k", value, ((POISON, b"1"),)) for value in (GOOD[0], b"{broken")])
    produce_compressed(site, [padded(value, 990_000) for value in GOOD[:LARGE]])
    produce_compressed(site, [GOOD[0], bytes(100 * MIB), GOOD[1]])
    produce(site.connection, [Outgoing(topic, b"k", value) for value in GOOD[:10]])
    site.wait_until_drained()

    peak = peak_bytes(worker)
    assert worker.stop() == 0, worker.log.read_text()
    bomb = len(GOOD) + 2 + LARGE + 1
    assert worker.said(f'"first_offset":{bomb},"last_offset":{len(GOOD) + 2 + LARGE + 2}')
    assert worker.count("records that can't be read are passed over") == 1
    assert worker.said("bytes, more than 16777216")
    dead = read_all(site.connection, site.dead_letters)
    assert [record.value for record in dead] == [b"{broken"]
    assert dead[0].headers[0][0].encode() == POISON.encode()
    assert len(read_all(site.connection, site.scores)) == len(GOOD) + 1 + LARGE + 1 + 10
    assert peak - before < 64 * MIB


def test_train_and_replay_pass_over_the_same_and_say_so(site: Site) -> None:
    topic = site.input_topic
    produce(site.connection, [Outgoing(topic, b"k", value, ((POISON, b"1"),)) for value in GOOD])
    produce_compressed(site, [GOOD[0], bytes(20 * MIB), GOOD[1]])
    words = f"offsets {len(GOOD) + 1} to {len(GOOD) + 1} of {topic}[0] can't be read"
    quick = {"WORKER_TRAIN__MIN_RECORDS": "100", "WORKER_MODEL__OPTIONS": '{"steps": 20}'}

    trained = site.run("train", "--once", settings=quick)
    replayed = site.run("replay", "--topic", topic, "--out", "out")

    assert trained.returncode == 0, trained.stderr
    assert words in trained.stderr
    assert replayed.returncode == 0, replayed.stderr
    assert words in replayed.stdout + replayed.stderr


def test_what_cannot_be_read_stops_a_worker_that_may_pass_over_nothing(site: Site) -> None:
    site.put_model()
    produce_compressed(site, [bytes(100 * MIB)])

    worker = site.start(settings={"WORKER_KAFKA__UNREADABLE": "stop"})

    assert worker.wait() == 1
    assert worker.said(f"offsets 0 to 0 of {site.input_topic}[0] can't be read: a record unpacks to 1048576")
    assert worker.said("WORKER_KAFKA__UNREADABLE = skip")
