"""Single values as people write them into strings: what stands for none at all, and what is true or false."""

from collections.abc import Collection, Sequence, Set
from typing import Any

MISSING = ("", "-", "null", "NULL", "None", "N/A", "n/a", "NA", "NaN", "nan", "undefined")
"""Strings that say that there is no value, where a field holds numbers, truth values or times."""

PAIRS = (("true", "false"), ("yes", "no"), ("y", "n"), ("on", "off"), ("t", "f"))
"""What says true and false, in whatever case."""

MAX_PADDED = 16  # characters of a gap with the spaces around it, if it has not more itself; times are longer
_TRUTH = {word: not side for pair in (*PAIRS, ("1", "0")) for side, word in enumerate(pair)}
_MAX_WORD = 16  # characters, with the spaces around it


def read_boolean(value: Any) -> bool | None:
    """What a boolean, a 0 or 1, or a word for one says; None where it is something else.

    >>> read_boolean(" Yes "), read_boolean(0), read_boolean("2")
    (True, False, None)
    """
    if type(value) is str:
        return _TRUTH.get(value.strip().lower()) if len(value) <= _MAX_WORD else None
    return bool(value) if type(value) in (bool, int) and value in (0, 1) else None


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
