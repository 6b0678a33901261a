"""Texts that more than one room writes: times, numbers with few digits, the nearest of several names, quotations."""

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

MAX_SHOWN = 3  # names or values of many that a message shows
MAX_QUOTED = 200  # characters of something from outside that a message quotes
MAX_NAME = 200  # a longer name is no typing mistake, and comparing takes the product of both lengths

MIN_TIME_MS, MAX_TIME_MS = -62_135_596_800_000, 253_402_300_799_999  # the years 1 to 9999, UTC

_NUMBER_STARTS = frozenset("-0123456789")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# What a terminal obeys instead of showing it: control characters, line ends, directions of writing; and surrogates,
# which no encoding writes.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def rfc3339(milliseconds: float) -> str:
    """Milliseconds since the epoch as RFC 3339, UTC, milliseconds; OverflowError beyond the year 9999.

    >>> rfc3339(1_772_323_200_000)
    '2026-03-01T00:00:00.000Z'
    """
    moment = _EPOCH + timedelta(milliseconds=milliseconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def event_time_text(milliseconds: int) -> str | None:
    """An event time as RFC 3339; None where a record has none (-1), or one beyond the year 9999."""
    try:
        return None if milliseconds == -1 else rfc3339(milliseconds)
    except OverflowError:
        return None


def parse_iso_time(text: str) -> int:
    """ISO 8601 (UTC where it names no zone) as milliseconds since the epoch; ValueError for any other text.

    >>> parse_iso_time("2026-03-01T01:00+01:00")
    1772323200000
    """
    moment = datetime.fromisoformat(text)
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // timedelta(milliseconds=1)


def parse_number(text: str) -> float | None:
    """The number that a text is by the grammar of JSON, white space around it allowed; None for any other text.

    So 1_000, +1, .5, 007, 0x10, nan and infinity are none, nor are the digits of other scripts. A whole number beyond
    64 bits becomes a float, one beyond the range of a double infinite.

    >>> parse_number("1e3"), parse_number("-12"), parse_number("1_000")
    (1000.0, -12, None)
    """
    text = text.strip(" \t\r\n")
    if text[:1] not in _NUMBER_STARTS:
        return None
    try:
        number: float = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if "infinity" not in str(error):
            return None
        return -math.inf if text.startswith("-") else math.inf
    return number


def significant(value: float, digits: int) -> float:
    """A number with this many significant decimal digits, for people and for files.

    >>> significant(0.123456, 3)
    0.123
    """
    return float(f"{value:.{digits}g}")


def printable(text: str) -> str:
    """A text from outside on one line, with its control characters as Python escapes them.

    >>> printable("\\x1b[31mred\\n")
    '\\\\x1b[31mred\\\\n'
    """
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def shortened(items: Sequence[Any], maximum: int = MAX_SHOWN) -> str:
    """The first of several names or values, at most so many, and how many there are besides.

    >>> shortened(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    rest = len(items) - maximum
    return ", ".join(map(str, items[:maximum])) + (f" and {rest:,} more" if rest > 0 else "")


def quoted(value: object, max_characters: int = MAX_QUOTED) -> str:
    """What a message says of a value from outside, whatever its size: printable, and cut after so many characters.

    >>> quoted("a" * 300, 5)
    'aaaaa…'
    """
    text = str(value)
    return printable(text) if len(text) <= max_characters else f"{printable(text[:max_characters])}…"


def did_you_mean(name: object, names: Iterable[str]) -> str:
    """What to add to "unknown name": the nearest of the known names in brackets, nothing where none is near.

    >>> did_you_mean("amout", ["amount", "country"])
    " (did you mean 'amount'?)"
    """
    near = nearest(name, names)
    return f" (did you mean {near!r}?)" if near is not None else ""


def nearest(name: object, names: Iterable[str], *, min_likeness: float = 0.5) -> str | None:
    """The name that is most like another one; None where the likeness of all is below the minimum.

    min_likeness   from 0 (any name will do) to 1 (the same letters), as difflib measures it
    """
    known = (other for other in names if len(other) <= MAX_NAME)
    near = difflib.get_close_matches(str(name)[:MAX_NAME], list(known), n=1, cutoff=min_likeness)
    return near[0] if near else None
