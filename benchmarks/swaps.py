"""Model swaps under load on a real broker: python -m benchmarks.swaps (Apache Kafka where KAFKA_HOME is set).

`worker run` scores a steady stream while three versions take turns as the current one. Reports records lost and scored
twice, the slowest batch in medians (beside the same stretch of time without swaps), and the growth of its memory.
"""

import argparse
import itertools
import statistics
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import orjson

from benchmarks.features import SCHEMA, make_messages
from devtools.brokers import eventually, read_all, start_broker
from devtools.sites import Site, WorkerProcess
from worker.broker.admin import ensure_topics
from worker.broker.client import Connection
from worker.broker.producer import AcknowledgedProducer
from worker.features.schema import parse_schema
from worker.model.learn import fit_bundle
from worker.model.network.fit import FitOptions
from worker.model.store.model_store import ModelStore
from worker.records import Outcome, Outgoing

WARM_UP_S = 5.0
VERSIONS = 3
FIT_RECORDS = 8_000
Timing = tuple[float, float, float, float, bool, int]
"""End (seconds since the epoch), then seconds: process, deliver, processor time of the loop since the batch before;
whether it is the first one of its model version; and its records."""


def run_timed(file: str) -> int:
    """`worker run`, and the time of each of its batches to a file in the end."""
    from worker.processes import worker_process
    from worker.processes.process import Stop
    from worker.processes.signals import LoopSignals
    from worker.settings import load_settings

    timings: list[Timing] = []
    last: tuple[float, str] = (0.0, "")

    class Timed(LoopSignals):
        def batch(self, outcome: Outcome, *, process_s: float, deliver_s: float) -> None:
            nonlocal last
            now, version = time.thread_time(), outcome.scores.model_version
            records = len(outcome.scores.messages)
            timings.append((time.time(), process_s, deliver_s, now - last[0], version != last[1], records))
            last = now, version
            super().batch(outcome, process_s=process_s, deliver_s=deliver_s)

    worker_process.LoopSignals = Timed  # type: ignore[attr-defined]  # the one place that sees every batch
    code = worker_process.WorkerProcess(load_settings(), Stop()).run()
    Path(file).write_bytes(orjson.dumps(timings))
    return code


class Load(threading.Thread):
    """Produces a steady stream until it is stopped."""

    def __init__(self, connection: Connection, topic: str, rate: int) -> None:
        super().__init__(daemon=True)
        self._producer = AcknowledgedProducer(connection)
        self._topic, self._rate = topic, rate
        self._over = threading.Event()
        self.sent = 0

    def run(self) -> None:
        values = [message.value for message in make_messages(20_000)]
        began = time.monotonic()
        while not self._over.wait(0.01):
            while self.sent < (time.monotonic() - began) * self._rate:
                key = str(self.sent % 1000).encode()
                self._producer.send(Outgoing(self._topic, key, values[self.sent % len(values)]))
                self.sent += 1

    def end(self) -> None:
        self._over.set()
        self.join()
        self._producer.flush(60)
        self._producer.close(5)


def resident_mib(pid: int) -> float:
    """Memory of a process in MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20


def make_versions(store: ModelStore) -> list[str]:
    """As many versions, fitted on different rows of the same traffic."""
    names = []
    rows = [orjson.loads(message.value or b"") for message in make_messages(VERSIONS * FIT_RECORDS)]
    for seed in range(VERSIONS):
        options = FitOptions(steps=800, seed=seed)
        bundle = fit_bundle(parse_schema(SCHEMA), rows[seed::VERSIONS], options, created_at="2026-01-01T00:00:00.000Z")
        store.save(bundle)
        names.append(bundle.version)
    return names


def swap(store: ModelStore, worker: WorkerProcess, versions: list[str], swaps: int) -> list[float]:
    """Promote one version after the other, each once the one before is current; memory after each, in MiB."""
    memory = []
    for number, version in zip(range(1, swaps + 1), itertools.cycle(versions[1:] + versions[:1]), strict=False):
        store.promote(version)
        eventually(lambda n=number: worker.log.read_text().count("model swapped") >= n, 60, f"swap {number}")  # type: ignore[misc]
        memory.append(resident_mib(worker.process.pid))
    return memory


def report(name: str, timings: list[Timing], medians: list[float] | None = None) -> list[float]:
    """Slowest batch in medians (by default its own), whole and processor time; returns the medians."""
    usual_records = statistics.median(t[5] for t in timings)
    # After a pause of the broker or of its neighbours a batch is larger; that is not the swap's doing.
    sizes = [max(1.0, t[5] / usual_records) for t in timings]
    columns = {
        "whole batch": [t[1] + t[2] for t in timings],
        "the same, for as many records as usual": [
            (t[1] + t[2]) / size for t, size in zip(timings, sizes, strict=True)
        ],
        "processor time, for as many records as usual": [t[3] / size for t, size in zip(timings, sizes, strict=True)],
    }
    medians = medians or [statistics.median(seconds) for seconds in columns.values()]
    for (stage, seconds), usual in zip(columns.items(), medians, strict=True):
        ordered = sorted(seconds)
        print(
            f"  {name}, {stage}: median {statistics.median(seconds) * 1e3:.1f} ms, "
            f"slowest {ordered[-1] * 1e3:.1f} ms = {ordered[-1] / usual:.1f} medians, "
            f"{sum(s > 3 * usual for s in seconds)} of {len(seconds)} beyond 3"
        )
    return medians


def measure(connection: Connection, folder: Path, args: argparse.Namespace) -> None:
    site = Site(folder, connection, "swaps", WORKER_BATCH__SIZE=str(args.batch))
    site.environment["WORKER_MODEL_CANARY_RECORDS"] = str(args.canary)
    ensure_topics(connection, {"swaps": args.partitions, site.alerts: 1, site.dead_letters: 1, site.scores: 4})
    (folder / "schema.toml").write_text(SCHEMA)
    store = ModelStore(folder / "models")
    versions = make_versions(store)
    store.promote(versions[0])
    site.environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    worker = site.start("--worker", str(folder / "timings"), module="benchmarks.swaps")
    worker.wait_for("rebalanced")
    load = Load(connection, "swaps", args.rate)
    load.start()
    time.sleep(WARM_UP_S)
    calm, swaps_s = time.time(), args.swaps * 1.1
    time.sleep(min(30.0, swaps_s))
    began = time.time()
    memory = swap(store, worker, versions, args.swaps)
    ended = time.time()
    load.end()
    site.wait_until_drained(300)
    if worker.stop(60) != 0:
        raise SystemExit(worker.log.read_text())
    timings = [tuple(row) for row in orjson.loads((folder / "timings").read_bytes())]
    print(f"{args.swaps} swaps in {ended - began:.0f} s, {args.partitions} partitions, {args.rate:,} records/s")
    report("without swaps", [t for t in timings if calm < t[0] < began])
    busy = [t for t in timings if began <= t[0] < ended]
    medians = report("with swaps, all batches", busy)
    report("with swaps, first batch after each", [t for t in busy if t[4]], medians)
    print(
        f"  memory: {memory[0]:.0f} MiB after the first swap, "
        + ", ".join(f"{memory[min(len(memory), at) - 1]:.0f} after {min(len(memory), at)}" for at in (20, 50, 100, 200))
    )
    log = worker.log.read_text()
    print(f"  canaries passed {log.count('has passed its canary')}, rolled back {log.count('model rolled back:')}")
    sources = (
        orjson.loads(record.value or b"")["source"] for record in read_all(connection, site.scores, timeout_s=120)
    )
    places = Counter((source["partition"], source["offset"]) for source in sources)
    twice = sum(count > 1 for count in places.values())
    print(f"  {load.sent:,} records: {load.sent - len(places)} lost, {twice} scored twice")
    site.close()


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swaps", type=int, default=200)
    parser.add_argument("--rate", type=int, default=5_000, help="records a second")
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--batch", type=int, default=8192, help="WORKER_BATCH__SIZE")
    parser.add_argument(
        "--canary", type=int, default=3_000, help="records, so that most of them end before the next swap"
    )
    parser.add_argument("--worker", metavar="FILE", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        raise SystemExit(run_timed(args.worker))
    broker = start_broker()
    try:
        print(f"broker: {broker.kind}")
        with tempfile.TemporaryDirectory() as folder:
            measure(Connection(broker.bootstrap_servers), Path(folder), args)
    finally:
        broker.close()


if __name__ == "__main__":
    main()
