"""A budget of alerts per day or hour instead of a quantile, held over event time.

The threshold is the score that would have used up the budget in a usual period: of each of the last PERIODS periods
the score of the budget's rank is taken, and the median of them. Seven days hold a whole week, and no single day,
however wild, moves the median far. The rank is corrected for what was spent lately, for what is usually spent, and for
traffic that has grown or shrunk; and a flood is reported by its highest scores, not by all of them.

Periods slide with the event time, the clock on the wall plays no part. The budget counts score > threshold of one
partition: whoever spreads one budget over partitions divides it.
"""

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.records import FloatArray
from worker.thresholds.window import decode_scores, encode_scores, require_finite

TimeArray = NDArray[np.int64]

DAY_MS = 86_400_000
HOUR_MS = 3_600_000

PERIODS = 7
"""Past periods in memory: a week of days."""

PARTS = 8
"""Parts of a period, in which memory moves on and the top scores are kept."""

LEAST_RANK = 5.0
"""Alerts in a period, at least; for smaller budgets the period is stretched, since lower ranks are all chance."""

FEEDBACK = 0.5
"""Share of the last period's over- or underspending that the rank makes up for; 1.0 was seen to oscillate."""

DRIFT_POWER = 0.5
"""Power of budget / usual spending (the median over PERIODS) that the rank is multiplied by, against steady drift."""

SPREE = 2.0
"""Greatest factor between the rank in use and the budget, both ways. The score of rank SPREE x budget in the last
period is also the least threshold, which bounds a flood."""

CLOCK_FENCE = 4
"""A time further from the median of its stride than this many interquartile ranges is a wrong clock, and is mended."""

_PART_HEAD = struct.Struct("<qqq")


@dataclass
class _Part:
    """What is remembered of one part of a period.

    records  scores seen in it
    top      its highest scores, float64 ascending
    spent    event times of the scores that were above the threshold, int64 milliseconds
    """

    records: int = 0
    top: FloatArray = field(default_factory=lambda: np.empty(0))
    spent: TimeArray = field(default_factory=lambda: np.empty(0, np.int64))

    def encode(self, number: int) -> bytes:
        head = _PART_HEAD.pack(number, self.records, len(self.spent))
        return head + self.spent.astype("<i8").tobytes() + encode_scores(self.top)


def _decode_part(data: bytes) -> tuple[int, _Part]:
    if len(data) < _PART_HEAD.size:
        raise ValueError("a saved part of the budget is cut off")
    number, records, spent = _PART_HEAD.unpack_from(data)
    times = np.frombuffer(data, "<i8", spent, _PART_HEAD.size).astype(np.int64)
    return number, _Part(records, decode_scores(data[_PART_HEAD.size + times.nbytes :]), times)


class AlertBudget:
    """The threshold that `alerts` scores exceed in an average period of event time.

    calibration  scores of known ordinary records (N,), N >= 1, used until the first part of a period has passed
    alerts       budget for one period, above 0
    period_ms    DAY_MS or HOUR_MS
    """

    def __init__(self, calibration: FloatArray, alerts: float, period_ms: int = DAY_MS) -> None:
        if not alerts > 0 or not math.isfinite(alerts):
            raise ValueError(f"a budget of {alerts} alerts is not above 0")
        if len(calibration) == 0:
            raise ValueError("a budget needs calibration scores")
        stretch = math.ceil(max(1.0, LEAST_RANK / alerts))
        self.alerts = alerts * stretch
        self.part_ms = period_ms * stretch // PARTS
        self._calibration = np.sort(require_finite(calibration))
        self._kept = math.ceil(SPREE * self.alerts) + 1
        self._threshold: float | None = None
        self._start_over()

    def _start_over(self) -> None:
        self._start_ms = self._now_ms = -1
        self._parts: dict[int, _Part] = {}  # by number: event time // part_ms
        self._changed: set[int] = set()

    def threshold(self) -> float | None:
        """The threshold for the next stride; None before the first records with a time."""
        return self._threshold

    def update(self, scores: FloatArray, event_time_ms: TimeArray | None = None) -> None:
        """Learn scores (B,) with their times int64 (B,), UTC; without times nothing is learned.

        ValueError if a score is not finite. Times may be out of order: the median of a stride tells where the stream
        is, so that single wrong clocks do no harm. A stream that steps back by more than the memory starts over.
        """
        scores = require_finite(scores)
        if event_time_ms is None or not (event_time_ms >= 0).any():
            return
        times = self._move_to(event_time_ms)
        over = scores > (math.inf if self._threshold is None else self._threshold)
        numbers = times // self.part_ms
        for number in np.unique(numbers).tolist():
            here = numbers == number
            part = self._parts.setdefault(number, _Part())
            part.records += int(np.count_nonzero(here))
            part.top = np.sort(np.concatenate([part.top, scores[here]]))[-self._kept :]
            part.spent = np.concatenate([part.spent, times[over & here]])
            self._changed.add(number)
        self._threshold = self._choose_threshold()

    def _move_to(self, times: TimeArray) -> TimeArray:
        """Advance to the time of a stride, forget what is too old, and return a usable time for each record."""
        low, middle, high = (int(time) for time in np.quantile(times[times >= 0], [0.25, 0.5, 0.75]))
        if middle < self._now_ms - PERIODS * PARTS * self.part_ms:
            self._start_over()
        usable = np.where((times < 0) | (np.abs(times - middle) > CLOCK_FENCE * (high - low)), middle, times)
        self._start_ms = int(usable.min()) if self._start_ms < 0 else self._start_ms
        self._now_ms = max(self._now_ms, int(usable.max()))
        oldest = self._now_ms // self.part_ms - PERIODS * PARTS
        for number in [number for number in self._parts if number < oldest]:
            del self._parts[number]
        mended: TimeArray = np.maximum(usable, oldest * self.part_ms)
        return mended

    def _choose_threshold(self) -> float:
        now = self._now_ms // self.part_ms
        bound = self._of_rank(range(now - PARTS + 1, now + 1), SPREE * self.alerts)
        return max(bound, self._usual_threshold(now, self._start_ms // self.part_ms))

    def _usual_threshold(self, now: int, first: int) -> float:
        if now == first:
            return self._from_calibration()
        if now - first < PARTS:  # what has passed of the first period stands for all of it
            return self._of_rank(range(first, now), self.alerts * (now - first) / PARTS)
        past = [range(now - PARTS * (n + 1), now - PARTS * n) for n in range(min(PERIODS, (now - first) // PARTS))]
        told = [period for period in past if any(True for _ in self._among(period))]
        if not told:
            return self._from_calibration()
        rank = self.alerts * self._correction(told)
        return _median([self._of_rank(period, rank) for period in told])

    def _correction(self, told: list[range]) -> float:
        """Factor on the rank, from 1 / SPREE to SPREE: more while too little is spent, less while too much."""
        since = self._now_ms - PARTS * self.part_ms
        lately = sum(int(np.count_nonzero(part.spent > since)) for part in self._parts.values())
        feedback = 1 + FEEDBACK * (self.alerts - lately) / self.alerts
        usual = _median([sum(len(part.spent) for part in self._among(period)) for period in told])
        drift = (self.alerts / max(usual, 1.0)) ** DRIFT_POWER
        records = [sum(part.records for part in self._among(period)) for period in told]
        traffic = _median(records) / records[0]  # with less traffic now, a rank reaches less deep
        return float(min(max(feedback * drift * traffic, 1 / SPREE), SPREE))

    def _among(self, period: range) -> Iterable[_Part]:
        return (self._parts[number] for number in period if number in self._parts)

    def _of_rank(self, period: range, rank: float) -> float:
        """The score that `rank` scores of a period exceed; its lowest one when there are fewer."""
        scores = np.concatenate([part.top for part in self._among(period)])
        place = max(0, len(scores) - 1 - round(rank))
        return float(np.partition(scores, place)[place])

    def _from_calibration(self) -> float:
        records = sum(part.records for part in self._parts.values())
        per_period = records / max(1, self._now_ms - self._start_ms) * PARTS * self.part_ms
        share = min(1.0, self.alerts / per_period)
        return float(self._calibration[math.ceil((1 - share) * (len(self._calibration) - 1))])

    def tail_probability(self, scores: FloatArray) -> FloatArray:
        """Share of all scores in memory at least as high as scores (B,), float64 (B,); NaN while it is empty."""
        if not self._parts:
            return np.full(len(scores), np.nan)
        top = np.sort(np.concatenate([part.top for part in self._parts.values()]))
        records = sum(part.records for part in self._parts.values())
        return (1 + len(top) - np.searchsorted(top, scores, side="left")) / (1 + records)

    def head(self) -> dict[str, Any]:
        """The small part of the state, plain data: all but the slots."""
        return {"start_ms": self._start_ms, "now_ms": self._now_ms, "threshold": self._threshold}

    def slots(self) -> dict[int, bytes]:
        """Every part of a period in memory, encoded; a slot is overwritten after PERIODS periods."""
        return self._encode(self._parts)

    def take_changed_slots(self) -> dict[int, bytes]:
        """The parts that changed since the last call, encoded."""
        changed = self._encode(sorted(self._changed.intersection(self._parts)))
        self._changed.clear()
        return changed

    def _encode(self, numbers: Iterable[int]) -> dict[int, bytes]:
        return {number % (PERIODS * PARTS + 1): self._parts[number].encode(number) for number in numbers}

    def restore(self, head: dict[str, Any], slots: dict[int, bytes]) -> None:
        """Continue from a saved head and every slot. ValueError when they are damaged."""
        self._start_over()
        self._start_ms, self._now_ms = int(head["start_ms"]), int(head["now_ms"])
        self._threshold = None if head["threshold"] is None else float(head["threshold"])
        oldest = self._now_ms // self.part_ms - PERIODS * PARTS
        parts = sorted((_decode_part(data) for data in slots.values()), key=lambda item: item[0])
        self._parts = {number: part for number, part in parts if oldest <= number <= self._now_ms // self.part_ms}


def _median(values: list[float] | list[int]) -> float:
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
