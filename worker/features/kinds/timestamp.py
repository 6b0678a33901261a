"""Fields that hold times: read to milliseconds since the epoch, UTC, a column at a time."""

import math
import re
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from typing_extensions import override

from worker.errors import ErrorCode
from worker.features.kinds.base import Column, Failures, Field
from worker.features.kinds.evidence import Evidence, Sample, Strength
from worker.features.kinds.options import FLAG, TEXTS, Check, option
from worker.features.learned import CategoryColumn, FieldStats, NumericColumn
from worker.features.number_forms import PLAIN
from worker.features.scaling import CYCLE, Scaling
from worker.features.time_forms import MAX_TIME, NAMED, knows, names_year, patterns_of, read_times, with_year
from worker.features.time_search import PER_SECOND, epoch_unit, find_format
from worker.features.values import MISSING
from worker.records import BoolArray, FloatArray, TimeArray
from worker.texts import MAX_TIME_MS, MIN_TIME_MS

DAY_MS = 86_400_000
CYCLES = {"hour": DAY_MS, "weekday": 7 * DAY_MS}
"""Their periods. An hour of the day lies on the daily circle, a weekday with its time on the weekly one."""

MIN_CYCLES = 1.9  # that the fit rows have to span: about two, so that two calendar weeks of records are enough
TIME_FORMATS = ("auto", "iso8601", "epoch_s", "epoch_ms", "epoch_us", "epoch_ns", *NAMED)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SHAPE = b"0000-00-00T00:00:00.000000"
_EPOCH_TEXT = re.compile(r"-?[0-9]{9,20}(\.[0-9]{1,9})?")  # less than 9 digits may be a date: 20260301
_DIGITS_AS_ZEROS = bytes.maketrans(b"0123456789", b"0000000000")
_MONDAY_MS = 4 * DAY_MS  # 1970-01-05; the epoch was a Thursday
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_QUARTER_MS = 900_000  # no zone changes its clock between two quarters of an hour
_FIRST_QUARTER, _LAST_QUARTER = -62_135_596_800 // 900 + 100, 253_402_300_799 // 900 - 100  # local years 1 to 9999


def _is_pattern(text: str) -> bool:
    try:
        datetime.strptime(datetime(2000, 1, 1, tzinfo=UTC).strftime(text), text)
    except (ValueError, re.error):  # a directive that stands in it twice
        return knows(text) and "%z" in text and "%Z" in text
    return "%" in text


FORMAT = Check(
    f"one of {', '.join(TIME_FORMATS)}, or a strptime pattern such as %d.%m.%Y %H:%M",
    lambda value: isinstance(value, str) and (value in TIME_FORMATS or _is_pattern(value)),
)


def _is_zone(name: object) -> bool:
    try:
        return isinstance(name, str) and ZoneInfo(name) is not None
    except (LookupError, ValueError, OSError):  # unknown; a path; a folder of zones
        return False


TIMEZONE = Check("the IANA name of a time zone, such as Europe/Berlin", _is_zone)
CYCLICAL = Check(
    "a list with any of " + ", ".join(CYCLES),
    lambda value: (
        isinstance(value, list)
        and all(isinstance(c, str) and c in CYCLES for c in value)
        and len(set(value)) == len(value)
    ),
    lambda value: tuple(cycle for cycle in CYCLES if cycle in value),
)


@dataclass(frozen=True)
class Timestamp(Field):
    """A time, of which the model sees its place in the day and in the week.

    A time t in a cycle of period T becomes two numbers, sin(2 pi t / T) and cos(2 pi t / T), so that 23:59 lies as
    close to 00:00 as 12:00 does to 12:01 (Mardia and Jupp, "Directional Statistics", 2000). It works badly where life
    keeps another time than the `timezone` (shops that close at six, over a change of the clocks), and says nothing of
    months or holidays. A cycle that the fit rows did not span about twice is left out: a weekday learned from three
    days would make an anomaly of every other weekday.

    format       "auto", "iso8601", "epoch_s|ms|us|ns", one of worker.features.time_forms.NAMED, or a strptime pattern
                 with a percent sign; UTC where the value names no zone
    timezone     IANA name of the zone by whose clocks day and week are told (default: UTC); times stay what they are
    cyclical     which cycles the model sees; none of them = the field gives the event time only
    missing      strings that stand for no value; None = those of worker.features.values.MISSING
    event_time   this field is the record's event time (default: the schema's first timestamp)

    >>> time = Timestamp("at", cyclical=("hour",))
    >>> column, _ = time.read(["2026-03-01T06:00:00Z", "2026-03-01T12:00:00Z"])
    >>> [wave.round(2).tolist() for wave in time.numbers(column)]
    [[1.0, 0.0], [0.0, -1.0]]
    """

    kind, expected = "timestamp", "a time"
    has_categories = False
    is_time = True
    cell = "number"
    usual_gaps = MISSING

    format: str = option("auto", FORMAT)
    timezone: str | None = option(None, TIMEZONE)
    cyclical: tuple[str, ...] = option(tuple(CYCLES), CYCLICAL)
    event_time: bool = option(False, FLAG)
    missing: tuple[str, ...] | None = option(None, TEXTS)

    @classmethod
    @override
    def infer(cls, sample: Sample) -> Evidence | None:
        sample = sample.present
        if sample.types == {str}:
            dashed = all(value[4:5] == "-" for value in sample.values)  # 20180401 may be any number
            if dashed and not cls("", format="iso8601").read(sample.values)[1]:
                return Evidence(Strength.FORM, "ISO 8601 times")
            proposed = find_format(sample.values)
            if proposed is not None:
                time_format, doubt = proposed
                return Evidence(Strength.FORM, f"times as {time_format}", {"format": time_format}, doubt)
        reading = sample.reading
        unit = None if reading is None or reading.form != PLAIN or reading.gaps else epoch_unit(reading.numbers)
        if unit is None:
            return None
        why = f"epoch times in {unit.removeprefix('epoch_')}, between 2000 and 2100"
        return Evidence(Strength.FORM, why, {"format": unit} if str in sample.types else {})

    @override
    def refused(self, types: Set[type]) -> Set[type]:
        return types - ({str} if self.format == "iso8601" else {int, float, str})

    @override
    def cell_sort(self) -> str:
        return self.cell if self.format == "auto" or self.format in PER_SECOND else "text"

    @override
    def parse(self, column: Column) -> tuple[TimeArray, Failures]:
        values, missing = column.values, column.missing
        result = np.zeros(len(values), np.int64)
        there = np.arange(len(values)) if missing is None else np.flatnonzero(~missing)
        present = values if missing is None else [value for value in values if value is not None]
        if self.format in ("auto", "iso8601") or self.format in PER_SECOND:
            times, broken = _parse(present, column.types, self.format)
        else:
            times, broken = _parse_texts(present, self.format)
        result[there] = times
        failures = Failures()
        for index in there[broken].tolist():
            form = "an ISO 8601 time or an epoch" if self.format == "auto" else self.format
            detail = f"expected {form}, got {self.type_name(values[index])}"
            failures[index] = self.failure(ErrorCode.BAD_TIMESTAMP, detail)
        return result, failures

    @override
    def moments(self, column: Column, near: Callable[[], TimeArray]) -> TimeArray:
        return column.numbers if names_year(self.format) else with_year(column.numbers, near())

    @override
    def part_names(self) -> tuple[str, ...]:
        cycles = [cycle for cycle in self.cyclical if cycle != "weekday" or names_year(self.format)]
        return tuple(f"{cycle}_{wave}" for cycle in cycles for wave in ("sin", "cos"))

    @override
    def numbers(self, column: Column) -> list[FloatArray]:
        times, waves = column.numbers, []
        if self.timezone is not None:
            times = times + offsets_ms(times, self.timezone)
        for cycle in dict.fromkeys(part.partition("_")[0] for part in self.part_names()):
            start, period = _MONDAY_MS if cycle == "weekday" else 0, CYCLES[cycle]
            angle = (times - start) % period * (math.tau / period)
            waves += [np.sin(angle), np.cos(angle)]
        return waves

    @override
    def fit_numbers(self, column: Column, preprocessing: str) -> list[NumericColumn]:
        """Nothing but the cycles that the rows span; an outlier must not stretch the span, so the middle 98% count."""
        (times,) = column.present([column.numbers])
        span = float(np.subtract(*np.quantile(times, [0.99, 0.01]))) if len(times) else 0.0
        spanned = [part for part in self.part_names() if span >= MIN_CYCLES * CYCLES[part.partition("_")[0]]]
        # A sine and its cosine together vary by at most 1, as one numeric field does; so do all cycles of one field.
        scaling = Scaling(CYCLE, 0.0, float(np.sqrt(len(spanned) / 2)))
        if preprocessing == "minmax":
            scaling = Scaling(CYCLE, -1.0, 2.0)
        return [NumericColumn(self.name, part, *scaling[:3], knee=scaling.knee) for part in spanned]

    @override
    def conceal(self, column: Column, columns: Sequence[NumericColumn], token: Callable[[Any], str]) -> Sequence[Any]:
        """One and the same moment for all: a redacted time is not learned from."""
        if self.format in PER_SECOND:
            moment: Any = 0
        elif self.format in ("auto", "iso8601"):
            moment = _EPOCH.isoformat()
        else:
            moment = _EPOCH.strftime(patterns_of(self.format)[0])
        return [None if value is None else moment for value in column.values]

    @override
    def read_back(self, columns: Sequence[NumericColumn], z: Sequence[float]) -> str:
        """Such as "Tue 14:30"; the part of a cycle that was left out is not there."""
        waves = {column.part: column.scaling.invert(value) for column, value in zip(columns, z, strict=True)}
        turn = {  # the part of a full circle, in [0, 1)
            cycle: math.atan2(waves[f"{cycle}_sin"], waves[f"{cycle}_cos"]) / math.tau % 1.0
            for cycle in CYCLES
            if f"{cycle}_sin" in waves
        }
        words = [_WEEKDAYS[int(turn["weekday"] * 7) % 7]] if "weekday" in turn else []
        if "hour" in turn:
            minutes = round(turn["hour"] * 1440) % 1440
            words.append(f"{minutes // 60:02d}:{minutes % 60:02d}")
        return " ".join(words)

    @override
    def describe(self, stats: FieldStats, vocabulary: CategoryColumn | None) -> str:
        return "its cycles through day and week"


def offsets_ms(times: FloatArray | TimeArray, zone: str) -> TimeArray:
    """What the clocks of a zone are ahead of UTC, at times (B,): int64 (B,), milliseconds.

    >>> offsets_ms(np.array([1_774_745_999_999, 1_774_746_000_000]), "Europe/Berlin").tolist()  # in March 2026
    [3600000, 7200000]
    """
    quarters = np.floor_divide(times, _QUARTER_MS).astype(np.int64)
    distinct, place = np.unique(quarters, return_inverse=True)  # few in a batch: the zone is asked once for each
    offsets = [_offset_ms(zone, quarter) for quarter in distinct.tolist()]
    return np.array(offsets, np.int64)[place]


@lru_cache(maxsize=1 << 16)
def _offset_ms(zone: str, quarter: int) -> int:
    moment = _EPOCH + timedelta(minutes=15 * min(max(quarter, _FIRST_QUARTER), _LAST_QUARTER))
    offset = moment.astimezone(ZoneInfo(zone)).utcoffset()
    return 0 if offset is None else offset // timedelta(milliseconds=1)


def _parse(values: Sequence[Any], types: Set[type], time_format: str) -> tuple[TimeArray, BoolArray]:
    """int64 (B,) milliseconds of ISO texts and epochs without gaps, and which of them are no times."""
    times = parse_column(values, types, time_format)
    broken = np.zeros(len(values), bool)
    if times is not None:
        return times, broken
    times = np.zeros(len(values), np.int64)
    for index, value in enumerate(values):
        try:
            times[index] = parse_time(value, time_format)
        except (ValueError, OverflowError):
            broken[index] = True
    return times, broken


def _parse_texts(values: Sequence[Any], time_format: str) -> tuple[TimeArray, BoolArray]:
    """The same of texts in a named format or of a pattern; a number stands for its digits."""
    texts = [value if type(value) is str else str(value) for value in values]
    is_known = all(map(knows, patterns_of(time_format)))
    if is_known:
        times, fits = read_times(texts, time_format)
    else:
        times, fits = np.zeros(len(texts), np.int64), np.zeros(len(texts), bool)
    if time_format in NAMED:
        return times, ~fits
    for index in np.flatnonzero(~fits).tolist():  # a pattern that only strptime knows, or that it takes more freely
        try:
            moment = datetime.strptime(texts[index][:MAX_TIME], time_format)
            times[index] = _milliseconds(moment)
            fits[index] = True
        except (ValueError, OverflowError):
            continue
    return times, ~fits


def _milliseconds(moment: datetime) -> int:
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    milliseconds = (aware - _EPOCH) // timedelta(milliseconds=1)
    if not MIN_TIME_MS <= milliseconds <= MAX_TIME_MS:
        raise ValueError("outside the years 1 to 9999, UTC")
    return milliseconds


def parse_time(value: Any, time_format: str) -> int:
    """Milliseconds of one ISO text or epoch, which may stand in a string; ValueError or OverflowError for what is no
    time.
    """
    if isinstance(value, str):
        number = _epoch_in(value) if time_format != "iso8601" else None
        if number is None:
            if time_format in PER_SECOND:
                raise ValueError("no number")
            return _milliseconds(datetime.fromisoformat(value.strip()))
        value = number
    per_second = _guess_unit(value) if time_format == "auto" else PER_SECOND[time_format]
    exact = type(value) is int
    milliseconds: int = value * 1000 // per_second if exact else round(value / per_second * 1000)
    if not MIN_TIME_MS <= milliseconds <= MAX_TIME_MS:
        raise ValueError("outside the years 1 to 9999, UTC")
    return milliseconds


def _epoch_in(text: str) -> float | None:
    """The number in a string; None where there is none, or so short a one that ISO 8601 has a date for it: 20260301."""
    match = _EPOCH_TEXT.fullmatch(text.strip()) if len(text) <= MAX_TIME else None
    if match is None:
        return None
    return float(match[0]) if match[1] else int(match[0])


def _guess_unit(value: float) -> int:
    # Seconds until the year 5138, milliseconds from 1973 on, and so forth: the magnitudes don't overlap in practice.
    limits = {"epoch_s": 1e11, "epoch_ms": 1e14, "epoch_us": 1e17}
    return next((PER_SECOND[name] for name, limit in limits.items() if abs(value) < limit), 1_000_000_000)


def parse_column(values: Sequence[Any], types: Set[type], time_format: str) -> TimeArray | None:
    """int64 (B,) milliseconds of a column without gaps, or None where `parse_time` must go through it value by value.

    types   the types that occur in it
    """
    if types == {str}:
        times = parse_same_shape(values) if time_format in ("auto", "iso8601") else None
        if times is not None or time_format == "iso8601" or not all(map(_EPOCH_TEXT.fullmatch, values)):
            return times
        values = list(map(int, values)) if "." not in "".join(values) else [float("nan")]
        types = set(map(type, values))
    if types != {int}:
        return None
    try:
        ticks = np.fromiter(values, np.int64, len(values))
    except OverflowError:
        return None
    low, high, guess = int(ticks.min()), int(ticks.max()), time_format == "auto"
    unit = _guess_unit(high) if guess else PER_SECOND[time_format]
    if guess and (low < 0 or _guess_unit(low) != unit):
        return None
    if low * 1000 // unit < MIN_TIME_MS or high * 1000 // unit > MAX_TIME_MS:
        return None
    return ticks * (1000 // unit) if unit <= 1000 else ticks // (unit // 1000)


def parse_same_shape(texts: Sequence[str]) -> TimeArray | None:
    """int64 (B,) milliseconds of ISO texts that all look like 2018-04-01T00:00:31, .123 or .123456, all or none with Z.

    None = at least one does not, or names a day or hour that doesn't exist; the general parser decides then.
    At least ten times as fast as `parse_time` for each.
    """
    length, zulu = len(texts[0]), texts[0].endswith("Z")
    body = length - zulu
    if body not in (19, 23, 26) or set(map(len, texts)) != {length}:
        return None
    # NumPy's parser knows more forms than one, with other meanings: it only sees what has the shape, digit for digit.
    joined = "".join(texts).encode("utf-8", "surrogatepass")
    if joined.translate(_DIGITS_AS_ZEROS) != (_SHAPE[:body] + b"Z" * zulu) * len(texts):
        return None
    try:
        moments = np.frombuffer(joined, f"S{length}").astype(f"S{min(body, 23)}").astype("datetime64[ms]")
    except ValueError:
        return None
    milliseconds: TimeArray = moments.astype(np.int64)
    return milliseconds if milliseconds.min() >= MIN_TIME_MS else None
