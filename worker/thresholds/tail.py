"""How rare a score is: the upper tail of the inliers, as a table of scores that ever fewer of them reach."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from worker.records import FloatArray

# Shares of the inliers, from all to one in a billion, two to a decade: no window can tell rarer scores apart.
LEVELS: FloatArray = 10.0 ** -np.arange(0.0, 9.25, 0.5)
START_SHARE = (
    0.02  # of the scores, the highest ones, that are in doubt: more anomalies than that make a tail of their own
)
RANKED = 20.0  # independent scores above, with which a rank is trusted; beyond, the fitted tail takes over
FITTED = 30  # scores that the tail is fitted to, in multiples of those above its anchor
BODY_SHARE, MIN_BODY = (
    0.1,
    4,
)  # of the scores, those that may be fitted to; more where that's no multiple of the doubted
MIN_SHAPE, MAX_SHAPE = (
    -0.25,
    0.75,
)  # of the fitted tail: below, its end is all chance; above, it has no mean to speak of
PRIOR_SHAPE, PRIOR_ERROR = 0.1, 0.2  # what is thought of the shape before: about exponential, a little heavier
DOUBT_ERRORS, DOUBT_SHARE = 2.5, 0.15  # standard errors, and share, by which scores may outnumber what the fit expects
POINTS = 64  # scores that stand for all that the tail is fitted to
MIN_POINTS = 3

# Shape over scale, in units of the width of the fitted part: of these the best one is taken, finer than chance.
_STEEPNESS: FloatArray = np.concatenate([-np.linspace(0.98, 0.02, 40), np.geomspace(0.02, 100.0, 60)])
_LOG_LEVELS: FloatArray = np.log(LEVELS)


@dataclass(frozen=True)
class Tail:
    """The upper tail of the inliers.

    quantiles   score that a share of LEVELS of the inliers reaches, float64 (19,), never descending; up to the lowest
                score that was looked at they are that one

    >>> tail = Tail(-np.log(LEVELS))  # of exponential scores
    >>> tail.probability(np.array([0.0, 6.9, 100.0])).round(4).tolist()
    [1.0, 0.001, 0.0]
    """

    quantiles: FloatArray

    def probability(self, scores: FloatArray) -> FloatArray:
        """Share of inliers with a score at least as high, for scores (B,): float64 (B,), within LEVELS."""
        return np.exp(np.interp(scores, self.quantiles, _LOG_LEVELS))

    def moved_towards(self, other: "Tail", share: float) -> "Tail":
        """A tail between this one and another, by a share of the way."""
        return Tail(self.quantiles + share * (other.quantiles - self.quantiles))


class _Pareto(NamedTuple):
    """A generalised Pareto tail: what `rank` scores exceed the `anchor` by has this distribution."""

    anchor: float
    rank: float
    shape: float
    scale: float

    def rank_of(self, score: float) -> float:
        """Scores to expect above one that is above the anchor."""
        return self.rank * float(max(0.0, 1 + self.shape * (score - self.anchor) / self.scale) ** (-1 / self.shape))

    def score_of(self, rank: FloatArray) -> FloatArray:
        """Scores (n,) that so many are expected above, for ranks (n,) below that of the anchor."""
        return self.anchor + self.scale * ((rank / self.rank) ** -self.shape - 1) / self.shape


@dataclass(frozen=True)
class TailData:
    """What a tail is fitted to.

    The scores above the start are in doubt: among them are the anomalies that were alerted. Only their number counts,
    and at most as many of them as inliers are expected there, unless they go on as the fit foresees.

    top      the highest scores, float64 ascending (m,), well below the start and up
    total    inliers of which these are the highest
    start    score from which on scores are in doubt
    share    of the inliers that are expected above the start, in (0, 1)
    weight   scores that stand for one independent one
    open     whether scores above the start may be looked at, at all
    """

    top: FloatArray
    total: int
    start: float
    share: float
    weight: float = 1.0
    open: bool = True

    @cached_property
    def below(self) -> int:
        """Scores of `top` up to the start."""
        return int(np.searchsorted(self.top, self.start, side="right"))

    @cached_property
    def allowed(self) -> float:
        """Inliers above the start at most: as many as are to be expected from those below, and a little more."""
        expected = self.share / (1 - self.share) * (self.total - len(self.top) + self.below)
        return expected + self.doubt(expected)

    @cached_property
    def in_doubt(self) -> float:
        """Inliers above the start."""
        return min(float(len(self.top) - self.below), self.allowed)

    @cached_property
    def inliers(self) -> float:
        """All of them."""
        return self.total - len(self.top) + self.below + self.in_doubt

    def doubt(self, expected: float) -> float:
        """By how many, at most, as many as are expected may be exceeded by chance, or since no fit is exact."""
        return DOUBT_ERRORS * math.sqrt(expected * self.weight) + DOUBT_SHARE * expected

    def fit(self, index: int, anchor: float, rank: float) -> _Pareto | None:
        """The tail beyond the anchor, fitted to the scores before `index`; None where they are ties, or too few."""
        body = min(FITTED * rank, max(BODY_SHARE * self.inliers, MIN_BODY * rank)) - rank
        scores = self.top[max(0, index - int(body)) : index]
        excess = scores[scores > scores[0]] - scores[0] if len(scores) else scores
        width = anchor - float(scores[0]) if len(scores) else 0.0
        if len(excess) < MIN_POINTS or width <= 0:
            return None
        shape, scale = fit_pareto(excess, rank, width, self.weight)
        return _Pareto(anchor, rank, shape, scale + shape * width)


def fit_pareto(excess: FloatArray, above: float, width: float, weight: float = 1.0) -> tuple[float, float]:
    """Shape and scale of a generalised Pareto distribution, the most likely ones after the prior of the shape.

    Censored: of the scores above `width` only their number is known. With theta = shape / scale, the likelihood has its
    maximum over the shape at S / k, S = sum of log(1 + theta excess) with the censored ones at the width, and a search
    over theta is left.

    excess   what scores exceed the lowest of them by, float64 ascending (k,), in (0, width]
    above    scores that exceed it by more than the width
    weight   scores that stand for one independent one

    >>> excess = -np.log(1 - np.arange(0.0005, 0.9, 0.001))  # exponential, the highest tenth of it unknown
    >>> [round(value, 1) for value in fit_pareto(excess, 100, -np.log(0.1))]
    [0.0, 1.0]

    Grimshaw, "Computing Maximum Likelihood Estimates for the Generalized Pareto Distribution", Technometrics 35 (1993);
    a prior of the shape: Martins and Stedinger, "Generalized Maximum-Likelihood Generalized Extreme-Value Quantile
    Estimators for Hydrologic Data", Water Resources Research 36 (2000).
    """
    count, share = len(excess), 1.0
    if count > POINTS:
        excess = excess[((np.arange(POINTS) + 0.5) * (count / POINTS)).astype(np.int64)]
        share = count / POINTS
    theta = _STEEPNESS / width
    body = share * np.log1p(np.outer(theta, excess)).sum(1)  # (theta, excess) -> (theta,)
    shape = (body + above * np.log1p(_STEEPNESS)) / count
    bounded = np.clip(shape, MIN_SHAPE, MAX_SHAPE)
    likelihood = -(count * np.log(shape / theta) + body) / weight - 0.5 * ((shape - PRIOR_SHAPE) / PRIOR_ERROR) ** 2
    # Beyond the bounds the nearest one within them stands in.
    best = int(np.argmax(np.where(bounded == shape, likelihood, -1e300 - np.abs(shape - bounded))))
    return float(bounded[best]), float(shape[best] / theta[best])


def fit_tail(data: TailData) -> Tail | None:
    """The tail of inliers among whose highest scores anomalies may be; None where scores are ties, or too few.

    The scores above the start are in doubt. First the tail is fitted to those below. As long as the higher half of the
    doubted ones is about where that fit foresees it, the lower half belongs to the tail, and the search goes on from
    there; at the first surplus it ends: what lies beyond is not looked at. Where it ends, at the latest at RANKED
    scores, the table goes over from ranks to the fitted tail.

    It works badly where anomalies go on from the inliers' tail without any surplus: then they are a heavier tail. And
    it extrapolates: of a probability of 1 in 100,000 from 20,000 scores, expect the order of magnitude.

    >>> exponential = -np.log(1 - (np.arange(20_000) + 0.5) / 20_000)
    >>> with_anomalies = np.concatenate([exponential, np.full(40, 50.0)])
    >>> tails = [fit_tail(TailData(scores, len(scores), 3.9, 0.02)) for scores in (exponential, with_anomalies)]
    >>> [f"{tail.probability(np.log([100_000]))[0]:.0e}" for tail in tails]  # ranks would say 2e-03 of the second
    ['1e-05', '1e-04']
    """
    anchor, rank, index = data.start, data.in_doubt, data.below
    tail = data.fit(index, anchor, rank) if rank > 0 else None
    is_open = data.open and len(data.top) - data.below <= data.allowed
    while is_open and tail is not None and rank > RANKED * data.weight:
        rank = max(rank / 2, RANKED * data.weight)
        index = len(data.top) - int(rank)
        anchor = float(data.top[index])
        foreseen = tail.rank_of(anchor)
        further = data.fit(index, anchor, rank) if anchor > tail.anchor else None
        if further is None or rank - foreseen > data.doubt(foreseen):
            break
        tail = further
    if tail is None:
        return None
    ranks = LEVELS * data.inliers
    # Positions in `top` of the scores that so many inliers reach; the doubted ones count as `in_doubt` of them.
    places = data.below + data.in_doubt - ranks
    by_rank = np.interp(places, np.arange(len(data.top)), data.top)
    beyond = tail.score_of(np.minimum(ranks, tail.rank))
    return Tail(np.maximum.accumulate(np.where(ranks > tail.rank, np.minimum(by_rank, tail.anchor), beyond)))


def ranked(top: FloatArray, total: int, scores: FloatArray) -> FloatArray:
    """The share of `total` scores that reach each of `scores` (B,), as a conformal p-value: (1 + above) / (1 + total).

    top: the highest of them, float64 ascending (m,).
    """
    return (1 + len(top) - np.searchsorted(top, scores, side="left")) / (1 + total)


def saved_tail(tail: Tail | None) -> list[float] | None:
    """Plain data for JSON, of which `restored_tail` makes the same tail."""
    return None if tail is None else tail.quantiles.tolist()


def restored_tail(saved: list[float] | None) -> Tail | None:
    """The tail that was saved; ValueError where it is damaged."""
    if saved is None:
        return None
    try:
        quantiles = np.array(saved, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("the saved tail is damaged") from None
    if quantiles.shape != LEVELS.shape or not np.isfinite(quantiles).all() or (np.diff(quantiles) < 0).any():
        raise ValueError("the saved tail is damaged")
    return Tail(quantiles)
