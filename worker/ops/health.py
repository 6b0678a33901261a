"""Health: is the process making progress (liveness), and is it doing its job (readiness)?"""

import faulthandler
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Self

import structlog


class Health:
    """What the record loop tells and the probes ask. Any thread may call any method; none blocks.

    stall_s      seconds without a beat from which on the process does not count as alive
    message_of   the words for an error or a text that is a reason to wait
    """

    def __init__(
        self,
        *,
        stall_s: float = 60.0,
        message_of: Callable[[Exception | str], str] = str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stall_s = stall_s
        self._message_of = message_of
        self._clock = clock
        self._last_beat = clock()
        self._waiting: dict[str, str] = {"start": "starting"}
        self._lock = threading.Lock()

    def beat(self) -> None:
        """The loop went round once, idle or not. Call it at least every `stall_s` seconds."""
        self._last_beat = self._clock()

    def waiting(self, part: str, reason: str | Exception) -> None:
        """The process can't do its job now because of `part` ("model", "broker", …): `reason`, for people."""
        with self._lock:
            self._waiting[part] = self._message_of(reason)

    def ready(self, part: str = "start") -> None:
        """`part` is in order; ready when no part is waited for. The part "start" is waited for from the beginning."""
        with self._lock:
            self._waiting.pop(part, None)

    def reasons(self) -> dict[str, str]:
        """Why the process is not ready, by part; empty when it is."""
        with self._lock:
            return dict(self._waiting)

    def silence_s(self) -> float:
        """Seconds since the last beat."""
        return self._clock() - self._last_beat

    def is_alive(self) -> bool:
        """Whether the last beat is recent."""
        return self.silence_s() <= self.stall_s


class Watchdog:
    """Logs the stacks of all threads when the loop has stalled, once a stall, from a thread of its own.

    It never ends the process: a slow disk or a paused container is no reason to read a batch again, and the platform's
    liveness probe sees the same silence.
    """

    def __init__(self, health: Health) -> None:
        self._health = health
        self._stop = threading.Event()
        self._stalled = False
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def check(self) -> None:
        """Compare the silence with the limit once."""
        was_stalled, self._stalled = self._stalled, not self._health.is_alive()
        silence_s = round(self._health.silence_s(), 1)
        if self._stalled and not was_stalled:
            structlog.get_logger().error("stalled", silence_s=silence_s, stacks=all_stacks())
        elif was_stalled and not self._stalled:
            structlog.get_logger().warning("moving again")

    def _watch(self) -> None:
        while not self._stop.wait(self._health.stall_s / 4):
            self.check()


def all_stacks() -> str:
    """The stack of every thread of this process."""
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read().decode(errors="replace")
