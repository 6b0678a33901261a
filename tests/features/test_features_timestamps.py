import json
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.features.common import STEADY, decoded, encode, one_field
from worker.errors import ErrorCode, SchemaError
from worker.features.fitted import Fitted
from worker.features.kinds.timestamp import Timestamp, offsets_ms, parse_column, parse_same_shape, parse_time
from worker.features.schema import parse_schema
from worker.features.vectorize import Vectorizer, fit_vectorizer
from worker.records import FloatArray

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
        ("epoch_s", "2018-04-01", ErrorCode.BAD_TIMESTAMP),
        ("epoch_s", True, ErrorCode.WRONG_TYPE),
        ("epoch_s", 1e12, ErrorCode.BAD_TIMESTAMP),
        ("epoch_s", 10**12, ErrorCode.BAD_TIMESTAMP),
        ("epoch_ns", 10**22, ErrorCode.BAD_TIMESTAMP),
        ("auto", "?", ErrorCode.BAD_TIMESTAMP),
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


def local_waves(zone: str | None, texts: list[str]) -> FloatArray:
    """What the model sees, (B, 4): sine and cosine of the day's and the week's circle."""
    time = Timestamp("t", timezone=zone)
    column, failures = time.read(texts)
    assert not failures
    return np.stack(time.numbers(column), 1)


@pytest.mark.parametrize(
    ("zone", "before", "after"),  # the same local time on two days, before and after a change of the clocks
    [
        ("Europe/Berlin", "2026-03-22T07:30:00Z", "2026-03-29T06:30:00Z"),
        ("Europe/Berlin", "2026-10-18T22:15:00Z", "2026-10-25T23:15:00Z"),
        ("America/New_York", "2026-03-01T13:00:00Z", "2026-03-08T12:00:00Z"),
        ("America/New_York", "2026-10-25T03:59:59.999Z", "2026-11-08T04:59:59.999Z"),
        ("Australia/Lord_Howe", "2026-03-29T20:00:00Z", "2026-04-05T20:30:00Z"),
        ("Asia/Kathmandu", "2026-01-05T00:15:00Z", "2026-07-06T00:15:00Z"),
        ("Pacific/Apia", "2026-01-01T00:00:00+13:00", "2026-01-08T00:00:00+13:00"),
    ],
)
def test_a_zone_tells_the_hour_and_the_weekday_by_its_own_clocks(zone: str, before: str, after: str) -> None:
    local, utc = local_waves(zone, [before, after]), local_waves(None, [before, after])
    moment = datetime.fromisoformat(before).astimezone(ZoneInfo(zone))
    hour = moment.hour + moment.minute / 60 + moment.second / 3600 + moment.microsecond / 3.6e9

    assert np.allclose(local[0], local[1])
    assert np.allclose(local[0, :2], [np.sin(np.pi * hour / 12), np.cos(np.pi * hour / 12)])
    assert np.allclose(utc[0], utc[1]) == (zone in {"Asia/Kathmandu", "Pacific/Apia"})


def test_a_zone_changes_no_time_and_a_change_of_the_clocks_happens_at_its_minute() -> None:
    texts = ["2026-03-29T00:59:59.999Z", "2026-03-29T01:00:00Z", "2026-03-29T01:00:00", "2026-10-25T00:59:59.999Z"]
    zoned, _ = Timestamp("t", timezone="Europe/Berlin").read(texts)
    plain, _ = Timestamp("t").read(texts)

    assert zoned.numbers.tolist() == plain.numbers.tolist()
    assert (offsets_ms(zoned.numbers, "Europe/Berlin") / 3_600_000).tolist() == [1, 2, 2, 2]


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999Z", "1970-01-01T00:00:00Z"])
@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago", "UTC"])
def test_the_first_and_the_last_year_have_a_local_time(zone: str, text: str) -> None:
    assert np.isfinite(local_waves(zone, [text])).all()


@pytest.mark.parametrize("zone", ["Europe/Berlim", "../../etc/passwd", "/etc/localtime", "", "Europe", 2, True])
def test_a_zone_that_is_none_is_refused_by_name(zone: object) -> None:
    text = f"[fields.t]\nkind = 'timestamp'\ntimezone = {json.dumps(zone)}"

    with pytest.raises(SchemaError, match=r"field 't': timezone = .* must be the IANA name of a time zone"):
        parse_schema(text)


def test_a_zone_is_part_of_the_fingerprint_and_no_zone_is_not() -> None:
    zoned = parse_schema('[fields.t]\nkind = "timestamp"\ntimezone = "Europe/Berlin"')
    plain = parse_schema('[fields.t]\nkind = "timestamp"')

    assert zoned.fingerprint != plain.fingerprint
    assert parse_schema(zoned.to_toml()) == zoned
    assert plain.fields[0].options().keys() == {"required", "redact", "format", "cyclical", "event_time"}


def test_what_was_fitted_by_local_clocks_is_encoded_by_them() -> None:
    schema = parse_schema('[fields.t]\nkind = "timestamp"\ntimezone = "Europe/Berlin"')
    start = datetime(2026, 3, 1, 7, 30, tzinfo=UTC)
    rows = [{"t": (start + timedelta(hours=hour)).isoformat()} for hour in range(24 * 24)]
    fitted = Fitted.from_json(fit_vectorizer(schema, rows).to_json(), schema)
    messages = [{"t": "2026-03-27T07:30:00Z"}, {"t": "2026-03-30T06:30:00Z"}]  # 8:30 on two days, in winter and summer

    numeric = Vectorizer(fitted).transform(decoded(messages)).numeric

    assert np.allclose(numeric[0, :2], numeric[1, :2], atol=1e-5)
