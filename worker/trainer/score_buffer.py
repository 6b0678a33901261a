"""The scores since the last look, thinned out evenly where there are many."""

import numpy as np

from worker.records import FloatArray

MOST = 20_000
"""Scores kept, at most twice as many in between: enough to tell a per cent from none."""


class Stretch:
    """Scores in order of arrival; beyond twice MOST every second one is dropped, and of those that follow."""

    def __init__(self) -> None:
        self.step = 1  # each step-th score is kept
        self.seen = 0
        self._kept = np.empty(0)

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, scores: FloatArray) -> None:
        """The next scores (B,)."""
        first = -self.seen % self.step
        self.seen += len(scores)
        self._kept = np.concatenate([self._kept, scores[first :: self.step]])
        while len(self._kept) > 2 * MOST:
            self.step *= 2
            self._kept = self._kept[::2]

    def scores(self) -> FloatArray:
        """What is kept, float64 (n,)."""
        return self._kept

    def last(self, count: int) -> "Stretch":
        """The newest `count` of what is kept, and how many records they stand for."""
        part = Stretch()
        part.restore(self._kept[-count:], step=self.step, seen=min(count * self.step, self.seen))
        return part

    def clear(self) -> None:
        """Begin anew."""
        self.step, self.seen, self._kept = 1, 0, np.empty(0)

    def restore(self, kept: FloatArray, *, step: int, seen: int) -> None:
        """Go on from a saved state."""
        self.step, self.seen, self._kept = step, seen, kept
