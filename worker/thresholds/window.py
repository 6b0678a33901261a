"""The last W scores of one partition: a ring that also keeps them sorted, and that travels in slots."""

import math
from collections.abc import Mapping

import numpy as np

from worker.records import FloatArray

SLOT_SCORES = 1000
"""Scores in one slot of the ring: the unit of saved state, and of time for the quantile of the inliers."""

GOLDEN_RATIO = (5**0.5 - 1) / 2

EMPTY = -np.inf
"""What stands in the ring where no score has been yet."""

_NARROW, _WIDE = b"\x04", b"\x08"
"""First byte of an encoded slot: width of a score in bytes."""


def require_finite(scores: FloatArray) -> FloatArray:
    """`scores` as float64 (B,); ValueError where one is NaN or infinite: it would poison the window."""
    scores = np.asarray(scores, np.float64)
    if not np.isfinite(scores).all():
        raise ValueError("a score is not finite")
    return scores


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
        return _NARROW + narrow.tobytes()
    return _WIDE + scores.astype("<f8").tobytes()


def decode_scores(data: bytes) -> FloatArray:
    """What `encode_scores` was given; ValueError when the bytes are damaged."""
    if data[:1] not in (_NARROW, _WIDE):
        raise ValueError("a slot of scores starts with an unknown width")
    kind = "<f4" if data[:1] == _NARROW else "<f8"
    scores = np.frombuffer(data, kind, offset=1).astype(np.float64)
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
    count         scores in it: `size`, or fewer while a window without seed fills
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
        if size < 1 or slot_scores < 1:
            raise ValueError(f"window size {size} and slot size {slot_scores} must be at least 1")
        seed = spread_seed(calibration, size)
        self.size = size
        self.slot_scores = min(slot_scores, size)
        self.seeded = len(seed) > 0
        self.position = 0
        self.ring = seed if self.seeded else np.full(size, EMPTY)
        self.by_slot = np.full((self.slot_count, self.slot_scores), EMPTY)
        self.touched = set(range(self.slot_count))
        self._changed = set(self.touched)
        self._sort_slots(self.touched)

    @property
    def slot_count(self) -> int:
        """Slots in the ring; the last one may be shorter."""
        return -(-self.size // self.slot_scores)

    @property
    def count(self) -> int:
        """Scores in the window."""
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
        self.touched = set((places // self.slot_scores).tolist())
        self._sort_slots(self.touched)
        self._changed |= self.touched
        return left[left > EMPTY]

    def quantile(self, quantile: float) -> float:
        """numpy.quantile(scores of the window, quantile, method="higher"), exactly; ValueError when it is empty.

        It is a score that really occurred, and at most (1 - quantile) of the scores lie above it.
        """
        if self.count == 0:
            raise ValueError("an empty window has no quantile")
        above = self.count - 1 - math.ceil(quantile * (self.count - 1))
        candidates = self.by_slot[:, -(above + 1) :].ravel()  # (slots x above + 1,): no slot can hold more of the top
        place = len(candidates) - 1 - above
        return float(np.partition(candidates, place)[place])

    def _sort_slots(self, indices: set[int]) -> None:
        for index in indices:
            scores = self.slot(index)
            self.by_slot[index, -len(scores) :] = np.sort(scores)

    def slot(self, index: int) -> FloatArray:
        """The scores of one slot, a view of the ring."""
        return self.ring[index * self.slot_scores : (index + 1) * self.slot_scores]

    def slots(self) -> dict[int, bytes]:
        """Every slot, encoded."""
        return {index: encode_scores(self.slot(index)) for index in range(self.slot_count)}

    def take_changed_slots(self) -> dict[int, bytes]:
        """The slots that changed since the last call (all of them at first), encoded; a commit writes just these."""
        changed = {index: encode_scores(self.slot(index)) for index in sorted(self._changed)}
        self._changed.clear()
        return changed

    def restore(self, position: int, slots: Mapping[int, bytes]) -> None:
        """Continue from saved slots, which then count as unchanged. ValueError when they do not fit this window."""
        if set(slots) != set(range(self.slot_count)) or position < 0:
            raise ValueError(f"saved window has {len(slots)} slots at position {position}, expected {self.slot_count}")
        ring = np.concatenate([decode_scores(slots[index]) for index in range(self.slot_count)])
        if len(ring) != self.size:
            raise ValueError(f"saved window has {len(ring)} scores, expected {self.size}")
        self.ring = ring
        self.position = position
        self.touched = set(slots)
        self._sort_slots(self.touched)
        self._changed.clear()
