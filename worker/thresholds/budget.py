"""A budget of alerts per day or hour instead of a quantile, held over event time.

Periods slide with the event time, the clock on the wall plays no part. The budget counts the exceedances of one
partition, which gets its part of a budget for all of them: as many as there are at that moment.
"""

import math
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from typing_extensions import override

from worker.records import FloatArray, TimeArray
from worker.thresholds.partition import ThresholdPolicy
from worker.thresholds.tail import MIN_BODY, START_SHARE, Tail, TailData, fit_tail, ranked, restored_tail, saved_tail
from worker.thresholds.window import (
    decode_scores,
    encode_scores,
    median,
    require_finite,
    saved_integer,
    saved_number,
)

DAY_MS = 86_400_000
HOUR_MS = 3_600_000

PERIODS = 7  # past periods in memory: a week of days
PARTS = 8  # parts of a period, in which memory moves on and the top scores are kept
SLOTS = PERIODS * PARTS + 1  # parts in memory: those of the past periods, and the one that is open
MIN_RANK = 5.0  # alerts in a period; for smaller budgets the period is made longer, since lower ranks are all chance
FEEDBACK = 0.5  # share of the last period's over- or underspending that the rank makes up for; all of it oscillated
DRIFT_POWER = 0.5  # power of budget / usual spending (median over PERIODS) in the rank, against steady drift
SPREE = 2.0  # greatest factor between the rank in use and the budget, both ways
CLOCK_FENCE = 4  # a time further from the median of its stride than this many interquartile ranges is a wrong clock's
FAR_STRIDES = 16  # in a row that are further away than the memory, before they are believed
MAX_ADVANCE = 8  # times as far as the last stride took, a stride may go ahead, where that is more than the memory
_PART_HEAD = struct.Struct("<qqq")


class PartitionCount:
    """How many partitions share a budget: asked again at every update, for a topic can get more of them.

    ask   the number now; 0 = not known now, and the last one counts
    """

    def __init__(self, ask: Callable[[], int] = lambda: 1) -> None:
        self._ask = ask
        self._last = 1

    def __deepcopy__(self, memo: dict[int, Any]) -> "PartitionCount":
        """Itself: the thresholds of all partitions share it."""
        del memo
        return self

    def now(self) -> int:
        """At least 1."""
        self._last = self._ask() or self._last
        return self._last


ALONE = PartitionCount()


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


class AlertBudget(ThresholdPolicy):
    """The threshold that a number of scores exceed in an average period of event time.

    It is the score that would have used up the budget in a usual period: of each of the last PERIODS periods the score
    of the budget's rank is taken, and the median of them. Seven days hold a whole week, and no single wild day moves
    the median far.

    It works badly with fewer than some 5 alerts in a period, where the rank is all chance: such a budget is held over
    weeks. In the first period it knows the traffic from its calibration alone. A flood is reported by its highest
    scores, up to a few budgets a day. And without event times it has no threshold.

    calibration   scores of normal records (N,), N >= 1, used until the first part of a period has passed
    alerts        budget of all partitions for one period, above 0
    period_ms     DAY_MS or HOUR_MS
    partitions    how many share it; when their number changes, what is remembered goes on under the new part

    >>> random = np.random.default_rng(0)
    >>> budget = AlertBudget(random.exponential(size=500), alerts=50)
    >>> for start in range(0, 20 * DAY_MS, DAY_MS // 40):  # 20 days of 10,000 records
    ...     budget.update(random.exponential(size=250), np.arange(start, start + DAY_MS // 40, DAY_MS // 10_000))
    >>> bool(40 < 10_000 * np.exp(-budget.threshold()) < 60)  # alerts to expect of the next day
    True
    """

    def __init__(
        self,
        calibration: FloatArray,
        alerts: float,
        period_ms: int = DAY_MS,
        partitions: PartitionCount = ALONE,
    ) -> None:
        if not alerts > 0 or not math.isfinite(alerts):
            raise ValueError(f"a budget of {alerts} alerts is not above 0")
        if len(calibration) == 0:
            raise ValueError("a budget needs calibration scores")
        self._budget = alerts
        self._period_ms = period_ms
        self._partitions = partitions
        self._calibration = np.sort(require_finite(calibration))
        self._threshold: float | None = None
        self._parts: dict[int, _Part] = {}  # by number: event time // part_ms
        self._changed: set[int] = set()
        self.part_ms = 0
        self._start_over()
        self._divide()

    def _divide(self) -> None:
        """Take the partition's part of the budget as it is now."""
        alerts = self._budget / self._partitions.now()
        longer = math.ceil(max(1.0, MIN_RANK / alerts))
        self.alerts = alerts * longer
        self._kept = math.ceil(SPREE * self.alerts) + 1
        before, self.part_ms = self.part_ms, self._period_ms * longer // PARTS
        if before == self.part_ms:
            return
        parts, self._parts = self._parts, {}
        for number, part in parts.items():  # a part counts where it began
            joined = self._parts.setdefault(number * before // self.part_ms, _Part())
            joined.records += part.records
            joined.top = np.sort(np.concatenate([joined.top, part.top]))[-self._kept :]
            joined.spent = np.concatenate([joined.spent, part.spent])
        self._changed = set(self._parts)

    def _start_over(self) -> None:
        self._start_ms = self._now_ms = -1
        self._advance_ms = self._far_strides = 0
        self._tail: Tail | None = None  # held while a part of a period lasts
        self._parts = {}
        self._changed = set()

    @override
    def threshold(self) -> float | None:
        return self._threshold

    @override
    def update(self, scores: FloatArray, event_time_ms: TimeArray | None = None) -> None:
        scores = require_finite(scores)
        self._divide()
        if event_time_ms is None or not (event_time_ms >= 0).any():
            return
        times = self._believed(event_time_ms)
        self._start_ms = int(times.min()) if self._start_ms < 0 else self._start_ms
        held_since = self._now_ms // self.part_ms
        now_ms = max(self._now_ms, int(times.max()))
        self._advance_ms = now_ms - (self._now_ms if self._now_ms >= 0 else int(times.min()))
        self._now_ms = now_ms
        oldest = self._now_ms // self.part_ms - PERIODS * PARTS
        if self._tail is None or self._now_ms // self.part_ms > held_since:
            self._learn_tail()
        self._parts = {number: part for number, part in self._parts.items() if number >= oldest}

        times = np.maximum(times, oldest * self.part_ms)
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

    # Times may be out of order, and wrong. The median of a stride tells where the stream is: single wrong clocks do no
    # harm, and their records count at the median. A stride of which most records are further away than the memory
    # reaches counts as of now: 1,000 records of the year 2099 in a row must not make it forget. Only if FAR_STRIDES say
    # so, one after the other, the stream has gone there, and starts over. Traffic that is so thin that a stride takes
    # weeks goes on as fast as it did.
    def _believed(self, event_time_ms: TimeArray) -> TimeArray:
        """The times that the records of a stride count at, int64 (B,), for times of which one is known."""
        known = event_time_ms >= 0
        far = np.zeros(len(event_time_ms), bool)
        if self._now_ms >= 0:
            memory_ms = PERIODS * PARTS * self.part_ms
            latest = self._now_ms + max(memory_ms, MAX_ADVANCE * self._advance_ms)
            far = known & ((event_time_ms > latest) | (event_time_ms < self._now_ms - memory_ms))
        self._far_strides = self._far_strides + 1 if 2 * far.sum() > known.sum() else 0
        if 0 < self._far_strides < FAR_STRIDES:
            return np.full(len(event_time_ms), self._now_ms)
        if self._far_strides:
            self._start_over()
            far[:] = False
        counted = event_time_ms[known & ~far]
        low, middle, high = (int(time) for time in np.quantile(counted, [0.25, 0.5, 0.75]))
        wrong = ~known | far | (np.abs(event_time_ms - middle) > CLOCK_FENCE * (high - low))
        return np.where(wrong, middle, event_time_ms)

    def _choose_threshold(self) -> float:
        now, first = self._now_ms // self.part_ms, self._start_ms // self.part_ms
        past = [range(now - PARTS * (n + 1), now - PARTS * n) for n in range(min(PERIODS, (now - first) // PARTS))]
        with_records = [period for period in past if self._among(period)]
        if first < now < first + PARTS:  # what has passed of the first period stands for all of it
            usual = self._of_rank(range(first, now), self.alerts * (now - first) / PARTS)
        elif with_records:
            rank = self.alerts * self._correction(with_records)
            usual = median([self._of_rank(period, rank) for period in with_records])
        else:
            usual = self._from_calibration()
        # A flood raises no median of a week, but it has this bound: the score of twice the budget in the last period.
        return max(usual, self._of_rank(range(now - PARTS + 1, now + 1), SPREE * self.alerts))

    # Why the rank is not the budget. The score that 50 records exceeded on each of the last days is exceeded by 50
    # tomorrow only if tomorrow is as they were. Three things make it differ, and each has its factor: chance and
    # seasons, of which the feedback makes up for a half in the next period (all of it was seen to oscillate); scores
    # that rise or fall for weeks, so that the median of a week lags behind, seen by what is usually spent; and traffic,
    # for the 50th of 10,000 records is the 100th of 20,000. Without the bounds, a day without records or one with a
    # flood would lead to a rank of everything or nothing, and take a week to be forgotten.
    def _correction(self, periods: list[range]) -> float:
        """Factor on the rank, from 1 / SPREE to SPREE: more while too little is spent, less while too much."""
        since = self._now_ms - PARTS * self.part_ms
        lately = sum(int(np.count_nonzero(part.spent > since)) for part in self._parts.values())
        feedback = 1 + FEEDBACK * (self.alerts - lately) / self.alerts
        usual = median([sum(len(part.spent) for part in self._among(period)) for period in periods])
        drift = (self.alerts / max(usual, 1.0)) ** DRIFT_POWER
        records = [sum(part.records for part in self._among(period)) for period in periods]
        traffic = median(records) / records[0]
        return float(min(max(feedback * drift * traffic, 1 / SPREE), SPREE))

    def _among(self, period: range) -> list[_Part]:
        return [self._parts[number] for number in period if number in self._parts]

    def _of_rank(self, period: range, rank: float) -> float:
        """The score that `rank` scores of a period exceed; its lowest one when there are fewer."""
        scores = np.concatenate([part.top for part in self._among(period)])
        index = max(0, len(scores) - 1 - round(rank))
        return float(np.partition(scores, index)[index])

    def _from_calibration(self) -> float:
        records = sum(part.records for part in self._parts.values())
        per_period = records / max(1, self._now_ms - self._start_ms) * PARTS * self.part_ms
        share = min(1.0, self.alerts / per_period)
        return float(self._calibration[math.ceil((1 - share) * (len(self._calibration) - 1))])

    @override
    def tail_probability(self, scores: FloatArray) -> FloatArray:
        if self._tail is not None:
            return self._tail.probability(scores)
        top, records = self._highest()
        return ranked(top, records, scores) if records else np.full(len(scores), np.nan)

    def _highest(self) -> tuple[FloatArray, int]:
        """The highest scores of all parts in memory, float64 ascending (m,), and the number of all scores."""
        top = np.concatenate([np.empty(0), *(part.top for part in self._parts.values())])
        return np.sort(top), sum(part.records for part in self._parts.values())

    def _learn_tail(self) -> None:
        """Fit the tail to the scores in memory, as far down as every part has kept them."""
        top, records = self._highest()
        kept = [part.top[0] for part in self._parts.values() if len(part.top) < part.records]
        top = top[np.searchsorted(top, max(kept, default=-math.inf)) :]
        above = int(min(START_SHARE * records, len(top) / MIN_BODY))
        tail = fit_tail(TailData(top, records, float(top[-1 - above]), above / records)) if above else None
        self._tail = tail or self._tail

    @override
    def head(self) -> dict[str, Any]:
        return {
            "start_ms": self._start_ms,
            "now_ms": self._now_ms,
            "part_ms": self.part_ms,
            "threshold": self._threshold,
            "tail": saved_tail(self._tail),
        }

    # Each part of a period has a slot, which the part PERIODS periods later overwrites: nothing has to be deleted.
    @override
    def slots(self, *, only_changed: bool = False) -> dict[int, bytes]:
        numbers: Iterable[int] = self._parts
        if only_changed:
            numbers, self._changed = sorted(self._changed.intersection(self._parts)), set()
        encoded = {}
        for number in numbers:
            part = self._parts[number]
            head = _PART_HEAD.pack(number, part.records, len(part.spent))
            encoded[number % SLOTS] = head + part.spent.astype("<i8").tobytes() + encode_scores(part.top)
        return encoded

    @override
    def restore(self, head: dict[str, Any], slots: dict[int, bytes]) -> None:
        self._start_over()
        self._start_ms, self._now_ms = saved_integer(head["start_ms"], -1), saved_integer(head["now_ms"], -1)
        self._threshold = None if head["threshold"] is None else saved_number(head["threshold"])
        self.part_ms = saved_integer(head["part_ms"], 1)  # that it was saved with: the parts are numbered by it
        self._advance_ms = saved_integer(head.get("advance_ms", 0))
        self._far_strides = saved_integer(head.get("far_strides", 0))
        self._tail = restored_tail(head.get("tail"))
        now = self._now_ms // self.part_ms
        for data in slots.values():
            if len(data) < _PART_HEAD.size:
                raise ValueError("a saved part of the budget is cut off")
            number, records, spent = _PART_HEAD.unpack_from(data)
            if min(number, records, spent) < 0:
                raise ValueError("a saved part of the budget has a negative count")
            times = np.frombuffer(data, "<i8", spent, _PART_HEAD.size).astype(np.int64)
            top = require_finite(decode_scores(data[_PART_HEAD.size + times.nbytes :]))
            if now - PERIODS * PARTS <= number <= now:  # else forgotten, and not overwritten yet
                self._parts[number] = _Part(records, np.sort(top), times)
        self._parts = dict(sorted(self._parts.items()))
        self._divide()
