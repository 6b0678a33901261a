"""Texts that more than one room writes: times, numbers with few digits, the nearest of several names."""

import difflib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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


def significant(value: float, digits: int) -> float:
    """A number with this many significant decimal digits, for people and for files.

    >>> significant(0.123456, 3)
    0.123
    """
    return float(f"{value:.{digits}g}")


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
    near = difflib.get_close_matches(str(name), list(names), n=1, cutoff=min_likeness)
    return near[0] if near else None
