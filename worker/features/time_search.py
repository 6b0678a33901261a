"""Which format reads all times of a sample."""

import re
from collections.abc import Iterator, Sequence

import numpy as np

from worker.features.time_forms import MAX_TIME, NAMED, read_times, regex_of, shape_of
from worker.records import FloatArray, TimeArray

HEAD = 100  # texts that a format has to read before it is tried on all of them
PER_SECOND = {"epoch_s": 1, "epoch_ms": 1_000, "epoch_us": 1_000_000, "epoch_ns": 1_000_000_000}
"""Ticks in a second of the formats of epochs."""

ORDERED = 0.9  # share of steps in one direction; parallel writers swap neighbours
SMOOTH, MIN_WAY = 0.05, 0.5  # of the range: the usual step from one time to the next, and the way of all of them
_YEAR_2000, _YEAR_2100, _THIRTY_YEARS, _DAY = 946_684_800, 4_102_444_800, 30 * 365 * 86_400, 86_400  # seconds
_YEAR_2100_MS = 4_102_444_800_000
SMOOTHER, MIN_TIMES = 0.2, 5  # so small the steps must be for a reading to be the right one, over so many times

_WHOLE = (
    *NAMED,
    "%a %b %d %H:%M:%S %Y",  # C's asctime
    "[%a %b %d %H:%M:%S %Y]",
    "%a %b %d %H:%M:%S %z %Y",  # date, and Java's Date
    "%a %b %d %Y %H:%M:%S GMT%z",
    "%Y%m%d",
    "%Y%m%d%H%M",
    "%Y%m%d%H%M%S",
    "%y%m%d %H%M%S",
)
# Equally good ones are tried in this order: the day first, as in most countries.
_DATES = (
    *("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y"),
    *("%d/%b/%Y", "%d-%b-%Y", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y", "%a, %d %b %Y"),
    *("%d.%m.%y", "%d/%m/%y", "%m/%d/%y", "%y/%m/%d", "%d-%b-%y", "%Y%m%d"),
)
_CLOCKS = ("%H:%M:%S", "%I:%M:%S %p", "%H:%M", "%I:%M %p", "%H.%M.%S.%f", "%H.%M.%S", "%H:%M:%S:%f", "%H%M%S")
_BETWEEN = re.compile(r"[Tt]|,?\s+|:|\s*-\s*|_|")
_ZONES = ("", "%z", " %z", " %z %Z")


def find_format(texts: Sequence[str]) -> tuple[str, str] | None:
    """The format that reads all of these texts, and what they could mean instead; None where none does.

    Where a day and a month can't be told apart, the reading with the smaller steps from one text to the next is taken,
    for records come in the order of time, mostly.

    >>> find_format(["13.03.2026 14:05", "02.04.2026 09:30"])
    ('%d.%m.%Y %H:%M', '')
    """
    first = texts[0].strip()
    if not 6 <= len(first) <= MAX_TIME or not any(map(str.isdigit, first)):
        return None
    readings: list[tuple[str, TimeArray]] = []
    head = texts[:HEAD]
    for time_format in dict.fromkeys(_candidates(first)):
        times, fits = read_times(head, time_format)
        if not fits.all() or any(np.array_equal(times, others[: len(head)]) for _, others in readings):
            continue
        times, fits = read_times(texts, time_format)
        is_number = first.isdecimal() and not (times.min() > 0 and times.max() < _YEAR_2100_MS)
        if fits.all() and not is_number:
            readings.append((time_format, times))
    if not readings:
        return None
    steps = [float(np.abs(np.diff(times)).sum()) for _, times in readings]
    chosen = min(range(len(readings)), key=steps.__getitem__)
    if len(readings) == 1:
        return readings[0][0], ""
    if steps[chosen] < SMOOTHER * sorted(steps)[1] and len(np.unique(readings[chosen][1])) >= MIN_TIMES:
        return readings[chosen][0], ""
    names = " or ".join(name for name, _ in readings)
    return readings[chosen][0], f"could be {names}: read as {readings[chosen][0]}"


def _candidates(text: str) -> Iterator[str]:
    """Formats whose shape this text has."""
    shape = shape_of(text)
    for time_format in _WHOLE:
        if any(regex.fullmatch(shape) for regex in regex_of(time_format)):
            yield time_format
    is_boxed = text.startswith("[") and text.endswith("]")
    before, after = ("[", "]") if is_boxed else ("", "")
    text = text[1:-1] if is_boxed else text
    for date in _DATES:
        for clock, zone in ((clock, zone) for clock in _clocks(text, date) for zone in _ZONES):
            whole = f"{before}{date}{clock}{zone}{after}"
            if any(regex.fullmatch(shape) for regex in regex_of(whole)):
                yield whole


def _clocks(text: str, date: str) -> Iterator[str]:
    """What can follow a date in this text, without a zone: nothing, or a time of day."""
    shape = shape_of(text)
    match = next((m for regex in regex_of(date) if (m := regex.match(shape)) is not None), None)
    if match is None:
        return
    between = _BETWEEN.match(text, match.end())
    if match.end() == len(text) or between is None:
        yield ""
        return
    rest = shape[between.end() :]
    for clock in _CLOCKS:
        if any(regex.match(rest) for regex in regex_of(clock)):
            yield re.sub(r"\s+", " ", between[0]) + clock


def epoch_unit(numbers: FloatArray) -> str | None:
    """The format of numbers that are epochs, in the order of their records; None where they are something else.

    Their magnitude is not enough: two billion bytes are as many seconds as there were until 2033. Times lie in order,
    mostly, or near to each other: within a day, or each near to the one before. Times that point anywhere in the past,
    whose records are in no order, are not told from counters.

    >>> epoch_unit(1_772_323_200 + np.arange(50.0))
    'epoch_s'
    >>> epoch_unit(np.random.default_rng(0).uniform(2e9, 3e9, 50)) is None
    True
    """
    low, high = float(numbers.min()), float(numbers.max())
    for name, per_second in PER_SECOND.items():
        if not _YEAR_2000 * per_second <= low <= high <= min(_YEAR_2100 * per_second, low + _THIRTY_YEARS * per_second):
            continue
        steps = np.diff(numbers)
        if high - low <= _DAY * per_second or not len(steps):
            return name
        is_ordered = max((steps >= 0).mean(), (steps <= 0).mean()) >= ORDERED
        tenth = -(-len(numbers) // 10)
        way = abs(np.median(numbers[-tenth:]) - np.median(numbers[:tenth]))  # a level goes up and down
        is_smooth = np.median(np.abs(steps)) <= SMOOTH * (high - low) and way >= MIN_WAY * (high - low)
        return name if is_ordered or is_smooth else None
    return None
