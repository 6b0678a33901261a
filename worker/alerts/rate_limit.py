"""The last resort: at most so many alerts a minute, the rest rate_limited, counted, and summed up in one alert."""

from typing import Any, NamedTuple

from worker.alerts.groups import LATE_MS, Held
from worker.records import Summary
from worker.texts import event_time_text

MINUTE_MS = 60_000


class RateLimited(NamedTuple):
    """A minute that is over, in which alerts were rate_limited. first: offset of the first of them."""

    summary: Summary
    first: int
    strongest: Held


class RateCap:
    """Counts one partition's alerts in the current minute of event time. most: alerts that may pass, 0 = all."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._minute: int | None = None  # its start, milliseconds
        self._passed = 0
        self._withheld = 0
        self._first = 0
        self._strongest: Held | None = None

    def admit(self, held: Held, now_ms: int) -> bool:
        """Whether this alert may pass; `expire` was called for this time before."""
        if self._most == 0:
            return True
        if self._minute is None:
            self._minute = now_ms // MINUTE_MS * MINUTE_MS
        if self._passed < self._most:
            self._passed += 1
            return True
        if self._strongest is None:
            self._first, self._strongest = held.offset, held.lightened()
        self._strongest = self._strongest.stronger(held.lightened())
        self._withheld += 1
        return False

    def bounds(self) -> tuple[int, int] | None:
        """The span of times in which the minute is not over, ends included; None while none has begun."""
        return None if self._minute is None else (self._minute - LATE_MS, self._minute + MINUTE_MS - 1)

    def expire(self, now_ms: int) -> RateLimited | None:
        """End the minute where it is over; what was rate_limited in it, if anything was."""
        bounds = self.bounds()
        if bounds is None or bounds[0] <= now_ms <= bounds[1]:
            return None
        found = None
        if self._strongest is not None:
            found = RateLimited(
                Summary(event_time_text(self._minute or 0), self._withheld), self._first, self._strongest
            )
        self._minute, self._strongest = None, None
        self._passed = self._withheld = self._first = 0
        return found

    def to_json(self) -> list[Any]:
        """Four numbers and what is held of the strongest."""
        strongest = None if self._strongest is None else self._strongest.to_json()
        return [self._minute, self._passed, self._withheld, self._first, strongest]

    def restore(self, values: list[Any]) -> None:
        """The inverse. Raises TypeError or ValueError where it is damaged."""
        self._minute, self._passed, self._withheld, self._first, strongest = values
        self._strongest = None if strongest is None else Held.from_json(strongest)
