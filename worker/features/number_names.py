"""Whole numbers that are names: codes of states, ports, customers."""

import numpy as np

from worker.records import FloatArray

MAX_PERCENT = 100  # percentages, minutes and small amounts end there
MIN_COVERAGE, MAX_UNEVENNESS = 0.8, 0.05  # share of the numbers that occur; Kolmogorov's distance

MIN_VALUES, MAX_NAMES, MAX_NAME_TEXTS = 50, 100, 1000  # values that prove something; distinct numbers, and in strings
MIN_REPEATS, MIN_REPEATED, MIN_SHARE = 10, 0.7, 0.0005  # a number comes again; share of those that do, each so often
MIN_NAME, MAX_DENSITY = 10, 0.5  # below it numbers are counted; share of all numbers from the lowest to the highest
MIN_ROUND = 4  # what all amounts are a multiple of where they are round: 5 euros, 10 seconds
_STATES = (100, 599)  # of HTTP, and of what has its states from there


def find_names(numbers: FloatArray, *, in_strings: bool = False) -> str | None:
    """What speaks against whole numbers being amounts: empty where nothing but their looks does, and None where they
    may well be amounts.

    Codes are few, come again and again, and leave gaps: 200, 301, 404. Amounts fill a range, as 18 to 90 do; or they
    have a tail of values that occur once; or they are round. Small numbers, and what begins 0, 1 or 1, 2, 3, are
    counted. It works badly for prices of few articles, which have all of that, and for codes from 0 on.

    numbers      finite, float64 (n,)
    in_strings   whether they stand in strings: then more of them may differ

    >>> find_names(np.array([200.0] * 40 + [404.0] * 20 + [500.0] * 5))
    'states as those of HTTP'
    >>> find_names(np.arange(100.0) % 5) is None
    True
    """
    distinct, counts = np.unique(numbers, return_counts=True)
    may_be_names = 2 <= len(distinct) <= (MAX_NAME_TEXTS if in_strings else MAX_NAMES)
    if not may_be_names or len(numbers) < max(MIN_VALUES, MIN_REPEATS * len(distinct)) or not (distinct % 1 == 0).all():
        return None
    low, high = distinct[0], distinct[-1]
    repeated = float((counts >= max(3, MIN_SHARE * len(numbers))).mean())
    above = distinct[distinct != 0]
    if repeated < MIN_REPEATED or low < 0 or above[0] < MIN_NAME or len(above) > MAX_DENSITY * (high - above[0] + 1):
        return None
    if _STATES[0] <= above[0] and high <= _STATES[1] and 200 in above:  # that of what went well
        return "states as those of HTTP"
    if len(above) < 2 or np.gcd.reduce(above.astype(np.int64)) >= MIN_ROUND or (np.log2(above) % 1 == 0).all():
        return None  # round numbers: of money, of seconds, of bytes
    digits = np.floor(np.log10(above))
    return f"{len(distinct)} numbers of {digits[0] + 1:.0f} digits" if (digits == digits[0]).all() else ""


def spread_evenly(numbers: FloatArray) -> bool:
    """Whether whole numbers are spread evenly over all numbers from 0 or 1 to more than 100, as those are by which a
    table counts its rows, and as hardly any magnitude is.
    """
    distinct, high = len(np.unique(numbers)), float(numbers.max())
    if numbers.min() not in (0, 1) or high <= MAX_PERCENT or distinct < MIN_COVERAGE * high:
        return False
    ranks = np.arange(1, len(numbers) + 1) / len(numbers)
    return bool(np.abs(np.sort(numbers) / high - ranks).max() <= MAX_UNEVENNESS)
