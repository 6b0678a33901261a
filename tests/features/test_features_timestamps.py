from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.features.common import STEADY, encode, one_field
from worker.errors import ErrorCode
from worker.features.kinds.timestamp import parse_column, parse_same_shape, parse_time

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MOMENTS = st.datetimes(timezones=st.just(UTC))


def milliseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)


@pytest.mark.parametrize("zone", ["", "Z"])
@pytest.mark.parametrize("precision", ["seconds", "milliseconds", "microseconds"])
@STEADY
@given(moments=st.lists(MOMENTS, min_size=1, max_size=10))
def test_the_fast_way_equals_the_standard_library(moments: list[datetime], precision: str, zone: str) -> None:
    texts = [moment.replace(tzinfo=None).isoformat(timespec=precision) + zone for moment in moments]

    fast = parse_same_shape(texts)

    assert fast is not None
    assert fast.tolist() == [milliseconds(datetime.fromisoformat(text).replace(tzinfo=UTC)) for text in texts]


@STEADY
@given(st.lists(st.text(max_size=30), min_size=1, max_size=5))
def test_the_fast_way_leaves_what_it_does_not_know(texts: list[str]) -> None:
    fast = parse_same_shape(texts)

    if fast is not None:
        assert fast.tolist() == [parse_time(text, "iso8601") for text in texts]


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-30T00:00:00",
        "2026-13-01T00:00:00",
        "0000-01-01T00:00:00",
        "2026-01-01T24:00:00",
        "2026-01-01T00:60:00",
        "2026-01-01 00:00:00",
        "2026-01-01T00:00:0x",
        "2026-01-01T00:00:0\u0663",
        "2026-01-01T00:00:00+01:00",
        "",
    ],
)
def test_the_fast_way_steps_aside(text: str) -> None:
    assert parse_same_shape([text]) is None


@pytest.mark.parametrize(
    ("time_format", "value", "expected"),
    [
        ("auto", "2018-04-01T00:00:31", 1522540831000),
        ("auto", "2018-04-01T02:00:31+02:00", 1522540831000),
        ("auto", "2018-04-01", 1522540800000),
        ("auto", 1522540831, 1522540831000),
        ("auto", 1522540831.25, 1522540831250),
        ("auto", 1522540831123, 1522540831123),
        ("auto", 1522540831123456, 1522540831123),
        ("auto", 1522540831123456789, 1522540831123),
        ("epoch_s", -1, -1000),
        ("epoch_s", 1522540831.123, 1522540831123),
        ("epoch_ms", 7, 7),
        ("epoch_us", -1, -1),
        ("epoch_ns", 1_999_999, 1),
        ("%d/%b/%Y:%H:%M:%S %z", "01/Apr/2018:02:00:31 +0200", 1522540831000),
        ("%Y%m%d", "20180401", 1522540800000),
    ],
)
def test_formats(time_format: str, value: object, expected: int) -> None:
    schema, fitted = one_field("timestamp", [None], format=time_format)

    alone = encode(schema, fitted, [value]).event_time_ms.tolist()
    in_company = encode(schema, fitted, [value, None, value]).event_time_ms.tolist()

    assert alone == [expected]
    assert in_company == [expected, 1001, expected]


@pytest.mark.parametrize(
    ("time_format", "value", "error_code"),
    [
        ("iso8601", 1522540831, ErrorCode.WRONG_TYPE),
        ("epoch_s", "2018-04-01", ErrorCode.WRONG_TYPE),
        ("epoch_s", 1e12, ErrorCode.BAD_TIMESTAMP),
        ("epoch_s", 10**12, ErrorCode.BAD_TIMESTAMP),
        ("epoch_ns", 10**22, ErrorCode.BAD_TIMESTAMP),
        ("auto", "", ErrorCode.BAD_TIMESTAMP),
        ("auto", "0001-01-01T00:00:00+01:00", ErrorCode.BAD_TIMESTAMP),
        ("auto", "now", ErrorCode.BAD_TIMESTAMP),
        ("%Y", "2018-04", ErrorCode.BAD_TIMESTAMP),
    ],
)
def test_what_is_no_time_is_rejected(time_format: str, value: object, error_code: ErrorCode) -> None:
    schema, fitted = one_field("timestamp", [None], format=time_format)

    assert [reject.error_code for reject in encode(schema, fitted, [value]).rejects] == [error_code]


@STEADY
@given(st.lists(st.integers(-(2**65), 2**65), min_size=1, max_size=5), st.sampled_from(["auto", "epoch_s", "epoch_ns"]))
def test_a_column_of_integers_equals_one_by_one(values: list[int], time_format: str) -> None:
    fast = parse_column(values, {int}, time_format)

    if fast is not None:
        assert fast.tolist() == [parse_time(value, time_format) for value in values]


def test_the_hour_and_the_weekday_come_back_from_their_waves() -> None:
    moment = datetime(2026, 3, 3, 15, 30, tzinfo=timezone(timedelta(hours=1)))  # a Tuesday, 14:30 UTC
    schema, fitted = one_field("timestamp", [(moment + timedelta(days=n)).isoformat() for n in range(15)])

    numeric = encode(schema, fitted, [moment.isoformat()]).numeric

    assert fitted.expected("x", numeric[0].tolist()) == "Tue 14:30"
    assert np.abs(numeric).max() <= 1


@pytest.mark.parametrize(
    ("days", "parts"),
    [
        (0.5, []),
        (3, ["hour_sin", "hour_cos"]),
        (14, ["hour_sin", "hour_cos", "weekday_sin", "weekday_cos"]),
    ],
)
def test_a_cycle_that_the_rows_did_not_cover_is_not_learned(days: float, parts: list[str]) -> None:
    start = datetime(2026, 3, 3, tzinfo=UTC)
    seen = [(start + timedelta(days=days * n / 200)).isoformat() for n in range(201)]
    schema, fitted = one_field("timestamp", [*seen, "1999-01-01T00:00:00Z"])  # one wrong clock

    vectors = encode(schema, fitted, [start.isoformat()])

    assert [column.part for column in fitted.numeric] == parts
    assert vectors.numeric.shape == (1, len(parts))
    assert vectors.event_time_ms.tolist() == [int(start.timestamp() * 1000)]
