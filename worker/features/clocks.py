"""Which numbers of the magnitude of Unix times are times, by the times that the same records have in strings."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from worker.features.kinds import Field
from worker.records import TimeArray

_DAY_MS = 86_400_000
PAST_MS, FUTURE_MS = 3_652 * _DAY_MS, 366 * _DAY_MS  # what a record may name: ten years before it, one year after it
HEAD = 100  # values that tell whether times are written as such
MAX_SPEED, SLACK_MS = 10, 30 * _DAY_MS  # times may spread so many times as far as the records themselves, and so far


class Clock(NamedTuple):
    """The first and the last time of the records, milliseconds."""

    low: int
    high: int

    def fits(self, field: Field, present: Sequence[Any]) -> bool:
        """Whether a field of times has such as these records may name. A counter of bytes lies elsewhere, or runs
        faster: by 100 million seconds in a day.
        """
        times = _times(field, present)
        if not len(times):
            return True
        low, high = np.quantile(times, [0.01, 0.99])  # a few times that nobody set, 1970 or 9999, must not decide
        is_near = self.low - PAST_MS <= low and high <= self.high + FUTURE_MS
        return bool(is_near and high - low <= MAX_SPEED * (self.high - self.low) + SLACK_MS)


def find_clock(columns: Iterable[tuple[Field, Sequence[Any]]]) -> Clock | None:
    """The clock of fields with their values: of those that hold times beyond doubt, for they are written as such; None
    without one.
    """
    times = [_times(*column) for column in columns if is_written(*column)]
    times = [part for part in times if len(part)]
    return Clock(min(int(t.min()) for t in times), max(int(t.max()) for t in times)) if times else None


def is_written(field: Field, present: Sequence[Any]) -> bool:
    """Whether a field holds times that could be nothing else: strings that are no mere numbers."""
    # A mark in front may be a number's sign; behind digits it parts a year from a month, or an hour from a minute.
    texts = (value.strip() for value in present[:HEAD] if type(value) is str)
    return field.is_time and any(mark in text[1:] for text in texts for mark in "-/: ")


def _times(field: Field, present: Sequence[Any]) -> TimeArray:
    column, failures = field.read(present)
    there = [index for index, value in enumerate(column.values) if value is not None and index not in failures]
    times: TimeArray = column.numbers[there]
    return times
