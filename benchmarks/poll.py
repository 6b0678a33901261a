"""Records per second of a bare KafkaConsumer.poll loop: what the whole worker is measured against.

python -m benchmarks.poll --bootstrap-servers 127.0.0.1:9092 --records 1000000
"""

import argparse
import sys
import time
from dataclasses import dataclass
from typing import Any

import kafka

from worker.broker.admin import ensure_topics
from worker.broker.client import CONSUMER_DEFAULTS, Connection
from worker.broker.producer import AcknowledgedProducer
from worker.records import Outgoing

VALUE_BYTES = 150


@dataclass(frozen=True, slots=True)
class PollRate:
    """records_per_s: from the first record to the last. cpu_us_per_record: of this process, all threads."""

    records: int
    records_per_s: float
    cpu_us_per_record: float


def fill_topic(
    connection: Connection, topic: str, records: int, partitions: int = 1, value_bytes: int = VALUE_BYTES
) -> None:
    """Writes so many records with different values of `value_bytes` bytes, evenly over new partitions."""
    ensure_topics(connection, {topic: partitions})
    producer = AcknowledgedProducer(connection)
    for number in range(records):
        value = str(number).encode().ljust(value_bytes, b".")
        producer.send(Outgoing(topic, None, value, partition=number % partitions))
        if number % 100_000 == 99_999:
            producer.flush(60)
    producer.flush(60)
    producer.close(5)


def plain_consumer(connection: Connection, **config: Any) -> Any:
    """The client as it comes, with large fetches: none of the worker's own reading."""
    fetches = {"fetch_max_bytes": 32 << 20, "max_partition_fetch_bytes": 8 << 20}
    options = {**CONSUMER_DEFAULTS, **fetches, **config}
    return kafka.KafkaConsumer(bootstrap_servers=connection.bootstrap_servers, **options)


def poll_rate(connection: Connection, topic: str, records: int, max_records: int = 8192, **config: Any) -> PollRate:
    """Polls the topic from its start until so many records were seen; the clock starts at the first one."""
    group = f"poll-{time.time_ns()}"
    consumer = plain_consumer(connection, group_id=group, **{"auto_offset_reset": "earliest", **config})
    consumer.subscribe([topic])
    seen, first = 0, 0
    started, cpu_started = 0.0, 0.0
    while seen < records:
        batches = consumer.poll(timeout_ms=1000, max_records=max_records)
        if not seen and batches:
            started, cpu_started = time.perf_counter(), time.process_time()
            first = sum(len(batch) for batch in batches.values())
        seen += sum(len(batch) for batch in batches.values())
    took, cpu = time.perf_counter() - started, time.process_time() - cpu_started
    consumer.close(autocommit=False, timeout_ms=2000)
    counted = max(1, seen - first)
    return PollRate(seen, counted / took, cpu / counted * 1e6)


def main(argv: list[str] | None = None) -> int:
    """Fills a fresh topic and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap-servers", required=True)
    parser.add_argument("--records", type=int, default=500_000)
    parser.add_argument("--partitions", type=int, default=1)
    parser.add_argument("--topic", help="an existing topic with at least --records records")
    args = parser.parse_args(argv)
    connection = Connection(args.bootstrap_servers)
    topic = args.topic or f"poll-{time.time_ns()}"
    if not args.topic:
        fill_topic(connection, topic, args.records, args.partitions)
    rate = poll_rate(connection, topic, args.records)
    sys.stdout.write(f"{rate.records} records, {rate.records_per_s:,.0f}/s, {rate.cpu_us_per_record:.2f} us CPU each\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
