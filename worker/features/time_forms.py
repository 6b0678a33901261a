"""Times as programs write them into strings: read by a strptime pattern, a column at a time.

A column has few shapes: with every digit a 0 and every letter an a, all lines of one access log are the same. Where the
parts of a time stand is found once for each shape; then they are cut out of all of its texts at once.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from worker.records import NO_TIME, BoolArray, TimeArray
from worker.texts import MAX_TIME_MS, MIN_TIME_MS

NAMED: dict[str, tuple[str, ...]] = {
    "common_log": ("[%d/%b/%Y:%H:%M:%S %z]", "%d/%b/%Y:%H:%M:%S %z", "[%d/%b/%Y:%H:%M:%S]", "%d/%b/%Y:%H:%M:%S"),
    "rfc2822": ("%a, %d %b %Y %H:%M:%S %z", "%d %b %Y %H:%M:%S %z", "%a, %d %b %Y %H:%M:%S", "%a, %d %b %Y %H:%M %z"),
    "syslog": ("%b %d %H:%M:%S",),
}
"""Formats by name, each with the patterns that it reads: access logs, mails and HTTP headers, syslog without year."""

MAX_TIME = 64  # characters of a time
LEAP_YEAR = 1972  # stands for the year of a time that names none, so that 29 February is a day
_EUROPE = (("wet", 0), ("west", 60), ("bst", 60), ("cet", 60), ("cest", 120), ("eet", 120), ("eest", 180), ("msk", 180))
_ASIA = (("ist", 330), ("sgt", 480), ("hkt", 480), ("jst", 540), ("kst", 540), ("aest", 600), ("aedt", 660))
_AMERICA = (("est", -300), ("edt", -240), ("cst", -360), ("cdt", -300), ("mst", -420), ("mdt", -360), ("pst", -480))
ZONES = dict(
    (("utc", 0), ("gmt", 0), ("z", 0), *_EUROPE, *_ASIA, ("nzst", 720), ("nzdt", 780), *_AMERICA, ("pdt", -420))
)
"""Minutes ahead of UTC by the words for them. CST is that of Chicago, BST that of London, IST that of India."""

_MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november")
_MONTH_OF = {name: at for at, month in enumerate((*_MONTHS, "december"), 1) for name in (month, month[:3])}
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_DAYS = frozenset(name for day in _WEEKDAYS for name in (day, day[:3]))
_SHAPES = bytes.maketrans(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", b"0" * 10 + b"a" * 52)
_ONE_OR_TWO, _WORD, _ZONE = "0{1,2}", "aaa", "[+-]00(?::?00){0,2}|a{1,5}"
_DIRECTIVES = {
    **dict.fromkeys("mdHIM", _ONE_OR_TWO),
    **dict.fromkeys("bha", _WORD),
    **dict.fromkeys("zZ", _ZONE),
    **dict(zip("YypfBA", ("0000", "00", "aa", "0{1,9}", "a{3,9}", "a{6,9}"), strict=True)),
    "S": f"{_ONE_OR_TWO}(?:[.,]0{{1,9}})?",
}
_PARTS = re.compile(r"%(.)|(\s+)|([^%\s]+)")


class _Span(NamedTuple):
    """Where a directive stands in the texts of a shape, or a literal with letters."""

    directive: str
    start: int
    end: int
    literal: bytes = b""


def knows(pattern: str) -> bool:
    """Whether a column can be read by this pattern; else `datetime.strptime` has to go through it."""
    return all(not match[1] or match[1] in _DIRECTIVES or match[1] == "%" for match in _PARTS.finditer(pattern))


def patterns_of(time_format: str) -> tuple[str, ...]:
    """The patterns that a format reads: those of its name, or itself."""
    return NAMED.get(time_format, (time_format,))


def names_year(time_format: str) -> bool:
    """Whether its times say of which year they are."""
    return time_format != "syslog"


def shape_of(text: str) -> str:
    """A text with every digit a 0 and every letter an a."""
    return text.encode(errors="replace").translate(_SHAPES).decode(errors="replace")


def regex_of(time_format: str) -> list[re.Pattern[str]]:
    """What the shapes of its times look like."""
    return [_regex(pattern)[0] for pattern in patterns_of(time_format)]


def read_times(texts: Sequence[str], time_format: str) -> tuple[TimeArray, BoolArray]:
    """Milliseconds of texts, int64 (B,), and which of them are times of this format, bool (B,).

    Beyond strptime: a second may have a fraction, `%z` and `%Z` take +0100, +01:00, +01, Z and the words of ZONES, and
    names may be in any case. Without a zone a time counts as UTC, without a year as one of 1972.

    >>> read_times(["[01/Mar/2026:10:00:00 +0100]", "yesterday"], "common_log")[0].tolist()
    [1772355600000, 0]
    """
    result, fits = np.zeros(len(texts), np.int64), np.zeros(len(texts), bool)
    lines = [text.strip().encode() if len(text) <= MAX_TIME and text.isascii() else b"?" for text in texts]
    if any(b"\n" in line for line in lines):
        lines = [b"?" if b"\n" in line else line for line in lines]
    shapes = b"\n".join(lines).translate(_SHAPES).split(b"\n")
    rows_of: dict[bytes, list[int]] = {}
    for row, shape in enumerate(shapes):
        rows_of.setdefault(shape, []).append(row)
    for shape, rows in rows_of.items():
        for spans in _plans(time_format, shape):
            letters = np.frombuffer(b"".join([lines[row] for row in rows]), np.uint8).reshape(len(rows), len(shape))
            times, known = _read_shape(letters, spans)
            first = known & ~fits[rows]  # of several patterns that fit, the first one counts
            result[rows] = np.where(first, times, result[rows])
            fits[rows] |= known
    return result, fits


@lru_cache(maxsize=1 << 12)
def _plans(time_format: str, shape: bytes) -> tuple[tuple[_Span, ...], ...]:
    """Where the parts of the texts of a shape stand, by each of the format's patterns that fits it."""
    plans = []
    for pattern in patterns_of(time_format):
        regex, parts = _regex(pattern)
        match = regex.fullmatch(shape.decode())
        if match is not None:
            spans = [_Span(name, *match.span(at), literal) for at, (name, literal) in enumerate(parts, 1)]
            plans.append(tuple(spans if names_year(time_format) else [*spans, _Span("leap", 0, 0)]))
    return tuple(plans)


@lru_cache(maxsize=1 << 9)
def _regex(pattern: str) -> tuple[re.Pattern[str], tuple[tuple[str, bytes], ...]]:
    """What the shape of such a text looks like, and what its groups are."""
    regex, parts = "", []
    for match in _PARTS.finditer(pattern):
        directive, space, literal = match.groups()
        if space:
            regex += r"\s+"
        elif literal or directive == "%":
            text = (literal or "%").encode(errors="replace")
            regex += f"({re.escape(text.translate(_SHAPES).decode(errors='replace'))})"
            parts.append(("", text))
        else:
            whole = _ONE_OR_TWO if directive == "S" and "%f" in pattern else _DIRECTIVES[directive]
            if whole == _ONE_OR_TWO or directive == "S":  # digits that nothing separates are two each
                is_alone = pattern[: match.start()][-2:-1] != "%"
                is_alone = is_alone and pattern[match.end() : match.end() + 1] != "%"
                whole = whole if is_alone or pattern[match.end() :].lower().startswith("%z") else f"00{whole[6:]}"
            regex += f"({whole})"
            parts.append((directive, b""))
    return re.compile(regex), tuple(parts)


def _read_shape(letters: NDArray[np.uint8], spans: Sequence[_Span]) -> tuple[TimeArray, BoolArray]:
    """The times of texts of one shape, (n, length): milliseconds (n,), and which are times."""
    n = len(letters)
    part: dict[str, NDArray[np.int64]] = {}
    fits = np.ones(n, bool)
    for directive, start, end, literal in spans:
        texts = letters[:, start:end]
        if not directive:
            fits &= (texts == np.frombuffer(literal, np.uint8)).all(1)
        elif directive in _WORDS:
            name, meaning = _WORDS[directive]
            part[name], known = _meanings(texts, meaning)
            fits &= known
        elif directive == "leap":
            part["Y"] = np.full(n, LEAP_YEAR)
        else:
            mark = next((at for at in range(end - start) if letters[0, start + at] in b".,"), end - start)
            part[directive] = _number(texts[:, :mark])
            if directive == "f" or mark < end - start:
                digits = texts if directive == "f" else texts[:, mark + 1 :]
                part["f"] = _number(digits[:, :3]) * 10 ** max(0, 3 - digits.shape[1])
    return _moments(part, fits)


def _number(digits: NDArray[np.uint8]) -> NDArray[np.int64]:
    return (digits.astype(np.int64) - ord("0")) @ 10 ** np.arange(digits.shape[1])[::-1]


def _meanings(texts: NDArray[np.uint8], meaning: Callable[[str], int | None]) -> tuple[NDArray[np.int64], BoolArray]:
    """What words or offsets (n, length) stand for, and which of them are known: few differ in a column."""
    if (texts == texts[0]).all():
        distinct, place = [texts[0].tobytes()], np.zeros(len(texts), np.intp)
    else:
        words, place = np.unique(np.ascontiguousarray(texts).view(f"S{texts.shape[1]}").ravel(), return_inverse=True)
        distinct = words.tolist()
    meanings = [meaning(word.decode().lower()) for word in distinct]
    known = np.array([value is not None for value in meanings])
    return np.array([value or 0 for value in meanings], np.int64)[place], known[place]


def _offset(text: str) -> int | None:
    """Minutes ahead of UTC."""
    if text[0] not in "+-":
        return ZONES.get(text)
    digits = text[1:].replace(":", "")
    hours, minutes = int(digits[:2]), int(digits[2:4] or 0)
    return (-1 if text[0] == "-" else 1) * (60 * hours + minutes) if hours < 24 and minutes < 60 else None


_WORDS: dict[str, tuple[str, Callable[[str], int | None]]] = {
    **dict.fromkeys("bhB", ("m", _MONTH_OF.get)),
    **dict.fromkeys("aA", ("weekday", lambda word: 0 if word in _DAYS else None)),
    **dict.fromkeys("zZ", ("offset", _offset)),
    "p": ("p", {"am": 0, "pm": 12}.get),
}


def _moments(part: dict[str, NDArray[np.int64]], fits: BoolArray) -> tuple[TimeArray, BoolArray]:
    """Milliseconds of the parts of times, (n,), and which of them exist."""
    zero = np.zeros(len(fits), np.int64)
    year, month, day = part.get("Y", zero + 1900), part.get("m", zero + 1), part.get("d", zero + 1)
    if "y" in part:
        year = part["y"] + np.where(part["y"] < 69, 2000, 1900)  # as POSIX has it
    fits = fits & (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1)
    months = np.where(fits, (year - 1970) * 12 + month - 1, 0).astype("datetime64[M]")
    first, following = (m.astype("datetime64[D]").astype(np.int64) for m in (months, months + 1))
    fits &= day <= following - first
    hour, minute, second = part.get("H", zero), part.get("M", zero), part.get("S", zero)
    if "I" in part:
        fits &= (part["I"] >= 1) & (part["I"] <= 12)
        hour = part["I"] % 12 + part.get("p", zero)
    fits &= (hour < 24) & (minute < 60) & (second < 60)
    seconds = (((first + day - 1) * 24 + hour) * 60 + minute - part.get("offset", zero)) * 60 + second
    milliseconds = seconds * 1000 + part.get("f", zero)
    return milliseconds, fits & (milliseconds >= MIN_TIME_MS) & (milliseconds <= MAX_TIME_MS)


def with_year(times: TimeArray, near: TimeArray) -> TimeArray:
    """Times of 1972 in the year in which they lie nearest to other times, (B,) milliseconds; unchanged near NO_TIME."""
    moments = times.astype("datetime64[ms]")
    months = moments.astype("datetime64[M]")
    rest = times - months.astype("datetime64[ms]").astype(np.int64)
    year = near.astype("datetime64[ms]").astype("datetime64[Y]").astype(np.int64)
    month = months.astype(np.int64) % 12
    years = [
        (((year + shift) * 12 + month).astype("datetime64[M]").astype("datetime64[ms]").astype(np.int64) + rest)
        for shift in (-1, 0, 1)
    ]
    nearest = np.abs(np.stack(years) - near).argmin(0)
    return np.where(near == NO_TIME, times, np.stack(years)[nearest, np.arange(len(times))])
