"""The tolerance for bad input is bounded: a stream that turns all bad stops the worker, offsets kept."""

from collections import deque

from worker.errors import BreakerTripped


class Breaker:
    """Trips on too many invalid records in a row, or too large a share of the last `window` records.

    It is asked before a batch's dead letters are published, so the batch that trips it is not committed. A batch with
    any scored record in it ends a row of invalid ones. ratio 1.0 and consecutive 0 mean never.
    """

    def __init__(self, *, invalid_ratio: float, window: int, consecutive: int) -> None:
        self._ratio = invalid_ratio
        self._window = window
        self._consecutive = consecutive
        self._recent: deque[tuple[int, int]] = deque()  # (records, invalid ones) of each batch
        self._records = self._invalid = self._in_a_row = 0

    def check(self, scored: int, invalid: int) -> None:
        """Count a batch. Raises BreakerTripped, naming the limit that was passed."""
        self._in_a_row = 0 if scored else self._in_a_row + invalid
        self._recent.append((scored + invalid, invalid))
        self._records += scored + invalid
        self._invalid += invalid
        while self._records - self._recent[0][0] >= self._window:
            records, bad = self._recent.popleft()
            self._records -= records
            self._invalid -= bad
        if self._consecutive and self._in_a_row >= self._consecutive:
            raise BreakerTripped(
                f"{self._in_a_row} invalid records in a row (WORKER_BREAKER__CONSECUTIVE = {self._consecutive}): "
                f"is this the right topic and schema? Nothing of this batch was committed"
            )
        if self._records >= self._window and self._invalid > self._ratio * self._records:
            raise BreakerTripped(
                f"{self._invalid} of the last {self._records} records are invalid "
                f"(WORKER_BREAKER__INVALID_RATIO = {self._ratio}): nothing of this batch was committed"
            )
