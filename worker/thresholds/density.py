"""Where ordinary scores end: a histogram of log scores, and the valley between two populations in it."""

import math

import numpy as np
from numpy.typing import NDArray

from worker.records import FloatArray

BIN_RATIO = 1.06
"""Width of a bin: its upper edge over its lower one. Narrow against any population of scores that was seen."""

LOWEST, HIGHEST = 1e-12, 1e12
"""Scores outside fall into the first or the last bin; 0 is in the first."""

SMOOTHING_BINS = 2.0
"""Standard deviation of the Gaussian that smooths the histogram, in bins."""

RISE = 2.0
"""A valley is one when the density beyond it has risen to this many times its lowest."""

NOISE_SIGMAS = 4.0
"""... and by more than this many standard deviations of counting noise."""

EDGES: FloatArray = LOWEST * BIN_RATIO ** np.arange(int(math.log(HIGHEST / LOWEST, BIN_RATIO)) + 1, dtype=np.float64)
"""Lower edge of every bin but the first, ascending."""

BINS = len(EDGES) + 1

REACH = round(4 * SMOOTHING_BINS)
"""How far the smoothing looks to either side, in bins."""

_KERNEL: FloatArray = np.exp(-0.5 * (np.arange(-REACH, REACH + 1) / SMOOTHING_BINS) ** 2)
_KERNEL /= _KERNEL.sum()
_NOISE_SHARE = float((_KERNEL**2).sum())  # variance of a smoothed count over the count, for Poisson counts


def bin_of(score: float) -> int:
    """The bin that holds `score`."""
    return int(np.searchsorted(EDGES, score, side="right"))


def lower_edge(index: int) -> float:
    """The lowest score of a bin; for the first one, that of the second."""
    return float(EDGES[max(index, 1) - 1])


def count_bins(scores: FloatArray) -> NDArray[np.int64]:
    """Scores (B,) in each bin, int64 (BINS,)."""
    return np.bincount(np.searchsorted(EDGES, scores, side="right"), minlength=BINS)


def smooth(counts: NDArray[np.int64]) -> FloatArray:
    """Counts (n,), n > 0, with the Gaussian kernel laid over them, float64 (n,)."""
    return np.convolve(counts, _KERNEL)[REACH : REACH + len(counts)]


def find_valley(counts: NDArray[np.int64], start: int) -> float | None:
    """The score at the bottom of the first valley to the right of bin `start`; None when there is none.

    What lies beyond it is another population, not a tail: the density has risen again to RISE times its lowest
    so far, and by more than NOISE_SIGMAS of counting noise.
    """
    first = max(0, start - REACH)  # what is further to the left does not reach the density at `start`
    density = smooth(counts[first:])[start - first :]
    lowest = np.minimum.accumulate(density)
    risen = (density >= RISE * lowest) & (density - lowest > NOISE_SIGMAS * np.sqrt(density * _NOISE_SHARE))
    beyond = int(np.argmax(risen)) if len(risen) else 0
    if not len(risen) or not risen[beyond]:
        return None
    return lower_edge(start + int(np.argmin(density[: beyond + 1])))
