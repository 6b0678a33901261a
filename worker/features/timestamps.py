"""Times in records to milliseconds since the epoch, UTC, a column at a time."""

from collections.abc import Callable, Sequence, Set
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

MINUTE_MS = 60_000
DAY_MS = 86_400_000
WEEK_MS = 7 * DAY_MS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_EARLIEST_MS = -62_135_596_800_000  # year 1
_LATEST_MS = 253_402_300_799_999  # year 9999
_PER_SECOND = {"epoch_s": 1, "epoch_ms": 1_000, "epoch_us": 1_000_000, "epoch_ns": 1_000_000_000}
_SHAPE = "0000-00-00T00:00:00.000000Z"


def accepted_types(time_format: str) -> frozenset[type]:
    """The JSON types that a value in this format can have."""
    if time_format == "auto":
        return frozenset({str, int, float})
    return frozenset({int, float}) if time_format in _PER_SECOND else frozenset({str})


def parser(time_format: str) -> Callable[[Any], int]:
    """A function from one value of an accepted type to milliseconds; it raises ValueError for what is no time."""
    if time_format == "auto":
        return lambda value: _from_iso(value) if isinstance(value, str) else _from_epoch(value, _guess_unit(value))
    if time_format == "iso8601":
        return _from_iso
    if time_format in _PER_SECOND:
        per_second = _PER_SECOND[time_format]
        return lambda value: _from_epoch(value, per_second)
    return lambda value: _from_datetime(datetime.strptime(value, time_format))


def parse_column(values: Sequence[Any], types: Set[type], time_format: str) -> NDArray[np.int64] | None:
    """int64 (B,) milliseconds of a column without gaps, or None where `parser` must go through it value by value.

    types: the types that occur in it.
    """
    if types == {str} and time_format in ("auto", "iso8601"):
        return parse_same_shape(values)
    if types == {int}:
        return _parse_integers(values, time_format)
    return None


def _parse_integers(values: Sequence[int], time_format: str) -> NDArray[np.int64] | None:
    try:
        ticks = np.fromiter(values, np.int64, len(values))
    except OverflowError:
        return None
    low, high = int(ticks.min()), int(ticks.max())
    unit = _guess_unit(low) if time_format == "auto" else _PER_SECOND[time_format]
    if time_format == "auto" and (low < 0 or _guess_unit(high) != unit):
        return None
    if not (low * 1000 // unit >= _EARLIEST_MS and high * 1000 // unit <= _LATEST_MS):
        return None
    return ticks * (1000 // unit) if unit <= 1000 else ticks // (unit // 1000)


def parse_same_shape(texts: Sequence[str]) -> NDArray[np.int64] | None:
    """int64 (B,) milliseconds of ISO texts that all look like 2018-04-01T00:00:31, .123 or .123456, all or none with Z.

    None = at least one does not, or names a day or hour that doesn't exist; the general parser decides then.
    Ten times as fast as datetime.fromisoformat.
    """
    length = len(texts[0])
    zulu = texts[0].endswith("Z")
    body = length - zulu
    if body not in (19, 23, 26) or set(map(len, texts)) != {length}:
        return None
    joined = "".join(texts).encode("utf-8", "surrogatepass")
    if len(joined) != length * len(texts):
        return None
    letters = np.ascontiguousarray(np.frombuffer(joined, np.uint8).reshape(-1, length).T)  # (length, B)
    shape = np.frombuffer((_SHAPE[:body] + "Z" * zulu).encode(), np.uint8)  # (length,)
    digit = shape == ord("0")
    digits = letters - np.uint8(ord("0"))  # what lies below "0" wraps around to more than 9
    if (letters[~digit] != shape[~digit, None]).any() or (digits[digit] > 9).any():
        return None
    return _assemble(digits, body)


def _assemble(digits: NDArray[np.uint8], body: int) -> NDArray[np.int64] | None:
    def number(start: int, stop: int) -> NDArray[np.int64]:
        result: NDArray[np.int64] = digits[start].astype(np.int64)
        for place in range(start + 1, stop):
            result = result * 10 + digits[place]
        return result

    year, month, day = number(0, 4), number(5, 7), number(8, 10)
    hour, minute, second = number(11, 13), number(14, 16), number(17, 19)
    months = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
    first = months.astype("datetime64[D]").astype(np.int64)
    days_in_month = (months + 1).astype("datetime64[D]").astype(np.int64) - first
    exists = (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= days_in_month)
    if not (exists & (hour < 24) & (minute < 60) & (second < 60)).all():
        return None
    millis = number(20, 23) if body > 19 else 0
    return ((first + day - 1) * 1440 + hour * 60 + minute) * MINUTE_MS + second * 1000 + millis


def _from_iso(text: str) -> int:
    return _from_datetime(datetime.fromisoformat(text))


def _from_datetime(moment: datetime) -> int:
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return _checked((aware - _EPOCH) // _MILLISECOND)


def _guess_unit(value: float) -> int:
    # Seconds until the year 5138, milliseconds from 1973 on, and so forth: the magnitudes don't overlap in practice.
    size = abs(value)
    for name, limit in (("epoch_s", 1e11), ("epoch_ms", 1e14), ("epoch_us", 1e17)):
        if size < limit:
            return _PER_SECOND[name]
    return _PER_SECOND["epoch_ns"]


def _from_epoch(value: float, per_second: int) -> int:
    result: int = value * 1000 // per_second if type(value) is int else round(value / per_second * 1000)
    return _checked(result)


def _checked(milliseconds: int) -> int:
    if not _EARLIEST_MS <= milliseconds <= _LATEST_MS:
        raise ValueError("outside the years 1 to 9999, UTC")
    return milliseconds
