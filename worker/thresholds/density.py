"""The density of scores: a histogram of their logarithms, and the valley between two populations in it."""

import math

import numpy as np
from numpy.typing import NDArray

from worker.records import FloatArray

BIN_RATIO = 1.06  # upper over lower edge of a bin; narrow against any population of scores that was seen
MIN_SCORE, MAX_SCORE = 1e-12, 1e12  # scores outside fall into the first or the last bin; 0 is in the first
SMOOTHING_BINS = 2.0  # standard deviation of the Gaussian that smooths the histogram, in bins
RISE = 2.0  # a valley is one when the density beyond it has risen to this many times its minimum
NOISE_SIGMAS = 4.0  # ... and by more than this many standard deviations of counting noise
# Lower edge of every bin but the first, ascending.
EDGES: FloatArray = MIN_SCORE * BIN_RATIO ** np.arange(1.0 + int(math.log(MAX_SCORE / MIN_SCORE, BIN_RATIO)))
BINS = len(EDGES) + 1

REACH = round(4 * SMOOTHING_BINS)  # how far the smoothing reaches to either side, in bins
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


def find_density_valley(counts: NDArray[np.int64], start: int) -> float | None:
    """The score at the bottom of the first valley of the density to the right of a bin; None when there is none.

    What lies beyond a valley is another population, not a tail: the density has risen again to RISE times its minimum
    so far, and by more than NOISE_SIGMAS of counting noise. This is the mode method of image thresholds, made robust
    against noise.

    It works badly where two populations overlap so far that no dip is left between them, and where the second one has
    few scores: some 20 within a factor of 1.3 are needed to stand out of the noise.

    counts   scores in each bin, int64 (n,), n <= BINS
    start    bin from which on a valley is looked for, inside the first population

    >>> two = np.repeat([1.0, 1.1, 10.0, 11.0], [900, 500, 60, 40])
    >>> round(find_density_valley(count_bins(two), bin_of(1.1)), 2)
    1.77
    >>> find_density_valley(count_bins(two[:1_400]), bin_of(1.1)) is None
    True

    Prewitt and Mendelsohn, "The Analysis of Cell Images", Annals of the New York Academy of Sciences 128 (1966).
    """
    first = max(0, start - REACH)  # what is further to the left does not reach the density at `start`
    density = smooth(counts[first:])[start - first :]
    lowest = np.minimum.accumulate(density)
    risen = (density >= RISE * lowest) & (density - lowest > NOISE_SIGMAS * np.sqrt(density * _NOISE_SHARE))
    return lower_edge(start + int(np.argmin(density[: np.argmax(risen) + 1]))) if risen.any() else None
