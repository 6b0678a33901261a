"""What long-running processes have in common: stop on a signal, logs, threads and garbage, health, patience."""

import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from types import FrameType
from typing import TypeVar

import structlog
from prometheus_client import CollectorRegistry

from worker.errors import WorkerError
from worker.ops.health import Health, Watchdog
from worker.ops.logs import configure_logs
from worker.ops.server import HealthServer
from worker.settings import Settings

T = TypeVar("T")
Words = Callable[[Exception | str], str]

SLICE_S = 0.1  # in which a wait sees a stop
SAME_REQUEST_S = 1.0  # signals within it are one request: a terminal, `timeout` and a supervisor send it twice
CLOSE_S = 5.0  # that a client may take to close
GC_THRESHOLD = 100_000  # new objects between two collections that Python starts by itself


class Stopped(Exception):
    """A stop was asked for before the work was done; nothing is lost by leaving it."""


class Stop:
    """Set by SIGTERM and SIGINT, asked between two steps. A second signal ends the process at once."""

    # A signal's handler runs between any two instructions of the main thread, also inside a wait for a lock: it only
    # writes plain attributes. threading.Event.set would wait for a lock that the interrupted wait itself holds.

    def __init__(self) -> None:
        self._since: float | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)

    def _signalled(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if self._since is not None and now - self._since > SAME_REQUEST_S:
            sys.stderr.write("second signal: ending at once, the open batch will be read again\n")
            sys.stderr.flush()
            os._exit(128 + number)  # no cleaning up: that may be just what hangs
        self._since = now if self._since is None else self._since

    def __call__(self) -> bool:
        """Whether a stop was asked for."""
        return self._since is not None

    def waited_s(self) -> float:
        """Seconds since then; 0 before."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    def wait(self, seconds: float) -> bool:
        """Sleeps, but not through a stop; returns whether one came."""
        deadline = time.monotonic() + seconds
        while not self() and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, SLICE_S))
        return self()


class Request:
    """A request by SIGUSR1, which is answered once."""

    def __init__(self) -> None:
        self._waiting = False
        signal.signal(signal.SIGUSR1, self._signalled)

    def _signalled(self, _number: int, _frame: FrameType | None) -> None:
        self._waiting = True

    def __call__(self) -> bool:
        """Whether it was made since the last call."""
        waiting, self._waiting = self._waiting, False
        return waiting


def tune_process(settings: Settings) -> None:
    """Bound the model's threads, and make the garbage collector rare.

    By default PyTorch takes every core and spins, which starves its neighbours and gains nothing on small networks.
    """
    import torch

    torch.set_num_threads(settings.cpu_threads)
    calm_garbage_collector()


def calm_garbage_collector() -> None:
    """Leave what was loaded so far out of every collection, and collect less often."""
    # Left to itself, Python's cyclic garbage collector walks the tens of thousands of objects of each batch, which form
    # no cycles, again and again, and now and then all that was imported: 0.15 s in the middle of a delivery. So what is
    # loaded is frozen, the thresholds are raised, and LoopSignals.batch collects, between two batches.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 20)


def start_logs(settings: Settings, message_of: Words) -> None:
    """Logs as the settings say. message_of: the words for an error, which only the command line has."""
    configure_logs(settings.log.format, settings.log.level, secrets=settings.secrets(), message_of=message_of)


@contextmanager
def watched(
    settings: Settings, health: Health, registry: CollectorRegistry, checks: Sequence[Callable[[], None]]
) -> Iterator[ExitStack]:
    """Health and metrics over HTTP, where the settings name a port, and the watchdog, until the block ends.

    checks: what the watchdog looks at besides, twice a second
    What is opened meanwhile and has to be closed before them goes on the stack.
    """
    with Watchdog(health, checks), ExitStack() as stack:
        if settings.http.port:
            stack.enter_context(HealthServer(health, registry, host=settings.http.host, port=settings.http.port))
        yield stack


def patiently(
    build: Callable[[], T],
    stop: Stop,
    health: Health,
    *,
    part: str,
    event: str,
    errors: type[WorkerError] | tuple[type[WorkerError], ...],
    retry_s: float,
) -> T:
    """What `build` makes, tried again as long as it raises one of these errors; Stopped when told to stop first.

    part      what is waited for, among the reasons of health: "model", "broker", …
    event     the log line of an attempt that failed, once for each reason
    errors    those that pass by themselves; all others are raised
    retry_s   seconds between two attempts
    """
    logged = ""
    for attempt in count(1):
        if stop():
            break
        health.beat()
        try:
            return build()
        except errors as error:
            health.waiting(part, error)
            if str(error) != logged:
                logged = str(error)
                structlog.get_logger().warning(event, attempt=attempt, error=error)
            stop.wait(retry_s)
    raise Stopped
