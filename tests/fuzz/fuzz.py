"""Writes mutants, spoils some of what the broker stores, lets `worker run` read it, and accounts for every offset."""

import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import kafka
import orjson

from devtools.brokers import ApacheBroker, Broker, eventually, read_all
from devtools.record_batches import Edit, tamper
from devtools.sites import Site
from tests.fuzz.mutations import Mutant, mutants
from worker.broker.admin import ensure_topics
from worker.broker.client import Connection

PARTITIONS = 4
CODECS = (None, "gzip", "snappy", "lz4", "zstd")
CHUNK = 500  # records that go through one producer before the next one's turn
SPOIL_EVERY = 40  # record batches
SPOILS = (  # position in a record batch, what stands there, whether with its checksum
    (22, b"\x07", True),
    (17, b"\0\0\0\1", False),
    (61, b"\x03", True),
    (80, b"\xff\xff\xff\xff\xff\xff", True),
    (16, b"\x09", False),
)
_NAMED = re.compile(r'"partition":"[^"]*-(\d+)","first_offset":(\d+),"last_offset":(\d+)')
Place = tuple[int, int]


@dataclass
class Report:
    """How each offset of the input ended; `wrong` is empty where each ended once and dead letters have their bytes."""

    records: int = 0
    scored: int = 0
    dead_letters: Counter[str] = field(default_factory=Counter)
    tombstones: int = 0
    named: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        dead = ", ".join(f"{code} {count:,}" for code, count in sorted(self.dead_letters.items()))
        return (
            f"{self.records:,} records in {self.seconds:.0f} s: {self.scored:,} scored, "
            f"{self.dead_letters.total():,} dead letters ({dead}), {self.tombstones:,} tombstones, "
            f"{self.named:,} named as unreadable; {len(self.wrong)} wrong"
        )


def fuzz(broker: Broker, folder: Path, topic: str, records: int, seed: int, timeout_s: float) -> Report:
    """One run on a fresh topic."""
    connection = Connection(broker.bootstrap_servers)
    started = time.monotonic()
    with ExitStack() as stack:
        breaker = {"WORKER_BREAKER__CONSECUTIVE": "0", "WORKER_BREAKER__INVALID_RATIO": "1"}
        site = Site(folder, connection, topic, **breaker)
        stack.callback(site.close)
        topics = {topic: PARTITIONS, site.alerts: 1, site.dead_letters: 1, site.scores: PARTITIONS}
        ensure_topics(connection, topics, configs={"message.timestamp.after.max.ms": str((1 << 63) - 1)})
        site.put_model()
        written = write(connection, topic, mutants(records, seed))
        spoilt: set[Place] = set()
        if isinstance(broker, ApacheBroker):
            for partition in range(PARTITIONS):
                offsets = spoil(broker.log_file(topic, partition), seed + partition)
                spoilt |= {(partition, offset) for offset in offsets}
        worker = site.start()
        ends = {partition: end for partition, end in site.ends().items() if end}
        eventually(
            lambda: ends.items() <= site.committed().items() or worker.process.poll() is not None,
            timeout_s,
            "all of it committed",
        )
        report = account(site, written, spoilt, worker.log.read_text())
        if worker.stop() != 0:
            report.wrong.append(f"the worker ended badly: {worker.log.read_text()[-500:]}")
    report.seconds = time.monotonic() - started
    return report


def write(connection: Connection, topic: str, records: Iterator[Mutant]) -> dict[Place, Mutant]:
    """All of them, in record batches of every codec; where each of them stands."""
    options = {"bootstrap_servers": connection.bootstrap_servers, "linger_ms": 20, "batch_size": 8 << 10}
    producers = [kafka.KafkaProducer(compression_type=codec, **options) for codec in CODECS]
    written: dict[Place, Mutant] = {}
    number = 0
    while chunk := list(islice(records, CHUNK)):
        producer = producers[number % len(producers)]
        sent: list[tuple[Any, Mutant]] = []
        for at, mutant in enumerate(chunk):
            value, key, headers, timestamp_ms = mutant
            future = producer.send(topic, value, key, list(headers), (at + number) % PARTITIONS, timestamp_ms)
            sent.append((future, mutant))
        producer.flush(60)
        for future, mutant in sent:
            metadata = future.get(0)
            written[metadata.partition, metadata.offset] = mutant
        number += 1
    for producer in producers:
        producer.close()
    return written


def spoil(log_file: Path, seed: int) -> set[int]:
    """Breaks one record batch in so many as the broker stores them; the offsets whose bytes are others now."""
    offsets: set[int] = set()

    def edits(number: int) -> tuple[Edit, bool] | None:
        if number % SPOIL_EVERY != seed % SPOIL_EVERY:
            return None
        position, raw, checksum = SPOILS[(seed + number) // SPOIL_EVERY % len(SPOILS)]

        def edit(batch: bytearray) -> None:
            first, last_delta = int.from_bytes(batch[:8], "big"), int.from_bytes(batch[23:27], "big")
            offsets.update(range(first, first + last_delta + 1))
            batch[position : position + len(raw)] = raw[: len(batch) - position]

        return edit, checksum

    tamper(log_file, edits)
    return offsets


def account(site: Site, written: dict[Place, Mutant], spoilt: set[Place], log: str) -> Report:
    """Reads all results and compares them with what was written, but for the bytes of what was spoilt."""
    report, ends = Report(len(written)), Counter[Place]()
    for record in read_all(site.connection, site.scores):
        source = orjson.loads(record.value or b"")["source"]
        ends[source["partition"], source["offset"]] += 1
        report.scored += 1
    for record in read_all(site.connection, site.dead_letters):
        about = dict(record.headers[-5:])
        place = int(about["source.partition"] or b""), int(about["source.offset"] or b"")
        ends[place] += 1
        code = (about["error.code"] or b"").decode()
        report.dead_letters[code] += 1
        mutant = written[place]
        names = [name.encode() for name, _ in record.headers[:-5]]
        expected = [name.encode() for name, _ in mutant.headers]
        if place not in spoilt and (record.value, record.key, names) != (mutant.value, mutant.key, expected):
            report.wrong.append(f"{place}: its dead letter has other bytes")
    for number, first, last in (map(int, numbers) for numbers in _NAMED.findall(log)):
        report.named += last - first + 1
        ends.update((number, offset) for offset in range(first, last + 1))
    for place, mutant in written.items():
        if mutant.value is None and place not in ends:
            report.tombstones += 1
        elif ends[place] != 1:
            report.wrong.append(f"{place}: ended {ends[place]} times: {mutant}")
    report.wrong += [f"{place}: was never written" for place in ends.keys() - written.keys()]
    return report
