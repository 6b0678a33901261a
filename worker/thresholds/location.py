"""How far the level of ordinary scores has moved, and whether their tail moves with it."""

import numpy as np

from worker.records import FloatArray

LEVEL_ERRORS = 2.0
"""Standard errors of a slot's level within which a move counts for nothing, and a little beyond for less."""

LEVEL_LIMIT = 2.0
"""Factor by which the level may move a block's quantile; more than that is a shift, and the median follows it."""

LEAST_FOLLOWED = 4
"""Blocks without which it is not known whether quantiles follow levels; they are then left where they are."""


def level_moves(now: float, then: FloatArray, error: float) -> FloatArray:
    """Factors (n,) from levels `then` (n,) to the level now, within LEVEL_LIMIT; 1 where one of the two is not above 0.

    error: standard error of a level. A move is shrunk towards none by the share of it that chance explains.
    """
    if now <= 0:
        return np.ones(len(then))
    ratio = now / np.where(then > 0, then, now)
    move = np.log(np.clip(ratio, 1 / LEVEL_LIMIT, LEVEL_LIMIT))
    chance = LEVEL_ERRORS * error / now
    kept = 1 - (chance / np.maximum(np.abs(move), max(chance, 1e-12))) ** 2
    moves: FloatArray = np.exp(move * kept)
    return moves


def followed(levels: FloatArray, quantiles: FloatArray) -> float:
    """How far the quantiles of blocks (n,) follow their levels, in [0, 1]: the slope between their logarithms."""
    known = (levels > 0) & (quantiles > 0)
    if np.count_nonzero(known) < LEAST_FOLLOWED:
        return 0.0
    level, quantile = (np.log(values[known]) for values in (levels, quantiles))
    level, quantile = level - level.mean(), quantile - quantile.mean()
    return float(np.clip((level @ quantile) / max(float(level @ level), 1e-12), 0, 1))
