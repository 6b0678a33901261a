"""The default policy: the quantile of the scores that belong to ordinary traffic.

Every score stays in the window, flagged or not: leaving out what was flagged would feed the threshold back into itself.
Instead the window is asked which of its scores are ordinary.

1. Valley. Scores beyond a valley of the density are another population, not a tail; the rest is ordinary. A population
   that the calibration holds in the same measure is ordinary too.
2. Blocks. The quantile is computed in blocks of about 1,000 records, and their median is used: a burst that fills a few
   blocks moves nothing, a tail that is heavier everywhere does.
3. Level. Each block's quantile is carried over to the level of the latest blocks, as far as the blocks' quantiles have
   followed their levels, so that seasons and drift, which move all scores together, do not wait for the median.
4. Floor. Where there is a valley, the tail may be hidden behind it: the calibrated quantile, moved with the level, is
   then the least threshold.
5. Shift. A flood adds records, a shift replaces them: when almost nothing of half a window is left below the valley,
   the largest population is the new ordinary one.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.records import FloatArray
from worker.thresholds.density import REACH, bin_of, count_bins, find_valley, lower_edge, smooth
from worker.thresholds.location import followed, level_moves
from worker.thresholds.tail import tail_of
from worker.thresholds.window import EMPTY, SLOT_SCORES, ScoreWindow, require_finite

BLOCKS = 20
"""Blocks in a window, at least; more where a window is longer than this many slots."""

BLOCK_TAIL = 5.0
"""Scores expected above the quantile in a block, at least: rarer quantiles get longer blocks."""

BLOCK_LEAST = 50
"""Ordinary scores without which a slot says nothing about them."""

LEVEL_QUANTILE = 0.25
"""The level of a slot is this quantile of its ordinary scores: of all the robust one, since floods come from above."""

LEVEL_SLOTS = 6
"""Latest slots whose median level is the level now."""

START_QUANTILE = 0.9
"""Populations below this quantile of the calibration scores are ordinary: the search for a valley starts there."""

SHARE_ERRORS = 2.0
"""Standard errors by which a population's share may exceed its share of the calibration before it is another one."""

FLOOR_ERRORS = 0.5
"""Standard errors, in ranks, by which the floor lies below the calibrated quantile: a floor that is too low costs a
few false alerts, one that is too high hides everything beneath it."""

GONE = 0.05
"""Share of half a window below the valley, under which the old traffic is gone."""


def calibrated_quantile(ordered: FloatArray, quantile: float) -> float:
    """The quantile of few sorted scores (N,), N >= 1, a little low: the mean of the scores within a standard error.

    The standard error of a quantile's rank is sqrt(N q (1 - q)).
    """
    error = math.sqrt(len(ordered) * quantile * (1 - quantile))
    middle = math.ceil(quantile * (len(ordered) - 1)) - round(FLOOR_ERRORS * error)
    ranks = np.clip(np.arange(middle - round(error), middle + round(error) + 1), 0, len(ordered) - 1)
    return float(ordered[ranks].mean())


class InlierQuantile:
    """Quantile of the ordinary scores in a sliding window that starts as a resample of the calibration scores.

    calibration  scores of known ordinary records (N,), N >= 1
    quantile     share of ordinary scores at or below the threshold, in (0, 1)
    window       scores remembered
    cut          scores from here on are another population; infinite where there is no valley
    level        lower quartile of the ordinary scores now
    shifts       times that the ordinary population was replaced
    """

    def __init__(self, calibration: FloatArray, quantile: float = 0.995, window: int = 20_000) -> None:
        if not 0 < quantile < 1:
            raise ValueError(f"quantile {quantile} is not between 0 and 1")
        if len(calibration) == 0:
            raise ValueError("the ordinary policy needs calibration scores")
        ordered = np.sort(require_finite(calibration))
        self.quantile = quantile
        self.window = ScoreWindow(ordered, window, min(SLOT_SCORES, math.ceil(window / BLOCKS)))
        self.cut = math.inf
        self.shifts = 0
        self._following = 0.0  # share of a level's move that the quantiles follow
        self._calibration = ordered
        self.level = _at(ordered, LEVEL_QUANTILE)
        self._calibrated_levels = np.array([self.level])
        self._floor = self._threshold = calibrated_quantile(ordered, quantile)
        self._start = bin_of(_at(ordered, START_QUANTILE)) - bin_of(self.level)
        self._counts = count_bins(self.window.ring)
        slots = self.window.slot_count
        self._rank_error = math.sqrt(LEVEL_QUANTILE * (1 - LEVEL_QUANTILE) / self.window.slot_scores)
        self._least = min(BLOCK_LEAST, self.window.slot_scores)
        self._all_slots = np.arange(slots)
        self._empty = np.count_nonzero(np.isneginf(self.window.by_slot), axis=1)  # (slots,) places without a score
        self._ordinary = np.zeros(slots, np.int64)  # (slots,) ordinary scores in each
        self._levels = np.zeros(slots)
        self._errors = np.zeros(slots)  # standard error of each level
        self._blocks = self._split_into_blocks()
        self._quantiles = np.zeros(len(self._blocks) - 1)
        self._summarise(self._all_slots)
        self._move()

    def threshold(self) -> float:
        """The threshold for the next stride."""
        return self._threshold

    def tail_probability(self, scores: FloatArray) -> FloatArray:
        """Share of ordinary scores at least as high as scores (B,), float64 (B,); NaN where there are none.

        The window's scores count at the level now. Where the floor has lifted the threshold above them, their tail is
        stretched until the threshold's own probability is 1 - quantile.
        """
        if not self._ordinary.any():
            return np.full(len(scores), np.nan)
        tail = tail_of(self.window, len(self._calibration), self.cut, self._moves(self._levels))
        place = len(tail.top) - 1 - int((1 - self.quantile) * (tail.total - 1))
        reached = float(tail.top[place]) if place >= 0 else 0.0
        lifted = self.cut < math.inf and self._threshold > reached > 0
        return tail.probability(scores * (reached / self._threshold) if lifted else scores)

    @property
    def beyond(self) -> float:
        """Share of the window that is not ordinary, in [0, 1]."""
        return 1 - float(self._ordinary.sum()) / self.window.size

    def update(self, scores: FloatArray, event_time_ms: NDArray[np.int64] | None = None) -> None:  # noqa: ARG002
        """Let scores (B,) enter in offset order; times are not used. ValueError if one is not finite."""
        left = self.window.push(scores)
        self._counts += count_bins(scores) - count_bins(left)
        self._summarise(np.array(sorted(self.window.touched)))
        self._move()

    def _move(self) -> None:
        self._set_cut(self._find_cut())
        if self.cut < math.inf and self._is_old_traffic_gone():
            self._follow_shift()
        self._follow_level()
        self._threshold = self._choose_threshold()

    def _find_cut(self) -> float:
        end = bin_of(float(self.window.by_slot[:, -1].max())) + REACH + 1  # beyond it all bins are empty
        ordinary = np.cumsum(self._counts[: min(end, bin_of(self.cut))])
        high = int(np.searchsorted(ordinary, START_QUANTILE * ordinary[-1]))
        start = min(bin_of(self.level) + self._start, high)
        while (valley := find_valley(self._counts[:end], start)) is not None:
            beyond = self._counts[bin_of(valley) : end]
            if beyond.sum() > self._calibrated_share(valley) * self.window.count:
                return valley
            start = bin_of(valley) + max(1, int(np.argmax(smooth(beyond))))
        return math.inf

    def _calibrated_share(self, score: float) -> float:
        """Share of the calibration from a score on, after both have come to the same level, and its error on top."""
        calibrated = float(self._calibrated_levels[0])
        rise = self.level / calibrated if self.level > 0 and calibrated > 0 else 1.0
        beyond = len(self._calibration) - int(np.searchsorted(self._calibration, score / rise))
        return (beyond + SHARE_ERRORS * math.sqrt(beyond)) / len(self._calibration)

    def _set_cut(self, cut: float) -> None:
        if cut != self.cut:
            self.cut = cut
            self._summarise(self._all_slots)

    def _is_old_traffic_gone(self) -> bool:
        half = self._latest_slots(max(1, self.window.slot_count // 2))
        held = self.window.slot_scores * len(half) - self._empty[half].sum()
        return bool(self._ordinary[half].sum() < GONE * held)

    def _follow_shift(self) -> None:
        half = self._latest_slots(max(1, self.window.slot_count // 2))
        peak = int(np.argmax(smooth(count_bins(self.window.by_slot[half].ravel()))))
        self.level = lower_edge(peak)
        self.shifts += 1
        self.cut = math.inf
        self.cut = self._find_cut()
        self._summarise(self._all_slots)

    def _follow_level(self) -> None:
        latest = self._latest_slots(LEVEL_SLOTS)
        levels = self._levels[latest[self._ordinary[latest] >= self._least]]
        if len(levels):
            self.level = _median(levels)

    def _choose_threshold(self) -> float:
        """The median over blocks, or the last threshold while no block has ordinary scores enough."""
        starts = self._blocks[:-1]
        told = np.add.reduceat(self._ordinary, starts) >= self._least
        if not told.any():
            return self._threshold
        levels = np.add.reduceat(self._levels, starts) / np.diff(self._blocks)
        self._following = followed(levels[told], self._quantiles[told])
        threshold = _median((self._quantiles * self._moves(levels))[told])
        if self.cut < math.inf:
            rise = float(self._moves(self._calibrated_levels)[0])
            threshold = max(threshold, self._floor * rise)
        return threshold

    def _moves(self, then: FloatArray) -> FloatArray:
        return level_moves(self.level, then, _median(self._errors)) ** self._following

    def _latest_slots(self, count: int) -> NDArray[np.int64]:
        newest = (self.window.position - 1) % self.window.size // self.window.slot_scores
        return (newest - np.arange(min(count, self.window.slot_count))) % self.window.slot_count

    def _split_into_blocks(self) -> NDArray[np.int64]:
        """First slot of each block, and the number of slots at the end: int64 (blocks + 1,)."""
        slots = math.ceil(BLOCK_TAIL / (1 - self.quantile) / self.window.slot_scores)
        count = max(1, self.window.slot_count // max(1, slots))
        return np.arange(count + 1) * self.window.slot_count // count

    def _summarise(self, slots: NDArray[np.int64]) -> None:
        """Bring counts, levels and quantiles of slots (n,) up to date with their scores and the cut."""
        scores = self.window.by_slot[slots]
        empty = self._empty[slots]
        ordinary = np.count_nonzero(scores < self.cut, axis=1) - empty
        places = np.arange(len(slots))
        last = np.maximum(ordinary - 1, 0)
        self._ordinary[slots] = ordinary
        level, low, high = (
            scores[places, empty + np.ceil(np.clip(LEVEL_QUANTILE + step, 0, 1) * last).astype(np.int64)]
            for step in (0.0, -self._rank_error, self._rank_error)
        )
        self._levels[slots] = np.where(ordinary > 0, level, self.level)
        self._errors[slots] = (high - low) / 2
        if len(self._quantiles) == self.window.slot_count:
            self._quantiles[slots] = scores[places, empty + np.ceil(self.quantile * last).astype(np.int64)]
        else:
            self._pool_blocks(slots)

    def _pool_blocks(self, slots: NDArray[np.int64]) -> None:
        for block in set((np.searchsorted(self._blocks, slots, side="right") - 1).tolist()):
            scores = self.window.by_slot[self._blocks[block] : self._blocks[block + 1]]
            pooled = scores[(scores < self.cut) & (scores > EMPTY)]
            self._quantiles[block] = _at(np.sort(pooled), self.quantile) if len(pooled) else self._threshold

    def head(self) -> dict[str, Any]:
        """The small part of the state, plain data: all but the slots."""
        return {
            "position": self.window.position,
            "cut": self.cut if self.cut < math.inf else None,
            "level": self.level,
            "shifts": self.shifts,
            "following": self._following,
            "threshold": self._threshold,
        }

    def slots(self) -> dict[int, bytes]:
        """Every slot of the window, encoded."""
        return self.window.slots()

    def take_changed_slots(self) -> dict[int, bytes]:
        """The slots of the window that changed since the last call, encoded; all of them at first."""
        return self.window.take_changed_slots()

    def restore(self, head: dict[str, Any], slots: dict[int, bytes]) -> None:
        """Continue from a saved head and every slot. ValueError when they do not fit."""
        self.window.restore(int(head["position"]), slots)
        self.cut = math.inf if head["cut"] is None else float(head["cut"])
        self.level = float(head["level"])
        self.shifts = int(head["shifts"])
        self._following = float(head["following"])
        self._threshold = float(head["threshold"])
        self._counts = count_bins(self.window.ring)
        self._summarise(self._all_slots)


def _at(ordered: FloatArray, quantile: float) -> float:
    return float(ordered[math.ceil(quantile * (len(ordered) - 1))])


def _median(values: FloatArray) -> float:
    ordered = np.sort(values)  # numpy.median costs more than all the rest on so few values
    return float(ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
