"""`worker run`: the long-running consumer."""

import argparse
import os
import signal
import sys
import threading
import time
from types import FrameType

HELP = """Read the input topic, score every record, publish alerts and dead letters, commit. Runs until SIGTERM or
SIGINT, then finishes the open batch, leaves the group and exits 0; a second signal ends it at once."""
EXAMPLE = "WORKER_KAFKA__BOOTSTRAP_SERVERS=localhost:9092 WORKER_KAFKA__INPUT_TOPIC=payments worker run"

SAME_REQUEST_S = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None: a long-running process is set up by its environment."""
    del parser


class Stop:
    """Set by SIGTERM and SIGINT; the loop looks at it between two steps. A second signal does not wait.

    Signals within a second of the first are the same request: a terminal, `timeout` and a supervisor send it twice.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self._first = 0.0

    def install(self) -> None:
        """Take over the two signals."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._event.is_set() and time.monotonic() - self._first > SAME_REQUEST_S:
            sys.stderr.write("second signal: ending at once, the open batch will be read again\n")
            sys.stderr.flush()
            os._exit(128 + number)
        self._first = self._first or time.monotonic()
        self._event.set()

    def __call__(self) -> bool:
        """Whether a stop was asked for."""
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Whether a stop was asked for within this time."""
        return self._event.wait(seconds)


def run(args: argparse.Namespace) -> int:
    """See HELP."""
    del args
    from worker.processes.worker_process import WorkerProcess
    from worker.settings import load_settings

    stop = Stop()
    stop.install()
    return WorkerProcess(load_settings(), stop).run()
