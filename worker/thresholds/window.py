"""The last W scores of one partition, a ring that also keeps them sorted and travels in slots."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from worker.records import FloatArray

SLOT_SCORES = 1000  # in a slot of the ring: the unit of saved state, and of time for the quantile of the inliers
GOLDEN_RATIO = (5**0.5 - 1) / 2

EMPTY = -np.inf  # what stands in the ring where no score has been yet
_WIDTHS = {b"\x04": "<f4", b"\x08": "<f8"}  # first byte of encoded scores, the width of each in bytes, to their dtype


def require_finite(scores: FloatArray) -> FloatArray:
    """`scores` as float64 (B,); ValueError where one is NaN or infinite: it would poison the window."""
    scores = np.asarray(scores, np.float64)
    if not np.isfinite(scores).all():
        raise ValueError("a score is not finite")
    return scores


MAX_SAVED = 1 << 62  # of an integer in a saved state: arithmetic with two of them still fits 64 bits


def saved_integer(value: Any, low: int = 0) -> int:
    """An integer of a saved state, from `low` to MAX_SAVED; ValueError for anything else."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= MAX_SAVED:
        raise ValueError(f"saved state has {value!r:.40} where an integer from {low} on is due")
    return value


def saved_number(value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """A finite number of a saved state, from `low` to `high`; ValueError for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not low <= value <= high:
        raise ValueError(f"saved state has {value!r:.40} where a number from {low:g} to {high:g} is due")
    return float(value)


def median(values: FloatArray | Sequence[float]) -> float:
    """The median of at least one value."""
    ordered = np.sort(values)  # numpy.median costs more than all the rest of an update on so few values
    return float(ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def spread_seed(calibration: FloatArray, size: int) -> FloatArray:
    """Evenly spaced order statistics of `calibration` (N,), float64 (size,), in an order without trend.

    Their order is that of a Weyl sequence, the multiples of the golden ratio modulo 1: any run of neighbours holds
    nearly the same distribution as the whole, so that the seed leaves a window evenly as real scores push it out. No
    random order is as even. Empty when `calibration` is empty.
    """
    ordered = np.sort(require_finite(calibration))
    if len(ordered) == 0:
        return np.empty(0)
    ranks = np.argsort(np.argsort(np.arange(size) * GOLDEN_RATIO % 1.0, kind="stable"), kind="stable")
    return ordered[((ranks + 0.5) * len(ordered) / size).astype(np.int64)]


def encode_scores(scores: FloatArray) -> bytes:
    """Width byte, then little-endian floats: 4 bytes a score where that loses nothing, else 8."""
    narrow = scores.astype("<f4")
    if np.array_equal(narrow.astype(np.float64), scores):
        return b"\x04" + narrow.tobytes()
    return b"\x08" + scores.astype("<f8").tobytes()


def decode_scores(data: bytes) -> FloatArray:
    """What `encode_scores` was given; ValueError when the bytes are damaged."""
    if data[:1] not in _WIDTHS:
        raise ValueError("a slot of scores starts with an unknown width")
    scores = np.frombuffer(data, _WIDTHS[data[:1]], offset=1).astype(np.float64)
    if not (scores < np.inf).all():
        raise ValueError("a slot of scores holds one that is not finite")
    return scores


class ScoreWindow:
    """The last `size` scores, seeded from calibration scores.

    It works badly as a source of quantiles until real scores have pushed the seed out: many seed scores stand for few
    calibration scores, and the highest quantiles among them are those of a handful.

    size          scores in the window
    slot_scores   scores in a slot; the last slot may be shorter
    ring          float64 (size,), the scores in order of arrival, the oldest at `position % size`
    by_slot       float64 (slots, slot_scores), the same scores sorted within each slot, EMPTY where there is none
    position      real scores that have entered since the start
    touched       slots that the last push wrote to

    >>> window = ScoreWindow(np.array([1.0, 2.0, 3.0, 4.0]), size=8, slot_scores=4)
    >>> window.ring.tolist()
    [1.0, 3.0, 2.0, 4.0, 3.0, 1.0, 4.0, 2.0]
    >>> window.push(np.array([9.0, 9.0])).tolist(), window.quantile(0.5)
    ([1.0, 3.0], 4.0)

    Weyl, "Über die Gleichverteilung von Zahlen mod. Eins", Mathematische Annalen 77 (1916).
    """

    def __init__(self, calibration: FloatArray, size: int, slot_scores: int = SLOT_SCORES) -> None:
        if size < 1:
            raise ValueError(f"window size {size} must be at least 1")
        seed = spread_seed(calibration, size)
        self.size = size
        self.slot_scores = min(slot_scores, size)
        self.slot_count = -(-size // self.slot_scores)
        self.seeded = len(seed) > 0
        self.position = 0
        self.ring = seed if self.seeded else np.full(size, EMPTY)
        self.by_slot = np.full((self.slot_count, self.slot_scores), EMPTY)
        self._changed: set[int] = set()
        self._touch(set(range(self.slot_count)))

    @property
    def count(self) -> int:
        """Scores in the window: `size`, or fewer while one without seed fills."""
        return self.size if self.seeded else min(self.position, self.size)

    def push(self, scores: FloatArray) -> FloatArray:
        """Let `scores` (B,), B <= size, enter in order; returns those that left.

        ValueError if one is not finite; then none has entered.
        """
        scores = require_finite(scores)
        if len(scores) > self.size:
            raise ValueError(f"{len(scores)} scores at once do not fit a window of {self.size}")
        places = np.arange(self.position, self.position + len(scores)) % self.size
        left = self.ring[places]
        self.ring[places] = scores
        self.position += len(scores)
        self._touch(set((places // self.slot_scores).tolist()))
        return left[left > EMPTY]  # none while a window without seed fills

    def _touch(self, slots: set[int]) -> None:
        # Only what was written is sorted again: an update costs a slot of 1,000, not a window of 20,000.
        self.touched = slots
        self._changed |= slots
        for index in slots:
            scores = self._slot(index)
            self.by_slot[index, -len(scores) :] = np.sort(scores)

    def _slot(self, index: int) -> FloatArray:
        return self.ring[index * self.slot_scores : (index + 1) * self.slot_scores]

    def quantile(self, quantile: float) -> float:
        """numpy.quantile(scores of the window, quantile, method="higher"), exactly; the window must not be empty.

        It is a score that really occurred, and at most (1 - quantile) of the scores lie above it.
        """
        above = self.count - 1 - math.ceil(quantile * (self.count - 1))
        candidates = self.by_slot[:, -(above + 1) :].ravel()  # (slots x above + 1,): no slot can hold more of the top
        place = len(candidates) - 1 - above
        return float(np.partition(candidates, place)[place])

    def highest(self, share: float, below: float = np.inf, moves: FloatArray | None = None) -> tuple[FloatArray, int]:
        """About a share of the scores, the highest ones, float64 ascending (m,); and the number of all of them.

        below   scores from here on don't count
        moves   factors (slots,) on the scores of each slot
        """
        scores = self.by_slot
        counted = (scores > EMPTY) & (scores < below)
        if not counted.any():
            return np.empty(0), 0
        if moves is not None:
            scores = np.where(counted, scores, 0.0) * moves[:, np.newaxis]
        # The lowest is a median over slots of one column: to find the exact rank would sort all of the window.
        column = max(0, round((1 - share) * self.slot_scores) - 1)
        lowest = min(float(np.median(scores[:, column])), float(scores[counted].max()))
        return np.sort(scores[counted & (scores >= lowest)]), int(np.count_nonzero(counted))

    def slots(self, *, only_changed: bool) -> dict[int, bytes]:
        """The slots of a policy's state, as `ThresholdPolicy.slots` has them."""
        indices: Iterable[int] = range(self.slot_count)
        if only_changed:
            indices, self._changed = sorted(self._changed), set()
        return {index: encode_scores(self._slot(index)) for index in indices}

    def restore(self, position: int, slots: Mapping[int, bytes]) -> None:
        """Continue from saved slots, which then count as unchanged. ValueError when they do not fit this window."""
        if set(slots) != set(range(self.slot_count)) or position < 0:
            raise ValueError(f"saved window has {len(slots)} slots at position {position}, expected {self.slot_count}")
        ring = np.concatenate([decode_scores(slots[index]) for index in range(self.slot_count)])
        if len(ring) != self.size:
            raise ValueError(f"saved window has {len(ring)} scores, expected {self.size}")
        empty = 0 if self.seeded else max(0, self.size - position)
        if np.count_nonzero(np.isneginf(ring)) != empty:
            raise ValueError(f"saved window has other than {empty} places without a score")
        self.ring, self.position = ring, position
        self._touch(set(slots))
        self._changed.clear()
