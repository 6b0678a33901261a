"""What time it is in a partition, by the event times of its records."""

from typing import Any

import numpy as np

from worker.thresholds.partition import NO_TIME, TimeArray


class EventClock:
    """The median of the last three event times: one record with a wrong clock does not move it.

    Nothing older is remembered, so that it is right again two records after any disorder. Records without a time do not
    count.
    """

    def __init__(self) -> None:
        self._recent: tuple[int, int] | None = None  # the last two times, in offset order
        self._now = NO_TIME

    def advance(self, event_time_ms: TimeArray) -> TimeArray:
        """The time at each record: int64 (B,) for times (B,) in offset order; NO_TIME before there is any."""
        now = np.full(len(event_time_ms), self._now)
        known = np.flatnonzero(event_time_ms != NO_TIME)
        if not len(known):
            return now
        times = event_time_ms[known]
        before = self._recent or (int(times[0]), int(times[0]))
        row = np.concatenate([np.array(before, np.int64), times])
        first, second, third = row[:-2], row[1:-1], row[2:]
        median = np.maximum(np.minimum(first, second), np.minimum(np.maximum(first, second), third))
        now[known[0] :] = np.repeat(median, np.diff(known, append=len(now)))
        self._recent, self._now = (int(row[-2]), int(row[-1])), int(median[-1])
        return now

    def state(self) -> dict[str, Any]:
        """Three numbers."""
        return {"recent": self._recent, "now": self._now}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state`. Raises KeyError, TypeError or ValueError where it is damaged."""
        recent = state["recent"]
        self._recent = None if recent is None else (int(recent[0]), int(recent[1]))
        self._now = int(state["now"])
