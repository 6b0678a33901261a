"""What the order of a field's values says: whether it only grows, so that what comes next is beyond all that was seen.

A process id, an offset, a date as text: learned as a level or as a name, every later record is an anomaly.
"""

import re
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

MIN_VALUES = 20  # fewer in a row prove nothing
PARTS = 16  # of the sample; that their medians rise all the way has a chance of 1 : 16! where nothing grows
CONCORDANCE = 0.9  # of the order of the values with that of the records; 1 = sorted
MIN_MEDIANS = 3  # distinct ones; two may be a setting that somebody changed
COMPARED_VALUES = 4_000  # spread over the sample
MAX_DISORDER = 0.25  # series that the values need, as a part of what they need when shuffled
MIN_VARIETY = 0.2  # share of distinct values in a counter
MIN_NOVELTY, FAR_GAPS = 0.1, 5  # of the second half: hours and months rise and begin again, too, but come again
DIGITS = re.compile("[0-9]+")
HEAD = 64  # values of which many differ where all do
MAX_TEXT = 64  # characters of a text that are compared

CALENDAR = {"year", "month", "day", "date", "week", "weekday", "hour", "minute"}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_COMPACT_DATE = re.compile("(?:19|20)?[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])")

Ranks = NDArray[np.int64]


def describe_calendar(name: str, values: Sequence[Any]) -> str | None:
    """Why a field that had one value, or changed once, will have another one soon: it is a date, or a part of one, by
    its name or by its digits (081109, 20261102); None where nothing says so.

    values   of the field, in the order of their records, none of them missing

    >>> describe_calendar("Month", ["Mar"] * 50), describe_calendar("shop", ["Mar"] * 50)
    ('a date or a part of one, which hardly moved in this sample', None)
    """
    if not values or type(values[0]) not in (int, str) or len(set(map(str, values[:HEAD]))) > 2:
        return None  # as most
    distinct = set(map(str, values))
    if len(distinct) > 2 or sum(after != before for before, after in pairwise(values)) > 1:
        return None
    words = {word.lower() for word in _WORD.findall(name.rpartition(".")[2])}
    if CALENDAR.isdisjoint(words) and not all(map(_COMPACT_DATE.fullmatch, distinct)):
        return None
    return "a date or a part of one, which hardly moved in this sample"


def describe_growth(values: Sequence[Any]) -> str | None:
    """Why the next values of a field are likely to lie beyond all of these; None where they are not.

    Two tests, each for both directions. The medians of 16 parts of the sample rise from part to part, and the order of
    the values agrees with that of the records (the covariance of ranks and places, as a part of the highest that these
    values can have): finds what grows with strays, repeats and noise. And the values fall apart into rising series, in
    far fewer than when they are shuffled, and later values are not among the earlier ones (the least number of series
    is the length of the longest falling subsequence: Schensted, "Longest Increasing and Decreasing Subsequences",
    Canadian Journal of Mathematics 13, 1961): finds counters of several hosts that are mixed with each other, and those
    that begin again to go further.

    It works badly for samples of a rise that ends (the temperatures of one morning), for a file that was sorted by the
    field, and for more than about 30 counters that are mixed. What is random, or comes back within the sample, however
    slowly, has practically no chance to pass.

    values   of the field, in the order of their records, None where missing: numbers or strings; a string's digits
             count where all strings are alike but for them, else its letters, and one without digits doesn't grow

    >>> describe_growth([4711 + n // 3 for n in range(200)])
    'only grows: later values lie beyond the earlier ones'
    >>> describe_growth([n * 7919 % 200 for n in range(200)]) is None
    True
    """
    present = [value for value in values if value is not None]
    ranks = _ranks(present[:: -(-len(present) // COMPARED_VALUES) or 1])
    if ranks is None or len(ranks) < MIN_VALUES:
        return None
    for verb, directed in (("grows", ranks), ("falls", ranks.max() - ranks)):
        if _rises(directed):
            return f"only {verb}: later values lie beyond the earlier ones"
        if _is_interleaved(directed):
            return f"only {verb}, in several series that are mixed or begin again"
    return None


def _ranks(values: Sequence[Any]) -> Ranks | None:
    """The place of each value among the distinct ones, (n,); None where they have no order that could grow."""
    types = set(map(type, values))
    if not types:
        return None
    if types <= {int, float}:
        keys: Sequence[Any] = values
    elif types == {str}:
        texts = [value[:MAX_TEXT] for value in values]
        if not all(map(DIGITS.search, texts)):
            return None
        alike = len({DIGITS.sub("0", text) for text in texts}) == 1
        keys = [tuple(map(int, DIGITS.findall(text))) for text in texts] if alike else texts
    else:
        return None
    place = {key: rank for rank, key in enumerate(sorted(set(keys)))}
    return np.fromiter(map(place.__getitem__, keys), np.int64, len(keys))


def _rises(ranks: Ranks) -> bool:
    medians = np.array([np.median(part) for part in np.array_split(ranks, PARTS)])
    if (np.diff(medians) < 0).any() or len(np.unique(medians)) < MIN_MEDIANS:
        return False
    places = np.arange(len(ranks)) - (len(ranks) - 1) / 2
    return _covariance(places, ranks) >= CONCORDANCE * _covariance(places, np.sort(ranks))


def _covariance(places: NDArray[Any], ranks: Ranks) -> float:
    return float(places @ ranks)


def _is_interleaved(ranks: Ranks) -> bool:
    if len(np.unique(ranks)) < max(MIN_VALUES, MIN_VARIETY * len(ranks)) or not _is_novel(ranks):
        return False
    shuffled = np.random.default_rng(0).permutation(ranks)
    return _count_series(ranks.tolist()) <= MAX_DISORDER * _count_series(shuffled.tolist())


def _is_novel(ranks: Ranks) -> bool:
    """Whether much of the second half lies where nothing of the first half is near, as measured by its own gaps."""
    first, second = np.unique(ranks[: len(ranks) // 2]), ranks[len(ranks) // 2 :]
    gap = float(np.median(np.diff(first))) if len(first) > 1 else 1.0
    after = np.searchsorted(first, second)
    above, below = first[np.minimum(after, len(first) - 1)], first[np.maximum(after - 1, 0)]
    distances = np.minimum(np.abs(above - second), np.abs(second - below))
    return float(np.mean(distances > FAR_GAPS * gap)) >= MIN_NOVELTY


def _count_series(ranks: Sequence[int]) -> int:
    """The least number of series, none of which ever falls, that these are a mixture of."""
    ends: list[int] = []  # the negated last value of each series, in rising order: the highest last value first
    for rank in ranks:
        at = bisect_left(ends, -rank)  # the series with the highest end that is no higher than the value
        if at == len(ends):
            ends.append(-rank)
        else:
            ends[at] = -rank
    return len(ends)
