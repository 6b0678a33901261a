"""Memory of `worker run` by the size of records, batches, partitions and windows: python -m benchmarks.memory

Each row is a worker of its own with default settings but for what the row says, on Apache Kafka where KAFKA_HOME is
set, in a memory cgroup of 1 GiB where this process may make one. Peak: VmHWM, all memory that the process has touched.
"""

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import kafka

from devtools import traffic
from devtools.brokers import Broker, start_broker
from devtools.sites import Site, WorkerProcess
from worker.broker.admin import ensure_topics
from worker.broker.client import Connection

LIMIT_BYTES = 1 << 30
CGROUPS = (  # the folder, the file with the limit: version 2, version 1
    (Path("/sys/fs/cgroup"), "memory.max"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
)


@dataclass(frozen=True)
class Case:
    """One row. in_batch: records in a record batch. dead: records that become dead letters."""

    name: str
    records: int
    record_bytes: int
    codec: str | None = None
    in_batch: int = 1
    partitions: int = 1
    dead: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)


def cases(records: int) -> list[Case]:
    """All rows; `records` of the large ones."""
    small, mib = 100 * records, 1 << 20
    return [
        Case("150 bytes", small, 150, in_batch=1000),
        Case("150 bytes, 64 partitions", small, 150, in_batch=1000, partitions=64),
        Case("150 bytes, 64 partitions, window 200,000", small, 150, in_batch=1000, partitions=64,
             settings={"WORKER_THRESHOLD__WINDOW": "200000"}),
        Case("200 kB", records, 200_000),
        Case("0.99 MB", records, 990_000),
        Case("0.99 MB, gzip, 100 in a record batch", records, 990_000, "gzip", 100),
        Case("0.99 MB, zstd, 100 in a record batch", records, 990_000, "zstd", 100),
        Case("0.99 MB, all dead letters", records, 990_000, dead=True),
        Case("0.99 MB, 16 partitions", records, 990_000, partitions=16),
        Case("0.99 MB, batches of 4 MiB", records, 990_000, settings={"WORKER_BATCH__MAX_BYTES": str(4 * mib)}),
        Case("0.99 MB, batches of 64 MiB", records, 990_000, settings={"WORKER_BATCH__MAX_BYTES": str(64 * mib)}),
        Case("0.99 MB, exactly once", records, 990_000, settings={"WORKER_DELIVERY": "exactly_once"}),
    ]  # fmt: skip


def fill(connection: Connection, topic: str, case: Case) -> None:
    """Writes the records of a case."""
    sound = [message.value or b"" for message in traffic.messages(1000)]
    producer = kafka.KafkaProducer(
        bootstrap_servers=connection.bootstrap_servers,
        compression_type=case.codec,
        linger_ms=1000,
        batch_size=max(1 << 14, 2 * case.in_batch * case.record_bytes),
        max_request_size=1 << 30,
    )
    for number in range(case.records):
        value = sound[number % len(sound)]
        if case.record_bytes > len(value):
            value = value[:-1] + b', "pad": "' + b"x" * (case.record_bytes - len(value) - 12) + b'"}'
        value = b'{"amount": ' + value if case.dead else value
        producer.send(topic, value, partition=number // case.in_batch % case.partitions)
        if number % max(case.in_batch, 20) == max(case.in_batch, 20) - 1:
            producer.flush(120)
    producer.flush(120)
    producer.close()


@contextlib.contextmanager
def memory_cgroup(name: str) -> Iterator[Path | None]:
    """A cgroup with the limit, None where this process may not make one; removed at the end."""
    for folder, limit in CGROUPS:
        group = folder / name
        with contextlib.suppress(OSError):
            group.mkdir()
            try:
                (group / limit).write_text(str(LIMIT_BYTES))
            except OSError:  # version 2 without the memory controller
                group.rmdir()
                continue
            yield group
            with contextlib.suppress(OSError):
                group.rmdir()
            return
    yield None


def peak_mb(worker: WorkerProcess) -> int:
    """VmHWM in MB, 0 where the process has ended."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        status = Path(f"/proc/{worker.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) // 1000
    return 0


def measure(broker: Broker, number: int, case: Case) -> tuple[int, int, float]:
    """Peak in MB, how often the worker was killed, seconds from its start to its last commit."""
    connection, topic = Connection(broker.bootstrap_servers), f"memory-{number}"
    with tempfile.TemporaryDirectory() as folder, memory_cgroup(f"memory-{os.getpid()}-{number}") as group:
        breaker = {"WORKER_BREAKER__CONSECUTIVE": "0", "WORKER_BREAKER__INVALID_RATIO": "1"}
        site = Site(Path(folder), connection, topic, **breaker, **case.settings)
        ensure_topics(connection, {topic: case.partitions, site.alerts: 1, site.dead_letters: 1, site.scores: 1})
        site.put_model()
        fill(connection, topic, case)
        ends = {partition: end for partition, end in site.ends().items() if end}
        peak = kills = 0
        started = time.monotonic()
        worker: WorkerProcess | None = None
        while not ends.items() <= site.committed().items() and kills < 3:
            if worker is None or worker.process.poll() is not None:
                kills += worker is not None
                worker = site.start()
                if group is not None:
                    (group / "cgroup.procs").write_text(str(worker.process.pid))
            peak = max(peak, peak_mb(worker))
            time.sleep(0.2)
        seconds = time.monotonic() - started
        site.close()
        time.sleep(0.2)  # a cgroup with a process that is about to end can't be removed
    return peak, kills, seconds


def main() -> int:
    """Prints a row for each case; 1 where a worker was killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=2000, help="of the large ones; 100 times as many small ones")
    parser.add_argument("--only", help="cases whose name holds this text")
    args = parser.parse_args()
    killed = 0
    print(f"{'records':42} {'number':>8} {'peak MB':>8} {'kills':>6} {'seconds':>8}")
    for number, case in enumerate(cases(args.records)):
        if args.only and args.only not in case.name:
            continue
        broker = start_broker()  # one each: gigabytes of records are gone with it
        try:
            peak, kills, seconds = measure(broker, number, case)
        finally:
            broker.close()
        killed += kills
        print(f"{case.name:42} {case.records:8,} {peak:8,} {kills:6} {seconds:8.0f}", flush=True)
    return 1 if killed else 0


if __name__ == "__main__":
    sys.exit(main())
