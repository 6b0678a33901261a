"""Times in strings: the format that is proposed for them, and what is read with it."""

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.features.common import STEADY, decoded
from worker.errors import ErrorCode
from worker.features.kinds import Numeric, Timestamp
from worker.features.kinds.evidence import Evidence, Sample
from worker.features.schema import Schema, parse_schema
from worker.features.time_forms import NAMED, ZONES, read_times, with_year
from worker.features.time_search import epoch_unit
from worker.features.vectorize import Vectorizer, conceal, fit_vectorizer
from worker.formats.base import Decoded
from worker.records import NO_TIME, Message
from worker.redaction import Redaction

START = datetime(2026, 3, 1, 10, 0, 7, 250_000, UTC)
MOMENTS = [START + timedelta(minutes=37 * n) for n in range(60)]
DRAW = Random(0)


def evidence_for(values: list[Any]) -> Evidence | None:
    return Timestamp.infer(Sample(values, set(map(type, values)), len(set(values))))


def milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def tick(moment: datetime, unit: int) -> int:
    return milliseconds(moment) * unit // 1000


@pytest.mark.parametrize(
    ("time_format", "written", "resolution"),
    [
        ("common_log", "[%d/%b/%Y:%H:%M:%S +0000]", 1000),
        ("common_log", "%d/%b/%Y:%H:%M:%S +0000", 1000),
        ("rfc2822", "%a, %d %b %Y %H:%M:%S GMT", 1000),
        ("rfc2822", "%a, %d %b %Y %H:%M:%S +0000", 1000),
        ("rfc2822", "%d %b %Y %H:%M:%S +0000", 1000),
        ("%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M:%S", 1000),
        ("%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M:%S.%f", 1),
        ("%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M", 60_000),
        ("%d-%b-%Y %H:%M:%S", "%d-%b-%Y %H:%M:%S,%f", 1),
        ("%d %b %Y %H:%M:%S", "%d %b %Y %H:%M:%S.%f", 1),
        ("%b %d, %Y %I:%M:%S %p", "%b %d, %Y %I:%M:%S %p", 1000),
        ("%a %b %d %H:%M:%S %Y", "%a %b %d %H:%M:%S %Y", 1000),
        ("%a %b %d %H:%M:%S %z %Y", "%a %b %d %H:%M:%S UTC %Y", 1000),
        ("[%a %b %d %H:%M:%S %Y]", "[%a %b %d %H:%M:%S.%f %Y]", 1),
        ("%Y-%m-%d %H:%M:%S %z", "%Y-%m-%d %H:%M:%S UTC", 1000),
        ("%Y-%m-%d %H:%M:%S %z", "%Y-%m-%d %H:%M:%S,%f GMT", 1),
        ("%Y-%m-%d %H:%M:%S %z %Z", "%Y-%m-%d %H:%M:%S.%f +0000 UTC", 1),
        ("%Y-%m-%d-%H.%M.%S.%f", "%Y-%m-%d-%H.%M.%S.%f", 1),
        ("%Y%m%d", "%Y%m%d", 86_400_000),
        ("%Y%m%d%H%M%S", "%Y%m%d%H%M%S", 1000),
        ("%Y%m%dT%H%M%S%z", "%Y%m%dT%H%M%SZ", 1000),
        ("%y%m%d %H%M%S", "%y%m%d %H%M%S", 1000),
        ("%y/%m/%d %H:%M:%S", "%y/%m/%d %H:%M:%S", 1000),
        (None, "%Y-%m-%d %H:%M:%S,%f", 1),  # ISO 8601 and what Python's logging makes of it need no format
        (None, "%Y-%m-%dT%H:%M:%S.%fZ", 1),
        (None, "%Y-%m-%d %H:%M:%S+00:00", 1000),
    ],
)
def test_the_format_that_reads_all_times_is_proposed_and_reads_them(
    time_format: str | None, written: str, resolution: int
) -> None:
    texts = [moment.strftime(written) for moment in MOMENTS]

    evidence = evidence_for(["-", *texts])
    assert evidence is not None
    column, failures = Timestamp("x", **evidence.options).read([*texts, "N/A"])

    assert (evidence.options, evidence.doubt) == ({} if time_format is None else {"format": time_format}, "")
    assert not failures
    assert column.numbers.tolist() == [milliseconds(moment) // resolution * resolution for moment in MOMENTS] + [0]


@pytest.mark.parametrize("unit", ["epoch_s", "epoch_ms", "epoch_us", "epoch_ns"])
def test_epochs_in_strings_are_proposed_by_their_unit_and_read(unit: str) -> None:
    per_second = {"epoch_s": 1, "epoch_ms": 10**3, "epoch_us": 10**6, "epoch_ns": 10**9}[unit]
    ticks = [tick(moment, per_second) for moment in MOMENTS]
    texts = list(map(str, ticks))

    evidence = evidence_for(texts)

    assert evidence is not None
    assert evidence.options == {"format": unit}
    for time_format in (unit, "auto"):
        as_texts, as_numbers = (Timestamp("x", format=time_format).read(values)[0] for values in (texts, ticks))
        spaced, failures = Timestamp("x", format=time_format).read([f" {text}" for text in texts])
        assert as_texts.numbers.tolist() == as_numbers.numbers.tolist() == spaced.numbers.tolist()
        assert not failures


@pytest.mark.parametrize(
    "values",
    [
        ["10.0.0.1", "10.0.0.2"],
        ["12:30:00", "13:10:00"],
        ["1.2.3", "1.2.4"],
        ["12345678", "20260301"],
        ["32/01/2026", "01/01/2026"],
        ["2026-03", "2026-04"],
        ["Mar 2026", "Apr 2026"],
        ["01/Mar/2026:10:00:00 +0000", "yesterday"],
        ["20261301", "20260132"],
        ["1/2", "3/4"],
        ["Sun", "Mon"],
        ["100000", "100001"],
        ["555-12-3456", "555-12-3457"],
    ],
)
def test_what_only_resembles_a_time_is_none(values: list[str]) -> None:
    assert evidence_for(values * 20) is None


@pytest.mark.parametrize(
    ("texts", "time_format", "is_doubtful"),
    [
        (["01/02/2026", "01/02/2026"], "%d/%m/%Y", True),  # nothing says it
        (["13/02/2026", "01/02/2026"], "%d/%m/%Y", False),
        (["02/13/2026", "02/14/2026"], "%m/%d/%Y", False),
        ([f"03/{day:02d}/2026 10:00" for day in range(1, 11)], "%m/%d/%Y %H:%M", False),  # ten days, not ten months
        ([f"{day:02d}-03-2026" for day in range(1, 11)], "%d-%m-%Y", False),
        (["01/02/03 10:00:00", "01/02/04 10:00:00"], "%y/%m/%d %H:%M:%S", True),
    ],
)
def test_a_day_that_could_be_a_month_is_a_doubt_unless_the_order_of_the_records_tells(
    texts: list[str], time_format: str, is_doubtful: bool
) -> None:
    evidence = evidence_for(texts)

    assert evidence is not None
    assert evidence.options == {"format": time_format}
    assert ("could be" in evidence.doubt) == is_doubtful


NUMBERS = {
    "counters of two billion bytes": [DRAW.randrange(2 * 10**9, 3 * 10**9) for _ in range(200)],
    "counters below them": [DRAW.randrange(10**9, 2 * 10**9) for _ in range(200)],
    "counters in strings": [str(DRAW.randrange(2 * 10**9, 3 * 10**9)) for _ in range(200)],
    "terabytes": [DRAW.randrange(10**12, 2 * 10**12) for _ in range(200)],
    "a level that drifts": [2 * 10**9 + int(4e7 * np.sin(n / 30)) for n in range(800)],
    "fractions": [DRAW.uniform(1e9, 2e9) for _ in range(200)],
}


@pytest.mark.parametrize("values", NUMBERS.values(), ids=NUMBERS)
def test_unordered_numbers_of_the_magnitude_of_epochs_are_numbers(values: list[Any]) -> None:
    sample = Sample(values, set(map(type, values)), len(set(values)))

    assert Timestamp.infer(sample) is None
    assert Numeric.infer(sample) is not None


@pytest.mark.parametrize(
    "values",
    [
        [1_772_323_200 + 7 * n for n in range(200)],
        [1_772_323_200 + 86_400 * n + DRAW.randrange(40_000) for n in range(200)],  # ordered, mostly
        [1_772_323_200 - 86_400 * n for n in range(200)],  # the newest first
        [1_772_323_200 + DRAW.randrange(3_600) for n in range(200)],  # an hour in no order
        [1_772_323_200.5 + 1000 * (n + DRAW.randrange(20)) for n in range(2000)],  # each near to the one before
        [1_772_323_200_000],
    ],
)
def test_numbers_of_that_magnitude_in_order_or_near_to_each_other_are_times(values: list[Any]) -> None:
    assert epoch_unit(np.array(values)) is not None


PATTERNS = [
    "%d/%b/%Y:%H:%M:%S %z",
    "%a, %d %b %y %H:%M:%S",
    "%Y%m%d%H%M%S",
    "%B %d, %Y %I:%M %p",
    "%d.%m.%Y %H:%M:%S.%f",
]


@pytest.mark.parametrize("pattern", PATTERNS)
@STEADY
@given(moments=st.lists(st.datetimes(datetime(1970, 1, 1), datetime(2068, 1, 1), timezones=st.just(UTC)), max_size=5))
def test_a_column_is_read_as_strptime_reads_each_text(pattern: str, moments: list[datetime]) -> None:
    texts = [moment.strftime(pattern) for moment in moments]
    expected = [datetime.strptime(text, pattern) for text in texts]

    times, fits = read_times(texts, pattern)

    assert fits.all()
    assert times.tolist() == [
        (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
        for moment in expected
    ]


@STEADY
@given(
    st.sampled_from([*NAMED, *PATTERNS]),
    st.lists(
        st.text("0123456789MarSunGT:/,. +-[]", max_size=30)
        | st.sampled_from([MOMENTS[0].strftime(pattern) for named in NAMED.values() for pattern in named])
        | st.sampled_from(["31/Feb/2026:10:00:00 +0000", "a\nb", "\ud800", "0" * 70, "1/Mar/2026:1:2:3 +0000"]),
        max_size=6,
    ),
)
def test_a_text_is_read_whatever_its_neighbours_are(time_format: str, texts: list[str]) -> None:
    together = [values.tolist() for values in read_times(texts, time_format)]
    alone = [[values[0].item() for values in read_times([text], time_format)] for text in texts]

    assert list(map(list, zip(*together, strict=True))) == alone


@pytest.mark.parametrize(
    ("zone", "hours"),
    [
        ("+0200", 8),
        ("+02:00", 8),
        ("+02", 8),
        ("Z", 10),
        ("UTC", 10),
        ("CET", 9),
        ("est", 15),
        ("-0330", 13.5),
        ("JST", 1),
    ],
)
def test_a_zone_is_an_offset_or_a_word(zone: str, hours: float) -> None:
    times, fits = read_times([f"01/Mar/2026:10:00:00 {zone}"], "common_log")

    assert fits.all()
    assert times[0] == milliseconds(datetime(2026, 3, 1, tzinfo=UTC)) + round(hours * 3_600_000)


def test_every_zone_lies_within_fourteen_hours() -> None:
    assert all(-720 <= minutes <= 840 for minutes in ZONES.values())


@pytest.mark.parametrize(
    "text", ["01/Mar/2026:10:00:00 XYZ", "01/Mär/2026:10:00:00 +0000", "32/Mar/2026:10:00:00 +0000"]
)
def test_what_no_named_format_reads_costs_its_own_record(text: str) -> None:
    column, failures = Timestamp("x", format="common_log").read(["01/Mar/2026:10:00:00 +0000", text])

    assert [error.error_code for error in failures.values()] == [ErrorCode.BAD_TIMESTAMP]
    assert text not in str(failures[1])
    assert column.numbers[0] == 1772359200000


def test_digits_of_a_pattern_may_be_a_number() -> None:
    column, failures = Timestamp("x", format="%Y%m%d").read([20260301, "20260301"])

    assert not failures
    assert column.numbers.tolist() == [1772323200000] * 2


SYSLOG = [f"{START + timedelta(hours=n):%b} {(START + timedelta(hours=n)).day:2d} 04:05:06" for n in range(50)]


def test_syslog_has_an_hour_and_no_weekday_for_it_names_no_year() -> None:
    evidence = evidence_for(SYSLOG)

    assert evidence is not None
    assert evidence.options == {"format": "syslog"}
    assert Timestamp("x", format="syslog").part_names() == ("hour_sin", "hour_cos")


@pytest.mark.parametrize(
    ("text", "near", "expected"),
    [
        ("Mar  3 04:05:06", datetime(2026, 3, 3, 4, 6), datetime(2026, 3, 3, 4, 5, 6)),
        ("Dec 31 23:59:59", datetime(2027, 1, 1, 0, 0, 5), datetime(2026, 12, 31, 23, 59, 59)),
        ("Jan  1 00:00:01", datetime(2026, 12, 31, 23, 59), datetime(2027, 1, 1, 0, 0, 1)),
        ("Feb 29 12:00:00", datetime(2028, 3, 1), datetime(2028, 2, 29, 12)),
        ("Jun 15 00:00:00", None, datetime(1972, 6, 15)),
    ],
)
def test_a_time_without_a_year_lies_near_to_the_brokers_time(
    text: str, near: datetime | None, expected: datetime
) -> None:
    schema = Schema((Timestamp("x", format="syslog"), Numeric("y")))
    fitted = fit_vectorizer(schema, [{"x": text, "y": n} for n in range(9)])
    stamp = NO_TIME if near is None else milliseconds(near.replace(tzinfo=UTC))

    batch = Decoded([Message("in", 0, 0, stamp, None, b"")], [{"x": text, "y": 1}], [], 0)

    assert Vectorizer(fitted).transform(batch).event_time_ms.tolist() == [milliseconds(expected.replace(tzinfo=UTC))]
    assert with_year(np.array([0]), np.array([NO_TIME])).tolist() == [0]


@pytest.mark.parametrize("time_format", ["common_log", "rfc2822", "syslog", "epoch_s", "auto", "%d.%m.%Y %H:%M"])
def test_a_redacted_time_is_kept_as_one_moment_that_can_be_read(time_format: str) -> None:
    written = {"auto": "%Y-%m-%dT%H:%M:%S", "epoch_s": "%s"}.get(time_format, NAMED.get(time_format, (time_format,))[0])
    rows = [{"x": moment.strftime(written), "y": 1} for moment in MOMENTS] + [{"x": "-", "y": 1}]
    schema, hidden = Schema((Timestamp("x", format=time_format), Numeric("y"))), Redaction(["x"])
    fitted = fit_vectorizer(schema, rows, redaction=hidden)

    kept = conceal(fitted, hidden, rows)

    assert len({row["x"] for row in kept if row is not None and row["x"] is not None}) == 1
    assert not Vectorizer(fitted, hidden).transform(decoded([row or {} for row in kept])).rejects


@pytest.mark.parametrize("name", ["common_log", "rfc2822", "syslog", "%d.%m.%Y %H:%M %Z"])
def test_a_schema_names_a_format(name: str) -> None:
    (field,) = parse_schema(f"[fields.x]\nkind = 'timestamp'\nformat = '{name}'").fields

    assert isinstance(field, Timestamp)
    assert (field.format, field.cell_sort()) == (name, "text")


def test_a_schema_without_these_options_keeps_its_fingerprint() -> None:
    (field,) = parse_schema("[fields.x]\nkind = 'timestamp'").fields

    assert field.options().keys() == {"required", "redact", "format", "cyclical", "event_time"}
