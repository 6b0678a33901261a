"""The tolerance for bad input is bounded: a stream that turns all bad stops the worker, offsets kept."""

from collections import deque
from dataclasses import dataclass

from worker.errors import BreakerTripped


@dataclass(eq=False, kw_only=True)
class Breaker:
    """Trips on too many invalid records in a row, or too large a share of the last ones.

    It is asked before a batch's dead letters are published, so the batch that trips it is not committed; a restart
    reads it again and trips again, until the topic, the schema or the offsets are put right.

    It counts whole batches. A batch with any scored record in it ends a row of invalid ones, so one good record in each
    batch keeps `consecutive` from tripping; and the last `window` records are those of the whole batches that hold
    them, so with batches of 8,192 a window of 1,000 is the last batch. A restart counts from 0.

    invalid_ratio  share of the last records that may be invalid; 1.0 = any
    window         number of last records; below that the share is not looked at
    consecutive    invalid records in a row that trip it; 0 = never

    >>> breaker = Breaker(invalid_ratio=0.5, window=100, consecutive=0)
    >>> breaker.check(scored=80, invalid=20)
    >>> breaker.check(scored=0, invalid=100)
    Traceback (most recent call last):
    ...
    worker.errors.BreakerTripped: 100 of the last 100 records are invalid ...
    """

    invalid_ratio: float
    window: int
    consecutive: int

    def __post_init__(self) -> None:
        self._batches: deque[tuple[int, int]] = deque()  # (records, invalid ones) of each
        self._records = self._invalid = self._in_a_row = 0

    def check(self, scored: int, invalid: int) -> None:
        """Counts a batch. Raises BreakerTripped, naming the limit that was passed."""
        self._in_a_row = 0 if scored else self._in_a_row + invalid
        self._batches.append((scored + invalid, invalid))
        self._records += scored + invalid
        self._invalid += invalid
        while self._records - self._batches[0][0] >= self.window:
            records, bad = self._batches.popleft()
            self._records -= records
            self._invalid -= bad
        if self.consecutive and self._in_a_row >= self.consecutive:
            raise BreakerTripped(
                f"{self._in_a_row} invalid records in a row ([breaker.consecutive] = {self.consecutive}): "
                f"is this the right topic and schema? Nothing of this batch was committed"
            )
        if self._records >= self.window and self._invalid > self.invalid_ratio * self._records:
            raise BreakerTripped(
                f"{self._invalid} of the last {self._records} records are invalid "
                f"([breaker.invalid_ratio] = {self.invalid_ratio}): nothing of this batch was committed"
            )
