"""Health: is the process making progress (liveness), and is it doing its job (readiness)?"""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Self

import structlog
from typing_extensions import override

CHECK_EVERY_S = 0.5


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
        self._died: dict[str, str] = {}
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

    def died(self, thread: str, error: BaseException) -> None:
        """This thread has ended and nobody starts it again: not alive from here on."""
        with self._lock:
            self._died[thread] = self._message_of(f"{type(error).__name__}: {error}")

    def deaths(self) -> dict[str, str]:
        """Why threads have ended, by name."""
        with self._lock:
            return dict(self._died)

    def silence_s(self) -> float:
        """Seconds since the last beat."""
        return self._clock() - self._last_beat

    def is_stalled(self) -> bool:
        """Whether the last beat is too long ago."""
        return self.silence_s() > self.stall_s

    def is_alive(self) -> bool:
        """Whether the last beat is recent and no thread has died."""
        return not self.is_stalled() and not self.deaths()


class GuardedThread(threading.Thread):
    """A thread in the background whose death is told: liveness fails from then on, and a line says what died of what.

    Whoever needs it stops it before the process ends; it doesn't keep the process alive.
    """

    def __init__(self, health: Health, target: Callable[[], None], name: str) -> None:
        super().__init__(target=target, name=name, daemon=True)
        self._health = health

    @override
    def run(self) -> None:
        try:
            super().run()
        except BaseException as error:  # noqa: BLE001 - the outermost edge of this thread
            self._health.died(self.name, error)
            structlog.get_logger().error("thread died, restart the process", thread=self.name, exc_info=error)


class Watchdog:
    """Looks at the process twice a second from a thread of its own: logs all stacks, once a stall of the loop.

    It never ends the process for a stall: a slow disk or a paused container is no reason to read a batch again, and the
    platform's liveness probe sees the same silence.

    checks: what else has to be looked at although the loop may hang; must not block
    """

    def __init__(self, health: Health, checks: Sequence[Callable[[], None]] = ()) -> None:
        self._health = health
        self._checks = checks
        self._stop = threading.Event()
        self._stalled = False
        self._thread = GuardedThread(health, self._watch, "watchdog")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def check(self) -> None:
        """Compare the silence with the limit once."""
        was_stalled, self._stalled = self._stalled, self._health.is_stalled()
        silence_s = round(self._health.silence_s(), 1)
        if self._stalled and not was_stalled:
            structlog.get_logger().error("stalled", silence_s=silence_s, stacks=all_stacks())
        elif was_stalled and not self._stalled:
            structlog.get_logger().warning("moving again")

    def _watch(self) -> None:
        while not self._stop.wait(min(CHECK_EVERY_S, self._health.stall_s / 4)):
            for check in (self.check, *self._checks):
                check()


def all_stacks() -> str:
    """The stack of every thread of this process. Reads no file and writes none: the disk may be what hangs."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    stacks = sys._current_frames()  # noqa: SLF001 - documented, for exactly this
    return "\n".join(
        f"Thread {names.get(ident, ident)}:\n" + "\n".join(_lines(frame)) for ident, frame in stacks.items()
    )


def _lines(frame: FrameType | None) -> Iterator[str]:
    """A stack, the newest call first."""
    while frame is not None:
        yield f'  File "{frame.f_code.co_filename}", line {frame.f_lineno} in {frame.f_code.co_name}'
        frame = frame.f_back
