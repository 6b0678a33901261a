"""The default policy: the quantile of the scores that belong to the inliers.

Every score stays in the window, flagged or not: leaving out what was flagged would feed the threshold back into itself.
Instead the window is asked which of its scores are inliers.

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
from worker.thresholds.partition import WindowPolicy
from worker.thresholds.tail import tail_of
from worker.thresholds.window import EMPTY, SLOT_SCORES, ScoreWindow, require_finite

MIN_BLOCKS = 20
"""Blocks in a window; more where a window is longer than this many slots."""

MIN_BLOCK_TAIL = 5.0
"""Scores expected above the quantile in a block: rarer quantiles get longer blocks."""

MIN_INLIERS = 50
"""Inliers without which a slot says nothing about them."""

LOCATION_QUANTILE = 0.25
"""The location of a slot is this quantile of its inliers: of all the robust one, since floods come from above."""

LOCATION_SLOTS = 6
"""Latest slots whose median location is the location now."""

LOCATION_ERRORS = 2.0
"""Standard errors of a slot's location within which a move counts for nothing, and a little beyond for less."""

MAX_MOVE = 2.0
"""Factor by which a move of the location may move a block's quantile; beyond it is a shift, and the median follows."""

MIN_FOLLOWED = 4
"""Blocks without which it is not known whether quantiles follow locations; they are then left where they are."""

START_QUANTILE = 0.9
"""Populations below this quantile of the calibration scores are inliers: the search for a valley starts there."""

SHARE_ERRORS = 2.0
"""Standard errors by which a population's share may exceed its share of the calibration before it is another one."""

CAUTION_ERRORS = 0.5
"""Standard errors, in ranks, by which the calibrated quantile is taken too low: a minimum that is too low costs a few
false alerts, one that is too high hides everything beneath it."""

GONE = 0.05
"""Share of half a window below the cut-off, under which the old traffic is gone."""


def calibrated_quantile(ordered: FloatArray, quantile: float) -> float:
    """The quantile of few sorted scores (N,), N >= 1, a little low: the mean of the scores within a standard error.

    The standard error of a quantile's rank is sqrt(N q (1 - q)).
    """
    error = math.sqrt(len(ordered) * quantile * (1 - quantile))
    middle = math.ceil(quantile * (len(ordered) - 1)) - round(CAUTION_ERRORS * error)
    ranks = np.clip(np.arange(middle - round(error), middle + round(error) + 1), 0, len(ordered) - 1)
    return float(ordered[ranks].mean())


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
    >>> round(policy.threshold(), 1), round(policy.beyond, 2), policy.shifts
    (3.3, 0.2, 0)
    """

    def __init__(self, calibration: FloatArray, quantile: float = 0.995, window: int = 20_000) -> None:
        if not 0 < quantile < 1:
            raise ValueError(f"quantile {quantile} is not between 0 and 1")
        if len(calibration) == 0:
            raise ValueError("the quantile of the inliers needs calibration scores")
        ordered = np.sort(require_finite(calibration))
        self.quantile = quantile
        self.window = ScoreWindow(ordered, window, min(SLOT_SCORES, math.ceil(window / MIN_BLOCKS)))
        self.cutoff = math.inf
        self.shifts = 0
        self._following = 0.0  # share of a move of the location that the quantiles follow
        self._calibration = ordered
        self.location = _at(ordered, LOCATION_QUANTILE)
        self._calibrated_location = np.array([self.location])
        self._minimum = self._threshold = calibrated_quantile(ordered, quantile)
        self._start = bin_of(_at(ordered, START_QUANTILE)) - bin_of(self.location)
        self._counts = count_bins(self.window.ring)
        slots = self.window.slot_count
        self._rank_error = math.sqrt(LOCATION_QUANTILE * (1 - LOCATION_QUANTILE) / self.window.slot_scores)
        self._min_inliers = min(MIN_INLIERS, self.window.slot_scores)
        self._all_slots = np.arange(slots)
        self._empty = np.count_nonzero(np.isneginf(self.window.by_slot), axis=1)  # (slots,) cells without a score
        self._inliers = np.zeros(slots, np.int64)  # (slots,) inliers in each
        self._locations = np.zeros(slots)
        self._errors = np.zeros(slots)  # standard error of each location
        self._blocks = self._split_into_blocks()
        self._quantiles = np.zeros(len(self._blocks) - 1)
        self._summarise(self._all_slots)
        self._move()

    @override
    def threshold(self) -> float:
        return self._threshold

    @override
    def tail_probability(self, scores: FloatArray) -> FloatArray:
        if not self._inliers.any():
            return np.full(len(scores), np.nan)
        # The window's scores count at the location now. Where the minimum has lifted the threshold above them, their
        # tail is stretched until the threshold's own probability is 1 - quantile.
        tail = tail_of(self.window, len(self._calibration), self.cutoff, self._moves(self._locations))
        rank = len(tail.top) - 1 - int((1 - self.quantile) * (tail.total - 1))
        reached = float(tail.top[rank]) if rank >= 0 else 0.0
        lifted = self.cutoff < math.inf and self._threshold > reached > 0
        return tail.probability(scores * (reached / self._threshold) if lifted else scores)

    @property
    def beyond(self) -> float:
        """Share of the window that are no inliers, in [0, 1]."""
        return 1 - float(self._inliers.sum()) / self.window.size

    @override
    def update(self, scores: FloatArray, event_time_ms: TimeArray | None = None) -> None:
        left = self.window.push(scores)
        self._counts += count_bins(scores) - count_bins(left)
        self._summarise(np.array(sorted(self.window.touched)))
        self._move()

    def _move(self) -> None:
        self._set_cutoff(self._find_cutoff())
        if self.cutoff < math.inf:
            half = self._latest_slots(max(1, self.window.slot_count // 2))
            held = self.window.slot_scores * len(half) - self._empty[half].sum()
            if self._inliers[half].sum() < GONE * held:
                self._follow_shift(half)
        latest = self._latest_slots(LOCATION_SLOTS)
        locations = self._locations[latest[self._inliers[latest] >= self._min_inliers]]
        if len(locations):
            self.location = _median(locations)
        self._threshold = self._choose_threshold()

    # Where the search starts decides what it can get wrong. A start that is too low meets a dip inside the inliers and
    # cuts their tail off; the next search would start lower still, and the threshold would sink from stride to stride.
    # A start that is too high lies within the flood that it is to find, as the 0.9 quantile of the window does in a
    # heavy one. So there are two starts, and the lower one counts: the 0.9 quantile of what were inliers a stride ago,
    # and the location, moved up by the distance that it had to the 0.9 quantile of the calibration.
    # A valley is not enough: normal traffic can have two modes. What lies beyond it is another population only if it is
    # a larger share of the window than of the calibration, both at the same location; else the search goes on from
    # the peak beyond.
    def _find_cutoff(self) -> float:
        end = bin_of(float(self.window.by_slot[:, -1].max())) + REACH + 1  # beyond it all bins are empty
        inliers = np.cumsum(self._counts[: min(end, bin_of(self.cutoff))])
        high = int(np.searchsorted(inliers, START_QUANTILE * inliers[-1]))
        start = min(bin_of(self.location) + self._start, high)
        while (density_valley := find_density_valley(self._counts[:end], start)) is not None:
            beyond = self._counts[bin_of(density_valley) : end]
            if beyond.sum() > self._calibrated_share(density_valley) * self.window.count:
                return density_valley
            start = bin_of(density_valley) + max(1, int(np.argmax(smooth(beyond))))
        return math.inf

    def _calibrated_share(self, score: float) -> float:
        """Share of the calibration from a score on, once it stands at the location now, and its error on top."""
        calibrated = float(self._calibrated_location[0])
        rise = self.location / calibrated if self.location > 0 and calibrated > 0 else 1.0
        beyond = len(self._calibration) - int(np.searchsorted(self._calibration, score / rise))
        return (beyond + SHARE_ERRORS * math.sqrt(beyond)) / len(self._calibration)

    def _set_cutoff(self, cutoff: float) -> None:
        if cutoff != self.cutoff:
            self.cutoff = cutoff
            self._summarise(self._all_slots)

    def _follow_shift(self, half: NDArray[np.int64]) -> None:
        peak = int(np.argmax(smooth(count_bins(self.window.by_slot[half].ravel()))))
        self.location = lower_edge(peak)
        self.shifts += 1
        self.cutoff = math.inf
        self.cutoff = self._find_cutoff()
        self._summarise(self._all_slots)

    def _choose_threshold(self) -> float:
        """The median over blocks; the last threshold while no block has inliers to speak of."""
        starts = self._blocks[:-1]
        known = np.add.reduceat(self._inliers, starts) >= self._min_inliers
        if not known.any():
            return self._threshold
        locations = np.add.reduceat(self._locations, starts) / np.diff(self._blocks)
        self._following = following(locations[known], self._quantiles[known])
        threshold = _median((self._quantiles * self._moves(locations))[known])
        if self.cutoff < math.inf:
            rise = float(self._moves(self._calibrated_location)[0])
            threshold = max(threshold, self._minimum * rise)
        return threshold

    def _moves(self, then: FloatArray) -> FloatArray:
        return location_moves(self.location, then, _median(self._errors)) ** self._following

    def _latest_slots(self, count: int) -> NDArray[np.int64]:
        newest = (self.window.position - 1) % self.window.size // self.window.slot_scores
        return (newest - np.arange(min(count, self.window.slot_count))) % self.window.slot_count

    def _split_into_blocks(self) -> NDArray[np.int64]:
        """First slot of each block, and the number of slots at the end: int64 (blocks + 1,)."""
        slots = math.ceil(MIN_BLOCK_TAIL / (1 - self.quantile) / self.window.slot_scores)
        count = max(1, self.window.slot_count // max(1, slots))
        return np.arange(count + 1) * self.window.slot_count // count

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
        if len(self._quantiles) == self.window.slot_count:
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
        }

    @override
    def restore(self, head: dict[str, Any], slots: dict[int, bytes]) -> None:
        self.window.restore(int(head["position"]), slots)
        self.cutoff = math.inf if head["cutoff"] is None else float(head["cutoff"])
        self.location = float(head["location"])
        self.shifts = int(head["shifts"])
        self._following = float(head["following"])
        self._threshold = float(head["threshold"])
        self._counts = count_bins(self.window.ring)
        self._summarise(self._all_slots)


def location_moves(now: float, then: FloatArray, error: float) -> FloatArray:
    """Factors (n,) from locations `then` (n,) to the location now, up to MAX_MOVE; 1 where one of them is not above 0.

    error: standard error of a location. A move is shrunk towards none by the share of it that chance explains.
    """
    if now <= 0:
        return np.ones(len(then))
    ratio = now / np.where(then > 0, then, now)
    move = np.log(np.clip(ratio, 1 / MAX_MOVE, MAX_MOVE))
    chance = LOCATION_ERRORS * error / now
    kept = 1 - (chance / np.maximum(np.abs(move), max(chance, 1e-12))) ** 2
    moves: FloatArray = np.exp(move * kept)
    return moves


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


def _median(values: FloatArray) -> float:
    ordered = np.sort(values)  # numpy.median costs more than all the rest on so few values
    return float(ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
