"""Quantiles of a window of scores: of all of them (plain), and of those that belong to the inliers (the default).

The default keeps every score in the window, flagged or not: leaving out what was flagged would feed the threshold back
into itself. Instead the window is asked which of its scores are inliers.

1. Cut-off. Scores beyond a valley of the density are another population, not a tail, unless the calibration has it too.
2. Blocks. Of the quantiles of blocks of about 1,000 records the median counts: a burst in a few blocks moves nothing.
3. Location. Each block's quantile is carried over to the location of the latest blocks, as far as quantiles have
   followed locations, so that seasons and drift, which move all scores together, do not wait for the median.
4. Minimum. Where there is a cut-off, the tail may be hidden behind it: the threshold is then no lower than the
   calibrated quantile, moved with the location.
5. Shift. A flood adds records, a shift replaces them: when almost nothing of half a window is left below the cut-off,
   the largest population is the new normal one.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from worker.records import FloatArray, TimeArray
from worker.thresholds.density import REACH, bin_of, count_bins, find_density_valley, lower_edge, smooth
from worker.thresholds.partition import ThresholdPolicy
from worker.thresholds.tail import (
    BODY_SHARE,
    MIN_BODY,
    START_SHARE,
    Tail,
    TailData,
    fit_tail,
    ranked,
    restored_tail,
    saved_tail,
)
from worker.thresholds.window import (
    EMPTY,
    SLOT_SCORES,
    ScoreWindow,
    median,
    require_finite,
    saved_integer,
    saved_number,
)

MIN_ABOVE = 1.0  # scores expected above the quantile, below which a window without seed has no threshold yet
MIN_BLOCKS = 20  # blocks in a window; more where a window is longer than this many slots
MIN_BLOCK_TAIL = 5.0  # scores expected above the quantile in a block: rarer quantiles get longer blocks
MIN_INLIERS = 50  # inliers without which a slot says nothing about them
LOCATION_QUANTILE = 0.25  # of a slot's inliers, its location: of all the robust one, since floods come from above
LOCATION_SLOTS = 6  # latest slots whose median location is the location now
FAR = 1e6  # times the highest score: no location was ever there
LOCATION_ERRORS = 2.0  # standard errors of a location within which a move counts for nothing; beyond, for less
MAX_MOVE = 2.0  # factor up to which a move changes a block's quantile; beyond it is a shift, and the median follows
MIN_FOLLOWED = 4  # blocks without which it is not known whether quantiles follow locations: then they don't
START_QUANTILE = 0.9  # below it in the calibration all populations are inliers: the search for a valley starts there
SHARE_ERRORS = 2.0  # standard errors that a population's share may exceed its share of the calibration by
# Standard errors, in ranks, by which the calibrated quantile is taken too low: a minimum that is too low costs a few
# false alerts, one that is too high hides everything beneath it.
CAUTION_ERRORS = 0.5
TAIL_RECORDS = 1_000  # for which a tail is held; then it moves towards the window's
TAIL_STEP = 0.25  # ... by this share of the way: what one block of scores says must not turn severities over
GONE = 0.05  # share of half a window below the cut-off, under which the old traffic is gone


def calibrated_quantile(ordered: FloatArray, quantile: float) -> float:
    """The quantile of few sorted scores (N,), N >= 1, a little low: the mean of the scores within a standard error.

    The standard error of a quantile's rank is sqrt(N q (1 - q)).
    """
    error = math.sqrt(len(ordered) * quantile * (1 - quantile))
    middle = math.ceil(quantile * (len(ordered) - 1)) - round(CAUTION_ERRORS * error)
    ranks = np.clip(np.arange(middle - round(error), middle + round(error) + 1), 0, len(ordered) - 1)
    return float(ordered[ranks].mean())


class WindowPolicy(ThresholdPolicy):
    """A quantile, in (0, 1), of a window of scores, whose slots are the policy's.

    Its tail is one of scores in multiples of the threshold, so that it follows the traffic from stride to stride while
    its form is held for TAIL_RECORDS.
    """

    def __init__(self, window: ScoreWindow, quantile: float, calibration_rows: int) -> None:
        if not 0 < quantile < 1:
            raise ValueError(f"quantile {quantile} is not between 0 and 1")
        self.window = window
        self.quantile = quantile
        self._calibration_rows = calibration_rows
        self._tail: Tail | None = None

    @override
    def tail_probability(self, scores: FloatArray) -> FloatArray:
        threshold = self.threshold()
        if self._tail is not None and threshold is not None and threshold > 0:
            tails = self._tail.probability(scores / threshold)
            return np.where(scores > threshold, np.minimum(tails, 1 - self.quantile), tails)
        top, total = self._highest_inliers()
        return ranked(top, total, scores) if total else np.full(len(scores), np.nan)

    def _highest_inliers(self) -> tuple[FloatArray, int]:
        """The inliers' highest scores as they count now, float64 ascending (m,), and the number of inliers."""
        return self.window.highest(max(BODY_SHARE, MIN_BODY * self._share_in_doubt))

    def _push(self, scores: FloatArray) -> tuple[FloatArray, bool]:
        """Scores that left the window as others entered, and whether the tail was held long enough."""
        held_since = self.window.position // TAIL_RECORDS
        return self.window.push(scores), self.window.position // TAIL_RECORDS > held_since

    def _learn_tail(self, *, is_open: bool = True) -> None:
        """Move the tail towards that of the window. is_open: whether it may be followed among the scores in doubt."""
        threshold = self.threshold()
        top, total = self._highest_inliers()
        share = self._share_in_doubt
        if threshold is None or threshold <= 0 or share * total < 1:
            return
        top = top / threshold
        start = float(top[-1 - min(int(share * total), len(top) - 1)])
        independent = min(self.window.size, self._calibration_rows + self.window.position)
        weight = max(1.0, self.window.count / max(1, independent))
        tail = fit_tail(TailData(top, total, start, share, weight, is_open))
        if tail is not None:
            self._tail = tail if self._tail is None else self._tail.moved_towards(tail, TAIL_STEP)

    @property
    def _share_in_doubt(self) -> float:
        return min(0.5, max(START_SHARE, 1 - self.quantile))

    @override
    def slots(self, *, only_changed: bool = False) -> dict[int, bytes]:
        return self.window.slots(only_changed=only_changed)


class SlidingQuantile(WindowPolicy):
    """Quantile of a sliding window that starts as a resample of the calibration scores.

    The quantile is numpy's "higher": a score that really occurred, so that no arithmetic can blur it.

    It works badly in floods: anomalies stay in the window and raise the threshold until they pass. And it lags behind
    drift and seasons by half a window. InlierQuantile mends both; this one is for streams without floods, and to
    compare with.

    calibration   scores of normal records (N,); empty: no threshold until the window holds enough
    quantile      share of scores at or below the threshold, in (0, 1)
    window        scores remembered

    >>> policy = SlidingQuantile(np.arange(100.0), quantile=0.9, window=1_000)
    >>> policy.threshold()
    90.0
    >>> policy.update(np.full(1_000, 7.0))
    >>> policy.threshold()
    7.0
    """

    def __init__(self, calibration: FloatArray, quantile: float = 0.995, window: int = 20_000) -> None:
        super().__init__(ScoreWindow(calibration, window), quantile, len(calibration))
        self._learn_tail()

    @override
    def threshold(self) -> float | None:
        if not self.window.seeded and self.window.count * (1 - self.quantile) < MIN_ABOVE:
            return None
        return self.window.quantile(self.quantile)

    @override
    def update(self, scores: FloatArray, event_time_ms: TimeArray | None = None) -> None:
        _, held = self._push(scores)
        if held or self._tail is None:
            self._learn_tail()

    @override
    def head(self) -> dict[str, Any]:
        return {"position": self.window.position, "tail": saved_tail(self._tail)}

    @override
    def restore(self, head: dict[str, Any], slots: dict[int, bytes]) -> None:
        self.window.restore(saved_integer(head["position"]), slots)
        self._tail = restored_tail(head.get("tail")) or self._tail


class InlierQuantile(WindowPolicy):
    """Quantile of the inliers in a sliding window that starts as a resample of the calibration scores.

    It works badly where anomalies are no population of their own: scores that reach from the inliers' tail upwards
    without a dip are a heavier tail, and raise the threshold. A flood that is more than 95% of half a window is taken
    for a shift. And where a window holds fewer than some 1,000 scores, its blocks are too small to tell anything.

    calibration   scores of normal records (N,), N >= 1
    quantile      share of the inliers' scores at or below the threshold, in (0, 1)
    window        scores remembered; afterwards the ScoreWindow of them
    cutoff        scores from here on are another population; infinite where there is no valley
    location      lower quartile of the inliers now
    shifts        times that the inliers were replaced by another population

    >>> scores = np.random.default_rng(0).lognormal(0, 0.5, 20_500)
    >>> policy = InlierQuantile(scores[:500], quantile=0.99, window=5_000)
    >>> policy.update(scores[-5_000:-2_000])
    >>> policy.update(np.concatenate([scores[-2_000:-1_000], scores[-1_000:] * 30]))  # a flood of 20% of the window
    >>> round(policy.threshold(), 1), round(float((policy.window.ring >= policy.cutoff).mean()), 2), policy.shifts
    (3.3, 0.2, 0)
    """

    def __init__(self, calibration: FloatArray, quantile: float = 0.995, window: int = 20_000) -> None:
        if len(calibration) == 0:
            raise ValueError("the quantile of the inliers needs calibration scores")
        ordered = np.sort(require_finite(calibration))
        slot_scores = min(SLOT_SCORES, math.ceil(window / MIN_BLOCKS))
        super().__init__(ScoreWindow(ordered, window, slot_scores), quantile, len(ordered))
        self.cutoff = math.inf
        self.shifts = 0
        self.location = _at(ordered, LOCATION_QUANTILE)
        self._following = 0.0  # share of a move of the location that the quantiles follow
        self._calibration = ordered
        self._calibrated_location = np.array([self.location])
        self._minimum = self._threshold = calibrated_quantile(ordered, quantile)
        self._start = bin_of(_at(ordered, START_QUANTILE)) - bin_of(self.location)
        self._counts = count_bins(self.window.ring)

        slots, slot_scores = self.window.slot_count, self.window.slot_scores
        self._rank_error = math.sqrt(LOCATION_QUANTILE * (1 - LOCATION_QUANTILE) / slot_scores)
        self._min_inliers = min(MIN_INLIERS, slot_scores)
        self._all_slots = np.arange(slots)
        self._empty = np.count_nonzero(np.isneginf(self.window.by_slot), axis=1)  # (slots,) cells without a score
        self._inliers = np.zeros(slots, np.int64)  # (slots,) inliers in each
        self._locations = np.zeros(slots)
        self._errors = np.zeros(slots)  # standard error of each location
        slots_of_block = max(1, math.ceil(MIN_BLOCK_TAIL / (1 - quantile) / slot_scores))
        blocks = max(1, slots // slots_of_block)
        self._blocks = np.arange(blocks + 1) * slots // blocks  # (blocks + 1,) first slot of each, and their number
        self._quantiles = np.zeros(blocks)
        self._summarise(self._all_slots)
        self._move()
        self._learn_inlier_tail()

    @override
    def threshold(self) -> float:
        return self._threshold

    @override
    def _highest_inliers(self) -> tuple[FloatArray, int]:
        share = max(BODY_SHARE, MIN_BODY * self._share_in_doubt)
        return self.window.highest(share, self.cutoff, self._moves(self._locations))

    def _learn_inlier_tail(self) -> None:
        # Where the tail is hidden behind a cut-off, nothing of it is to be seen but the part that was learned before.
        if self._threshold < self.cutoff:
            self._learn_tail(is_open=self.cutoff == math.inf)

    @override
    def update(self, scores: FloatArray, event_time_ms: TimeArray | None = None) -> None:
        left, held = self._push(scores)
        self._counts += count_bins(scores) - count_bins(left)
        self._summarise(np.array(sorted(self.window.touched)))
        self._move()
        if held:
            self._learn_inlier_tail()

    def _move(self) -> None:
        """Choose cut-off, location and threshold anew, in this order, for the window as it is."""
        cutoff = self._find_cutoff()
        if cutoff != self.cutoff:
            self.cutoff = cutoff
            self._summarise(self._all_slots)
        if self.cutoff < math.inf:
            half = self._latest_slots(max(1, self.window.slot_count // 2))
            held = self.window.slot_scores * len(half) - self._empty[half].sum()
            if self._inliers[half].sum() < GONE * held:
                self.location = lower_edge(int(np.argmax(smooth(count_bins(self.window.by_slot[half].ravel())))))
                self.shifts += 1
                self.cutoff = math.inf  # what were inliers tells the search nothing now
                self.cutoff = self._find_cutoff()
                self._summarise(self._all_slots)

        latest = self._latest_slots(LOCATION_SLOTS)
        locations = self._locations[latest[self._inliers[latest] >= self._min_inliers]]
        if len(locations):
            self.location = median(locations)

        starts = self._blocks[:-1]
        known = np.add.reduceat(self._inliers, starts) >= self._min_inliers
        if not known.any():
            return  # no block has inliers to speak of: a threshold made of chance is worse than the last one
        locations = np.add.reduceat(self._locations, starts) / np.diff(self._blocks)
        self._following = following(locations[known], self._quantiles[known])
        self._threshold = median((self._quantiles * self._moves(locations))[known])
        if self.cutoff < math.inf:
            self._threshold = max(self._threshold, self._minimum * float(self._moves(self._calibrated_location)[0]))

    # Where the search starts decides what it can get wrong. A start that is too low meets a dip inside the inliers and
    # cuts their tail off; the next search would start lower still, and the threshold would sink from stride to stride.
    # A start that is too high lies within the flood that it is to find, as the 0.9 quantile of the window does in a
    # heavy one. So there are two starts, and the lower one counts: the 0.9 quantile of what were inliers a stride ago,
    # and the location, moved up by the distance that it had to the 0.9 quantile of the calibration.
    # a valley is not enough: normal traffic can have two modes. What lies beyond it is another population only if it is
    # a larger share of the window than of the calibration, both at the same location and the latter with its error on
    # top; else the search goes on from the peak beyond.
    def _find_cutoff(self) -> float:
        end = bin_of(float(self.window.by_slot[:, -1].max())) + REACH + 1  # beyond it all bins are empty
        inliers = np.cumsum(self._counts[: min(end, bin_of(self.cutoff))])
        high = int(np.searchsorted(inliers, START_QUANTILE * inliers[-1]))
        start = min(bin_of(self.location) + self._start, high)
        calibrated = float(self._calibrated_location[0])
        rise = self.location / calibrated if self.location > 0 and calibrated > 0 else 1.0
        while (density_valley := find_density_valley(self._counts[:end], start)) is not None:
            beyond = self._counts[bin_of(density_valley) : end]
            rare = len(self._calibration) - int(np.searchsorted(self._calibration, density_valley / rise))
            share = (rare + SHARE_ERRORS * math.sqrt(rare)) / len(self._calibration)
            if beyond.sum() > share * self.window.count:
                return density_valley
            start = bin_of(density_valley) + max(1, int(np.argmax(smooth(beyond))))
        return math.inf

    def _moves(self, then: FloatArray) -> FloatArray:
        """Factors (n,) from locations `then` (n,) to the location now, as far as the quantiles follow it.

        Up to MAX_MOVE; 1 where one of the two is not above 0. A move is shrunk by the share of it that chance explains.
        """
        if self.location <= 0:
            return np.ones(len(then))
        move = np.log(np.clip(self.location / np.where(then > 0, then, self.location), 1 / MAX_MOVE, MAX_MOVE))
        chance = LOCATION_ERRORS * median(self._errors) / self.location
        kept = 1 - (chance / np.maximum(np.abs(move), max(chance, 1e-12))) ** 2
        moves: FloatArray = np.exp(move * kept) ** self._following
        return moves

    def _latest_slots(self, count: int) -> NDArray[np.int64]:
        # Before the first score the seed's end counts as the newest: all of the seed resembles the calibration.
        newest = (self.window.position - 1) % self.window.size // self.window.slot_scores
        return (newest - np.arange(min(count, self.window.slot_count))) % self.window.slot_count

    def _summarise(self, slots: NDArray[np.int64]) -> None:
        """Bring counts, locations and quantiles of slots (n,) up to date with their scores and the cut-off."""
        scores = self.window.by_slot[slots]
        empty = self._empty[slots]
        inliers = np.count_nonzero(scores < self.cutoff, axis=1) - empty
        rows = np.arange(len(slots))
        last = np.maximum(inliers - 1, 0)
        self._inliers[slots] = inliers
        location, low, high = (
            scores[rows, empty + np.ceil(np.clip(LOCATION_QUANTILE + step, 0, 1) * last).astype(np.int64)]
            for step in (0.0, -self._rank_error, self._rank_error)
        )
        self._locations[slots] = np.where(inliers > 0, location, self.location)
        self._errors[slots] = (high - low) / 2
        if len(self._quantiles) == self.window.slot_count:  # a slot is a block, and is sorted already
            self._quantiles[slots] = scores[rows, empty + np.ceil(self.quantile * last).astype(np.int64)]
            return
        for block in set((np.searchsorted(self._blocks, slots, side="right") - 1).tolist()):
            scores = self.window.by_slot[self._blocks[block] : self._blocks[block + 1]]
            pooled = scores[(scores < self.cutoff) & (scores > EMPTY)]
            self._quantiles[block] = _at(np.sort(pooled), self.quantile) if len(pooled) else self._threshold

    @override
    def head(self) -> dict[str, Any]:
        return {
            "position": self.window.position,
            "cutoff": self.cutoff if self.cutoff < math.inf else None,
            "location": self.location,
            "shifts": self.shifts,
            "following": self._following,
            "threshold": self._threshold,
            "tail": saved_tail(self._tail),
        }

    @override
    def restore(self, head: dict[str, Any], slots: dict[int, bytes]) -> None:
        self.window.restore(saved_integer(head["position"]), slots)
        self.cutoff = math.inf if head["cutoff"] is None else saved_number(head["cutoff"])
        self.shifts = saved_integer(head["shifts"])
        high = FAR * max(1.0, float(self.window.ring.max()), float(self._calibration[-1]))
        self.location = saved_number(head["location"], high=high)
        self._following, self._threshold = saved_number(head["following"], 0, 1), saved_number(head["threshold"])
        self._tail = restored_tail(head.get("tail")) or self._tail
        self._counts = count_bins(self.window.ring)
        self._summarise(self._all_slots)


def following(locations: FloatArray, quantiles: FloatArray) -> float:
    """How far the quantiles of blocks (n,) follow their locations, in [0, 1]: the slope between their logarithms."""
    known = (locations > 0) & (quantiles > 0)
    if np.count_nonzero(known) < MIN_FOLLOWED:
        return 0.0
    location, quantile = (np.log(values[known]) for values in (locations, quantiles))
    location, quantile = location - location.mean(), quantile - quantile.mean()
    return float(np.clip((location @ quantile) / max(float(location @ location), 1e-12), 0, 1))


def _at(ordered: FloatArray, quantile: float) -> float:
    return float(ordered[math.ceil(quantile * (len(ordered) - 1))])
