"""What the watchdog's thread looks at while the main one may wait: is a broker there, and has a stop been asked for?"""

import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Final

import structlog

from worker.broker.contact import Contact
from worker.ops.health import Health
from worker.processes.process import Stop

OUTAGE_S: Final = 10.0  # without an answer; an idle client hears from its broker every 2 to 3 s
LOG_EVERY_S: Final = 60.0
STOP_S: Final = 3.5  # for whatever a stop finds going on
FINISH_S: Final = 20.0  # for what is worth the wait
SILENT_S: Final = 3.5  # from here on there is nothing to wait for


class OutageWatch:
    """Health and log follow whether a broker answers, not what the clients remember.

    servers     as they are set, for the reasons
    on_outage   called at each look while there is none
    clock       seconds, monotonic
    """

    def __init__(
        self,
        contact: Contact,
        servers: str,
        health: Health,
        *,
        on_outage: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._contact = contact
        self._servers = servers
        self._health = health
        self._on_outage = on_outage
        self._clock = clock
        self._silent_checks = 0  # in a row
        self._client_log = logging.getLogger("kafka")
        self._began: float | None = None  # of the outage that goes on
        self._logged = 0.0  # when its last line was written

    def check(self) -> None:
        """Look once."""
        silence_s = self._contact.silence_s() if self._contact.is_asking() else 0.0
        self._hush(silence_s >= SILENT_S)
        if silence_s < OUTAGE_S:
            self._silent_checks = 0
            self._end()
            return
        self._silent_checks += 1
        if (
            self._silent_checks < 2
        ):  # this process may have been paused: its clients are about to read what has come meanwhile
            return
        now = self._clock()
        reason = f"no answer from {self._servers} for {silence_s:.0f} s"
        self._health.waiting("contact", reason)
        self._on_outage()
        if self._began is None:
            # Not the silence of later looks: a client that began to ask later may be the last one to be answered.
            self._began = now - silence_s
        elif now - self._logged < LOG_EVERY_S:
            return
        self._logged = now
        structlog.get_logger().warning("no contact with the broker", reason=reason, silence_s=round(silence_s, 1))

    def _hush(self, hushed: bool) -> None:
        """Leave out what the client logs of each attempt; a line a minute is written here. With debug all is there."""
        level = logging.CRITICAL if hushed and not logging.getLogger().isEnabledFor(logging.DEBUG) else logging.NOTSET
        if self._client_log.level != level:
            self._client_log.setLevel(level)

    def _end(self) -> None:
        if self._began is not None:
            self._health.ready("contact")
            structlog.get_logger().info("the broker answers again", outage_s=round(self._clock() - self._began, 1))
            self._began = None


class LastResort:
    """Ends a process that was told to stop and waits for something that does not come.

    A client's calls can't be interrupted, and some wait for half a minute. Leaving them loses nothing: what was not
    committed is read again, as after a crash.

    is_finishing: whether what goes on is worth the wait, as long as a broker answers
    """

    def __init__(self, stop: Stop, contact: Contact, is_finishing: Callable[[], bool]) -> None:
        self._stop = stop
        self._contact = contact
        self._is_finishing = is_finishing

    def check(self) -> None:
        """Look once."""
        waited_s, silence_s = self._stop.waited_s(), self._contact.silence_s()
        if waited_s < (FINISH_S if self._is_finishing() and silence_s < SILENT_S else STOP_S):
            return
        structlog.get_logger().warning(
            "a wait was left for the stop, what was not committed is read again",
            waited_s=round(waited_s, 1),
            broker_silence_s=round(silence_s, 1),
        )
        sys.stderr.flush()
        os._exit(0)
