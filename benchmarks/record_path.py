"""The record path on a real broker: python -m benchmarks.record_path (Apache Kafka where KAFKA_HOME is set).

Throughput: `worker run` as a process, from its first commit to its last, beside a bare KafkaConsumer.poll loop over the
same topic, in turn. Latency: from produce to the alert being readable, at a fifth of that throughput; producer, worker
and reader are processes of their own.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import orjson

from benchmarks.features import SCHEMA, make_messages
from benchmarks.poll import plain_consumer
from devtools.brokers import Broker, eventually, start_broker
from devtools.sites import Site
from worker.broker.admin import ensure_topics
from worker.broker.client import Connection, build_consumer, build_producer
from worker.broker.producer import AcknowledgedProducer
from worker.features.schema import parse_schema
from worker.model.learn import fit_bundle
from worker.model.network.fit import FitOptions
from worker.model.store.model_store import ModelStore
from worker.records import Outgoing

PARTITIONS = 4
BARE = "-m benchmarks.record_path --bare {servers} {topic} {records}"
PRODUCE = "-m benchmarks.record_path --produce {servers} {topic} {rate} {seconds}"
OUTLIER = 1e9


def bare_poll(servers: str, topic: str, records: int) -> None:
    """Prints the records/s of a loop that only polls, with large fetches."""
    consumer = plain_consumer(Connection(servers), group_id=None, auto_offset_reset="earliest")
    from kafka import TopicPartition

    consumer.assign([TopicPartition(topic, number) for number in range(PARTITIONS)])
    seen, started = 0, 0.0
    while seen < records:
        count = sum(map(len, consumer.poll(timeout_ms=1000, max_records=8192).values()))
        started = started or time.perf_counter()
        seen += count
    print(seen / (time.perf_counter() - started))
    consumer.close()


def fill(connection: Connection, topic: str, records: int) -> None:
    """Produce benchmark records, spread over the partitions."""
    ensure_topics(connection, {topic: PARTITIONS})
    values = [message.value for message in make_messages(20_000)]
    producer = AcknowledgedProducer(connection)
    for start in range(0, records, 20_000):
        for number, value in enumerate(values[: records - start]):
            producer.send(Outgoing(topic, str(number % 1000).encode(), value))
        producer.flush(60)
    producer.close(5)


def make_site(folder: Path, connection: Connection, topic: str, group: str) -> Site:
    """Schema, model and settings for the benchmark's records."""
    site = Site(folder, connection, topic, WORKER_KAFKA__SCORES_TOPIC="", WORKER_KAFKA__GROUP_ID=group)
    site.group = group
    ensure_topics(connection, {site.alerts: 1, site.dead_letters: 1})
    (folder / "schema.toml").write_text(SCHEMA)
    store = ModelStore(folder / "models")
    if store.current() is None:
        rows = [orjson.loads(message.value or b"") for message in make_messages(8_000)]
        bundle = fit_bundle(parse_schema(SCHEMA), rows, FitOptions(steps=800), created_at="2026-01-01T00:00:00.000Z")
        store.save(bundle)
        store.promote(bundle.version)
    return site


def worker_rate(site: Site, records: int) -> float:
    """Records/s of `worker run`, from its first commit to its last."""
    worker = site.start()
    marks: list[tuple[float, int]] = []

    def done() -> bool:
        total = sum(site.committed().values())
        if total and (not marks or marks[-1][1] != total):
            marks.append((time.perf_counter(), total))
        return total >= records or worker.process.poll() is not None

    eventually(done, 300, "everything committed")
    code = worker.stop(60)
    if code or len(marks) < 2:
        raise SystemExit(f"worker ended with {code}:\n{worker.log.read_text()}")
    (begin, first), (end, last) = marks[0], marks[-1]
    return (last - first) / (end - begin)


def throughput(broker: Broker, records: int, rounds: int) -> float:
    """Prints both rates and their ratio, round by round; returns the worker's median rate."""
    connection = Connection(broker.bootstrap_servers)
    fill(connection, "bench", records)
    ratios, rates = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            arguments = BARE.format(servers=broker.bootstrap_servers, topic="bench", records=records).split()
            bare = float(subprocess.run([sys.executable, *arguments], capture_output=True, check=True).stdout)
            site = make_site(Path(folder), connection, "bench", f"bench-{number}")
            rate = worker_rate(site, records)
            site.close()
            rates.append(rate)
            ratios.append(rate / bare)
            print(f"round {number + 1}: poll loop {bare:,.0f}/s, whole path {rate:,.0f}/s, ratio {ratios[-1]:.2f}")
    print(f"whole path over bare poll loop: median {statistics.median(ratios):.2f} (goal 0.70)")
    return statistics.median(rates)


def produce_steadily(servers: str, topic: str, rate: float, seconds: float) -> None:
    """So many records a second, one in 500 an outlier. Prints the rate that it kept up."""
    producer = build_producer(Connection(servers), linger_ms=2)
    normal = [message.value or b"" for message in make_messages(2_000)]
    outlier = orjson.dumps({**orjson.loads(normal[0]), "amount": OUTLIER})
    sent, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        for number in range(sent, int(elapsed * rate)):
            value = normal[number % len(normal)] if number % 500 else outlier
            producer.send(topic, value, str(number).encode())
        sent = int(elapsed * rate)
        time.sleep(0.002)
    producer.flush(30)
    print(sent / (time.perf_counter() - began))
    producer.close()


def latency(broker: Broker, rate: float, seconds: int) -> None:
    """Prints quantiles of the time from produce to readable alert, without the first fifth."""
    connection = Connection(broker.bootstrap_servers)
    ensure_topics(connection, {"delay": PARTITIONS})
    with tempfile.TemporaryDirectory() as folder:
        site = make_site(Path(folder), connection, "delay", "delay")
        worker = site.start()
        worker.wait_for("rebalanced")
        from kafka import TopicPartition

        reader = build_consumer(connection, group_id=None, auto_offset_reset="earliest", fetch_max_wait_ms=20)
        reader.assign([TopicPartition(site.alerts, 0)])
        arguments = PRODUCE.format(servers=broker.bootstrap_servers, topic="delay", rate=rate, seconds=seconds).split()
        delays: list[float] = []
        with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True) as producer:
            while producer.poll() is None:
                for records in reader.poll(timeout_ms=5).values():
                    now = time.time() * 1000
                    alerts = [orjson.loads(record.value) for record in records]
                    delays += [now - a["source"]["timestamp_ms"] for a in alerts if a["record"]["amount"] == OUTLIER]
            assert producer.stdout is not None
            kept = float(producer.stdout.read())
        reader.close()
        worker.stop(60)
        site.close()
    p50, p99 = np.quantile(delays[len(delays) // 5 :], [0.5, 0.99])
    print(f"produce to readable alert at {kept:,.0f} of {rate:,.0f} records/s: p50 {p50:.0f} ms, p99 {p99:.0f} ms")
    print("goal: p99 under 100 ms (max_wait_ms + 50)")


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=600_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=20, help="of the latency part; 0 = leave it out")
    parser.add_argument("--bare", nargs=3, metavar=("SERVERS", "TOPIC", "RECORDS"), help=argparse.SUPPRESS)
    parser.add_argument("--produce", nargs=4, metavar=("SERVERS", "TOPIC", "RATE", "SECONDS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.produce:
        produce_steadily(*args.produce[:2], *map(float, args.produce[2:]))
        return
    if args.bare:
        bare_poll(args.bare[0], args.bare[1], int(args.bare[2]))
        return
    broker = start_broker()
    try:
        print(f"broker: {broker.kind}")
        rate = throughput(broker, args.records, args.rounds)
        if args.seconds:
            latency(broker, rate / 5, args.seconds)
    finally:
        broker.close()


if __name__ == "__main__":
    main()
