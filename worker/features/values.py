"""Single values as people write them into strings: numbers, and what stands for none at all."""

import re
from collections.abc import Collection, Sequence, Set
from typing import Any

import numpy as np
import orjson

from worker.records import FloatArray

MISSING = ("", "-", "null", "NULL", "None", "N/A", "n/a", "NA", "NaN", "nan", "undefined")
"""Strings that say that there is no value, where a field holds numbers, truth values or times."""

MAX_PADDED = 16  # characters of a gap with the spaces around it, if it has not more itself; times are longer
MAX_NUMBER = 64  # characters of a number in a string, with the spaces around it; what is longer is none
MAX_PERCENT = 100  # percentages, minutes and small amounts end there
MIN_COVERAGE, MAX_UNEVENNESS = 0.8, 0.05  # share of the numbers that occur; Kolmogorov's distance

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_CODE = re.compile(r"[+-]?0[0-9]|\+[0-9]{6}")  # a zip code, an account, a telephone number: what arithmetic would spoil


_BEYOND = 2**1024 - 2**970  # the first whole number that rounds to no double


def doubles(values: Sequence[Any]) -> FloatArray:
    """Numbers as float64 (B,), NaN for None; infinite where a whole number is beyond the range of a double."""
    try:
        return np.array(values, np.float64)
    except OverflowError:  # from a source that isn't JSON
        return np.array([np.inf if abs(value or 0) >= _BEYOND else value for value in values], np.float64)


def without_missing(values: Sequence[Any], types: Set[type], gaps: Collection[str]) -> Sequence[Any]:
    """The values with None for every string that is one of these gaps, spaces around it allowed.

    types   those that occur in the values
    """
    if not gaps or str not in types:
        return values
    max_characters = max(MAX_PADDED, *map(len, gaps))
    texts = values if types == {str} else [value for value in values if type(value) is str]
    if min(map(len, texts)) > max_characters or frozenset(gaps).isdisjoint(map(str.strip, texts)):
        return values
    known = frozenset(gaps)
    return [None if type(v) is str and len(v) <= max_characters and v.strip() in known else v for v in values]


def read_number(text: str) -> float:
    """The number that a text is, spaces around it allowed: infinite beyond the range of a double, NaN for any other.

    More lenient than JSON, for strings come from all sorts of writers: +1, .5, 5. and 007 are numbers. 1_000, 0x10,
    nan, infinity and the digits of other scripts are none.

    >>> read_number(" -12.50 "), read_number("1_000")
    (-12.5, nan)
    """
    text = text.strip() if len(text) <= MAX_NUMBER else "x"
    return float(text) if _NUMBER.fullmatch(text) else np.nan


def read_numbers(texts: Sequence[str]) -> FloatArray:
    """`read_number` of many texts, float64 (B,); ten times as fast where all are numbers of JSON's grammar."""
    if len(texts) and max(map(len, texts)) <= MAX_NUMBER:
        # Each comma within a text would be one number more, so where there are as many, each text is one of them.
        try:
            numbers = orjson.loads(f"[{','.join(texts)}]")
        except (orjson.JSONDecodeError, UnicodeEncodeError):  # a lone surrogate
            numbers = []
        if len(numbers) == len(texts) and set(map(type, numbers)) <= {int, float}:
            return doubles(numbers)
    return np.array([read_number(text) for text in texts], np.float64)


def are_numbers(texts: Sequence[str]) -> bool:
    """Whether all texts are numbers, and none of them a code of digits, such as 01067 or +4930901820."""
    if any(map(_CODE.match, texts)):
        return False
    return bool(np.isfinite(read_numbers(texts)).all())


def spread_evenly(numbers: FloatArray) -> bool:
    """Whether whole numbers are spread evenly over all numbers from 0 or 1 to more than 100, as those are by which a
    table counts its rows, and as hardly any magnitude is.
    """
    distinct, high = len(np.unique(numbers)), float(numbers.max())
    if numbers.min() not in (0, 1) or high <= MAX_PERCENT or distinct < MIN_COVERAGE * high:
        return False
    ranks = np.arange(1, len(numbers) + 1) / len(numbers)
    return bool(np.abs(np.sort(numbers) / high - ranks).max() <= MAX_UNEVENNESS)
