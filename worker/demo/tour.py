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
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import orjson

from worker.broker.admin import ensure_topics
from worker.broker.client import Connection
from worker.demo.anomalies import Marked, Planter
from worker.demo.embedded import EmbeddedBroker, free_port
from worker.demo.ledger import Ledger
from worker.demo.live import ALERTS, DEADLINE_S, GROUP, INPUT, PARTITIONS, LiveTraffic, require_before
from worker.demo.processes import WorkerCommand
from worker.demo.screen import Screen
from worker.demo.traffic import SCHEMA_FILE, Traffic
from worker.errors import UsageError

MIN_SECONDS, MAX_SECONDS = 20.0, 86_400.0
HISTORY = 12_000
HISTORY_SPACING = 400
PER_DAY = 800
DEAD_LETTERS = "dead-letters"
JOIN_FAST = {"session_timeout_ms": 6000, "heartbeat_interval_ms": 1000}
MIN_LIVE_S = 6.0
ENDING_S = 3.0


@dataclass(frozen=True, slots=True)
class TourOptions:
    """seconds: about how long all of it takes; rate: live payments a second; keep: leave the folder with the logs."""

    seconds: float = 60.0
    seed: int = 0
    rate: float = 400.0
    keep: bool = False

    def __post_init__(self) -> None:
        if not MIN_SECONDS <= self.seconds <= MAX_SECONDS:
            raise UsageError(
                f"--seconds {self.seconds:g}: from {MIN_SECONDS:g}, for starting and learning take more than half of "
                f"that, to {MAX_SECONDS:g}"
            )
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"--seed {self.seed}: from 0 to {2**32 - 1}")
        if not 50 <= self.rate <= 20_000:
            raise UsageError(f"--rate {self.rate:g}: from 50 to 20000 payments a second")


class Tour:
    """One demo from nothing to its summary. `run` returns whether it passed; FatalError where a part of it broke."""

    def __init__(self, options: TourOptions, screen: Screen) -> None:
        self._options = options
        self._screen = screen
        self._ledger = Ledger()
        self._traffic = Traffic(options.seed, per_day=PER_DAY)
        self._ends_at = time.monotonic() + options.seconds - ENDING_S

    def run(self) -> bool:
        """All steps in order; whatever happens, processes and files are gone afterwards."""
        with ExitStack() as stack:
            folder = self._make_folder(stack)
            broker = stack.enter_context(EmbeddedBroker(log_file=folder / "broker.log"))
            link = Connection(broker.bootstrap_servers, "demo", JOIN_FAST)
            ensure_topics(link, {INPUT: PARTITIONS, ALERTS: 1, DEAD_LETTERS: 1})
            self._screen.step("broker", f"embedded, on {link.bootstrap_servers}")
            self._write_history(folder)
            settings = self._settings(folder, link)
            self._train(folder, settings)
            worker = self._start_worker(folder, settings, stack)
            live = LiveTraffic(link, worker, self._ledger, self._screen, self._options.rate)
            stack.callback(live.close)
            rate = self._options.rate
            self._screen.step("live", f"{rate:g} payments a second: a simulated day takes {PER_DAY / rate:.2g} s")
            with self._screen.live():
                live.send(self._payments(), until=max(self._ends_at, time.monotonic() + MIN_LIVE_S))
                live.drain()
            worker.stop()
            summary = self._ledger.summary()
            self._screen.summary(summary, self._notes(folder, live, summary.repeated_alerts))
        return summary.passed

    def _make_folder(self, stack: ExitStack) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="worker-demo-"))
        if not self._options.keep:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        shutil.copy(SCHEMA_FILE, folder / "schema.toml")
        return folder

    def _write_history(self, folder: Path) -> None:
        planter = Planter(seed=self._options.seed, spacing=HISTORY_SPACING, live=False)
        payments = [payment for payment, _ in islice(planter.plant(self._traffic), HISTORY)]
        (folder / "history.jsonl").write_bytes(b"".join(orjson.dumps(payment) + b"\n" for payment in payments))
        days = len({payment["time"][:10] for payment in payments})
        self._screen.step(
            "history", f"{len(payments):,} card payments of {days} days, some of them anomalous, none labelled"
        )

    def _settings(self, folder: Path, link: Connection) -> dict[str, str]:
        return {
            "WORKER_KAFKA__BOOTSTRAP_SERVERS": link.bootstrap_servers,
            "WORKER_KAFKA__INPUT_TOPIC": INPUT,
            "WORKER_KAFKA__ALERTS_TOPIC": ALERTS,
            "WORKER_KAFKA__DEAD_LETTER_TOPIC": DEAD_LETTERS,
            "WORKER_KAFKA__GROUP_ID": GROUP,
            "WORKER_KAFKA__OPTIONS": orjson.dumps(JOIN_FAST).decode(),
            "WORKER_SCHEMA_FILE": str(folder / "schema.toml"),
            "WORKER_MODEL_STORE": str(folder / "models"),
            "WORKER_MODEL__OPTIONS": '{"steps": 2000}' if self._options.seconds >= 45 else '{"steps": 1500}',
            "WORKER_MODEL__LEARNING_RATE": "0.002",
            "WORKER_SEED": str(self._options.seed),
            "WORKER_HTTP__PORT": str(free_port()),
        }

    def _train(self, folder: Path, settings: dict[str, str]) -> None:
        began = time.monotonic()
        arguments = ["train", "--once", "--from", "history.jsonl", "--schema", "schema.toml"]
        with (
            self._screen.waiting(f"$ worker {' '.join(arguments)}"),
            WorkerCommand(arguments, folder=folder, settings=settings) as train,
        ):
            said = train.require_success()
        self._screen.step("train", f"{time.monotonic() - began:.0f} s: {said.replace(str(folder) + '/', '')}")

    def _start_worker(self, folder: Path, settings: dict[str, str], stack: ExitStack) -> WorkerCommand:
        began = time.monotonic()
        with self._screen.waiting("$ worker run"):
            worker = stack.enter_context(WorkerCommand(["run"], folder=folder, settings=settings))
            ready = f"http://127.0.0.1:{settings['WORKER_HTTP__PORT']}/readyz"
            while not _answers_ok(ready):
                worker.require_running()
                require_before(began + DEADLINE_S, "worker run is not ready")
                time.sleep(0.1)
        self._screen.step("run", f"process {worker.pid}, ready after {time.monotonic() - began:.1f} s")
        return worker

    def _payments(self) -> Iterator[Marked]:
        """Live traffic: each kind of anomaly at least once even in the shortest demo, and never above 0.8% of it."""
        expected = max(MIN_LIVE_S, self._ends_at - time.monotonic()) * self._options.rate
        spacing = int(min(600, max(250, expected / 10)))
        return Planter(seed=self._options.seed, spacing=spacing).plant(self._traffic)

    def _notes(self, folder: Path, live: LiveTraffic, repeated: int) -> list[str]:
        notes = [f"from payment to alert: {live.median_delay_ms():.0f} ms (median)"]
        if repeated:
            notes.append(f"repeated alerts: {repeated}")
        if self._options.keep:
            notes.append(f"kept: {folder}")
        return notes


def _answers_ok(url: str) -> bool:
    with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url, timeout=1.0) as answer:  # noqa: S310
        return bool(answer.status == 200)
    return False
