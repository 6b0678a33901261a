"""Python's cyclic garbage collector, kept out of the way of the record loop.

A batch makes tens of thousands of small objects that live as long as the batch, and hardly any in cycles. Left to
itself, the collector walks them again and again; a full collection over all that a process has imported takes 0.15 s,
in the middle of a delivery. So what is loaded is frozen, the thresholds are raised, and the loop collects between two
batches, where nobody waits.
"""

import gc

THRESHOLD = 100_000
"""New objects between two collections that Python starts by itself."""

BETWEEN_BATCHES = 5_000
"""New objects from which on garbage is collected between two batches, about 10 ms."""

OLDER_EVERY = 50
"""Collections of new objects between two of older ones."""


def calm_garbage_collector() -> None:
    """Leave what was loaded so far out of every collection, and collect less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(THRESHOLD, 20, 20)


class Garbage:
    """Collects between two batches."""

    def __init__(self) -> None:
        self._collections = 0

    def collect(self) -> None:
        """Collect now, if there are objects for it."""
        if gc.get_count()[0] < BETWEEN_BATCHES:
            return
        self._collections += 1
        gc.collect(1 if self._collections % OLDER_EVERY == 0 else 0)
