"""The tour: a broker, a history to learn from, a worker, live payments with planted anomalies, and what came of it.

Train and run are the same processes that a user starts, with the same settings; nothing here reaches into them.
"""

import contextlib
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from statistics import median

import orjson

from worker.broker.admin import ensure_topics
from worker.broker.client import Connection
from worker.broker.consumer import GroupConsumer
from worker.broker.producer import AcknowledgedProducer
from worker.broker.ranges import TopicReader
from worker.demo.anomalies import Ledger, Marked, Planter
from worker.demo.processes import EmbeddedBroker, WorkerCommand, free_port
from worker.demo.screen import Screen
from worker.demo.traffic import SCHEMA_FILE, Traffic
from worker.errors import FatalError, UsageError
from worker.records import Outgoing, Partition

INPUT, ALERTS, DEAD_LETTERS, GROUP = "payments", "alerts", "dead-letters", "demo-worker"
PARTITIONS = 2
# On the embedded broker a member joins after half of its session.
JOIN_FAST = {"session_timeout_ms": 6000, "heartbeat_interval_ms": 1000}
HISTORY, HISTORY_SPACING, PER_DAY = 12_000, 400, 800
MIN_SECONDS, MAX_SECONDS = 20.0, 86_400.0
MIN_LIVE_S, ENDING_S, DEADLINE_S = 6.0, 3.0, 60.0
PROGRESS_EVERY_S = 0.5


class Tour:
    """One demo from nothing to its summary. `run` returns whether it passed; FatalError where a part of it broke.

    seconds   about how long all of it takes
    seed      another seed is another world
    rate      live payments a second
    keep      leave the folder with history, schema, model and logs
    """

    def __init__(self, screen: Screen, *, seconds: float, seed: int, rate: float, keep: bool) -> None:
        if not MIN_SECONDS <= seconds <= MAX_SECONDS:
            why = "for starting and learning take more than half of that"
            raise UsageError(f"--seconds {seconds:g}: from {MIN_SECONDS:g}, {why}, to {MAX_SECONDS:g}")
        if not 0 <= seed < 2**32:
            raise UsageError(f"--seed {seed}: from 0 to {2**32 - 1}")
        if not 50 <= rate <= 20_000:
            raise UsageError(f"--rate {rate:g}: from 50 to 20000 payments a second")
        self._screen, self._seconds, self._seed, self._rate, self._keep = screen, seconds, seed, rate, keep
        self._ledger = Ledger()
        self._traffic = Traffic(seed, per_day=PER_DAY)
        self._ends_at = time.monotonic() + seconds - ENDING_S

    def run(self) -> bool:
        """All steps in order; whatever happens, processes and files are gone afterwards."""
        rate = self._rate
        with ExitStack() as stack:
            folder = Path(tempfile.mkdtemp(prefix="worker-demo-"))
            if not self._keep:
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
            broker = stack.enter_context(EmbeddedBroker(log_file=folder / "broker.log"))
            link = Connection(broker.bootstrap_servers, "demo", JOIN_FAST)
            ensure_topics(link, {INPUT: PARTITIONS, ALERTS: 1, DEAD_LETTERS: 1})
            self._screen.step("broker", f"embedded, on {link.bootstrap_servers}")
            self._write_history(folder)
            worker = self._start_worker(folder, link, stack)
            live = LiveTraffic(link, worker, self._ledger, self._screen, rate)
            stack.callback(live.close)
            self._screen.step("live", f"{rate:g} payments a second: a simulated day takes {PER_DAY / rate:.2g} s")
            # Each kind comes at least once even in the shortest demo, and what is planted stays below 0.8%.
            expected = max(MIN_LIVE_S, self._ends_at - time.monotonic()) * rate
            planter = Planter(seed=self._seed, spacing=int(min(600, max(250, expected / 10))))
            with self._screen.live():
                live.send(planter.plant(self._traffic), until=max(self._ends_at, time.monotonic() + MIN_LIVE_S))
                live.drain()
            worker.stop()
            summary = self._ledger.summary()
            notes = [f"from payment to alert: {live.median_delay_ms():.0f} ms (median)"]
            notes += [f"repeated alerts: {summary.repeated_alerts}"] if summary.repeated_alerts else []
            self._screen.summary(summary, [*notes, f"kept: {folder}"] if self._keep else notes)
        return summary.passed

    def _write_history(self, folder: Path) -> None:
        shutil.copy(SCHEMA_FILE, folder / "schema.toml")
        planter = Planter(seed=self._seed, spacing=HISTORY_SPACING, live=False)
        payments = [payment for payment, _ in islice(planter.plant(self._traffic), HISTORY)]
        (folder / "history.jsonl").write_bytes(b"".join(orjson.dumps(payment) + b"\n" for payment in payments))
        size = f"{len(payments):,} card payments of {len({payment['time'][:10] for payment in payments})} days"
        self._screen.step("history", f"{size}, some of them anomalous, none labelled")

    def _start_worker(self, folder: Path, link: Connection, stack: ExitStack) -> WorkerCommand:
        settings = {
            "WORKER_KAFKA__BOOTSTRAP_SERVERS": link.bootstrap_servers,
            "WORKER_KAFKA__INPUT_TOPIC": INPUT,
            "WORKER_KAFKA__ALERTS_TOPIC": ALERTS,
            "WORKER_KAFKA__DEAD_LETTER_TOPIC": DEAD_LETTERS,
            "WORKER_KAFKA__GROUP_ID": GROUP,
            "WORKER_KAFKA__OPTIONS": orjson.dumps(JOIN_FAST).decode(),
            "WORKER_SCHEMA_FILE": str(folder / "schema.toml"),
            "WORKER_MODEL_STORE": str(folder / "models"),
            "WORKER_MODEL__OPTIONS": '{"steps": 2000}' if self._seconds >= 45 else '{"steps": 1500}',
            "WORKER_MODEL__LEARNING_RATE": "0.002",
            "WORKER_SEED": str(self._seed),
            "WORKER_HTTP__PORT": str(free_port()),
        }
        began, arguments = time.monotonic(), ["train", "--once", "--from", "history.jsonl", "--schema", "schema.toml"]
        with (
            self._screen.waiting(f"$ worker {' '.join(arguments)}"),
            WorkerCommand(arguments, folder=folder, settings=settings) as train,
        ):
            said = train.require_success()
        self._screen.step("train", f"{time.monotonic() - began:.0f} s: {said.replace(str(folder) + '/', '')}")
        began = time.monotonic()
        with self._screen.waiting("$ worker run"):
            worker = stack.enter_context(WorkerCommand(["run"], folder=folder, settings=settings))
            while not _answers_ok(f"http://127.0.0.1:{settings['WORKER_HTTP__PORT']}/readyz"):
                worker.require_running()
                require_before(began + DEADLINE_S, "worker run is not ready")
                time.sleep(0.1)
        self._screen.step("run", f"process {worker.pid}, ready after {time.monotonic() - began:.1f} s")
        return worker


class LiveTraffic:
    """Payments out at a steady rate, alerts in, progress on the screen. Owns the demo's Kafka clients. FatalError where
    the worker dies or falls silent.
    """

    def __init__(self, link: Connection, worker: WorkerCommand, ledger: Ledger, screen: Screen, rate: float) -> None:
        self._link, self._worker, self._ledger, self._screen, self._rate = link, worker, ledger, screen, rate
        self._producer = AcknowledgedProducer(link)
        self._viewer = GroupConsumer(link, [ALERTS], "demo-viewer")
        self._offsets = GroupConsumer(link, [INPUT], GROUP)  # only asks for offsets: it never polls, so it never joins
        self._clock = ""
        self._delays_ms: list[float] = []
        self._scored, self._speed, self._progress_at = 0, 0.0, time.monotonic()

    def send(self, payments: Iterator[Marked], *, until: float) -> None:
        """Payments at the rate until that moment (monotonic), alerts shown meanwhile."""
        began = time.monotonic()
        while (now := time.monotonic()) < until:
            for payment, planted in islice(payments, int((now - began) * self._rate) - self._ledger.sent):
                self._ledger.send(planted)
                self._producer.send(Outgoing(INPUT, payment["customer"]["id"].encode(), orjson.dumps(payment)))
                self._clock = payment["time"]
            self._show(left_s=until - now)
        self._producer.flush(DEADLINE_S)

    def drain(self) -> None:
        """Until every payment is scored and every alert has been shown; FatalError after a minute."""
        deadline = time.monotonic() + DEADLINE_S
        while self._scored < self._ledger.sent:
            require_before(deadline, f"only {self._scored} of {self._ledger.sent} payments are scored")
            self._show(left_s=0.0)
        reader = TopicReader(self._link)
        try:
            ends = reader.end_offsets(ALERTS)
        finally:
            reader.close(1.0)
        while any(self._viewer.positions().get(partition, 0) < end for partition, end in ends.items()):
            require_before(deadline, "the alerts can't be read to their end")
            self._show(left_s=0.0)

    def _show(self, left_s: float) -> None:
        """The alerts that came, and how far the worker is by the offsets that it committed, twice a second."""
        self._worker.require_running()
        for messages in self._viewer.poll(timeout_ms=50, max_records=500).values():
            for message in messages:
                alert = orjson.loads(message.value or b"null")
                self._delays_ms.append(time.time() * 1000 - alert["source"]["timestamp_ms"])
                self._screen.alert(alert, self._ledger.alert(alert["ids"]["id"]))
        now = time.monotonic()
        if now - self._progress_at >= PROGRESS_EVERY_S:
            partitions = [Partition(INPUT, number) for number in range(PARTITIONS)]
            scored = sum(offset or 0 for offset in self._offsets.committed(partitions).values())
            self._speed = (scored - self._scored) / (now - self._progress_at)
            self._scored, self._progress_at = scored, now
        self._screen.status(self._ledger, clock=self._clock, scored=self._scored, per_second=self._speed, left_s=left_s)

    def median_delay_ms(self) -> float:
        """Median time from a payment's sending to its alert's arrival here, milliseconds; NaN without an alert."""
        return median(self._delays_ms) if self._delays_ms else float("nan")

    def close(self) -> None:
        """Never raises."""
        for client in (self._producer, self._viewer, self._offsets):
            client.close(1.0)


def require_before(deadline: float, what: str) -> None:
    """FatalError saying what is wrong, once the deadline (monotonic) has passed."""
    if time.monotonic() > deadline:
        raise FatalError(f"after {DEADLINE_S:g} s {what}")


def _answers_ok(url: str) -> bool:
    with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url, timeout=1.0) as answer:  # noqa: S310
        return bool(answer.status == 200)
    return False
