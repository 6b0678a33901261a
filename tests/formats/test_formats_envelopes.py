"""What producers wrap around fields is undone where it stands."""

import copy
from base64 import b64encode
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.formats.base import Row
from worker.formats.envelopes import ENVELOPES, OpeningDecoder, undecoded_decimals
from worker.formats.envelopes.connect import decimal_reader
from worker.formats.json_objects import JsonDecoder
from worker.records import Message

DECIMAL = "org.apache.kafka.connect.data.Decimal"


def decoder(*names: str) -> OpeningDecoder:
    return OpeningDecoder(JsonDecoder(1 << 20), [ENVELOPES[name] for name in names or ENVELOPES], by_bytes=True)


def opened(*rows: Row) -> list[Row]:
    values = [orjson.dumps(row) for row in rows]
    together = decoder().parse_batch(values, max(map(len, values)))
    assert together == [decoder().parse(value) for value in values]  # neighbours don't matter
    return together or []


def base64_of(unscaled: int, size: int) -> str:
    return b64encode(unscaled.to_bytes(size, "big", signed=True)).decode()


def field(name: str, kind: str, meaning: str | None = None, **more: Any) -> dict[str, Any]:
    return {"field": name, "type": kind, "optional": True, **({"name": meaning} if meaning else {}), **more}


def change(op: str, before: Row | None, after: Row | None) -> Row:
    columns = [
        field("price", "bytes", DECIMAL, parameters={"scale": "2", "connect.decimal.precision": "10"}),
        field("free", "struct", "io.debezium.data.VariableScaleDecimal"),
        field("day", "int32", "io.debezium.time.Date"),
        field("at", "int64", "io.debezium.time.MicroTimestamp"),
        field("nano", "int64", "io.debezium.time.NanoTimestamp"),
        field("ms", "int64", "io.debezium.time.Timestamp"),
        field("tags", "array", items={"type": "bytes", "name": DECIMAL, "parameters": {"scale": "0"}}),
        field("rates", "map", values={"type": "bytes", "name": DECIMAL, "parameters": {"scale": "1"}}),
        field("shop", "string"),
    ]
    schema = {"type": "struct", "fields": [field(side, "struct", fields=columns) for side in ("before", "after")]}
    return {"schema": schema, "payload": {"op": op, "before": before, "after": after, "ts_ms": 1_772_323_200_000}}


COLUMNS = {
    "price": base64_of(-1931, 2),
    "free": {"scale": 3, "value": base64_of(1500, 2)},
    "day": 20_513,
    "at": 1_772_323_200_123_456,
    "nano": 1_772_323_200_123_456_789,
    "ms": 1_772_323_200_000,
    "tags": [base64_of(7, 1)],
    "rates": {"a": base64_of(15, 1)},
    "shop": "B4s=",
}
PLAIN = {
    "price": -19.31,
    "free": 1.5,
    "day": "2026-03-01",
    "at": "2026-03-01T00:00:00.123456Z",
    "nano": "2026-03-01T00:00:00.123456Z",
    "ms": 1_772_323_200_000,
    "tags": [7],
    "rates": {"a": 1.5},
    "shop": "B4s=",
}


def test_debeziums_decimals_and_times_are_read_by_the_schema_in_the_record() -> None:
    (row,) = opened(change("c", None, COLUMNS))

    assert row == {"payload": {"op": "c", "before": None, "after": PLAIN, "ts_ms": 1_772_323_200_000}}


def test_a_deleted_row_stands_in_after_too_with_and_without_the_schema() -> None:
    wrapped, bare = opened(change("d", COLUMNS, None), {"op": "d", "before": {"a": 1}, "after": None, "label": 0})

    assert wrapped["payload"]["after"] == wrapped["payload"]["before"] == PLAIN
    assert bare == {"op": "d", "before": {"a": 1}, "after": {"a": 1}, "label": 0}


def test_a_document_of_mongodb_in_a_change_event_is_an_object() -> None:
    (row,) = opened({"op": "c", "after": '{"_id": {"$oid": "65f"}, "total": {"$numberDecimal": "12.5"}}', "source": {}})

    assert row["after"] == {"_id": "65f", "total": 12.5}


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ({"$numberInt": "5"}, 5),
        ({"$numberLong": "9007199254740993"}, 9_007_199_254_740_993),
        ({"$numberDouble": "2.5"}, 2.5),
        ({"$numberDouble": "NaN"}, None),
        ({"$numberDecimal": "12.50"}, 12.5),
        ({"$numberDecimal": "1E+400"}, None),
        ({"$oid": "65f1"}, "65f1"),
        ({"$date": "2026-03-01T00:00:00Z"}, "2026-03-01T00:00:00Z"),
        ({"$date": {"$numberLong": "1772323200000"}}, "2026-03-01T00:00:00Z"),
        ({"$date": 1_772_323_200_000}, "2026-03-01T00:00:00Z"),
        ({"$timestamp": {"t": 1_772_323_200, "i": 1}}, "2026-03-01T00:00:00Z"),
        ({"$binary": {"base64": "AQ==", "subType": "00"}}, "AQ=="),
        ({"$undefined": True}, None),
        ([{"$numberInt": "5"}, {"a": {"$oid": "x"}}], [5, {"a": "x"}]),
        ({"$numberLong": "x"}, "x"),
        ({"$numberDecimal": ["deep"]}, ["deep"]),
        ({"$set": 1}, {"$set": 1}),
        ("costs $5", "costs $5"),
    ],
)
def test_mongodbs_extended_json_is_plain(value: Any, plain: Any) -> None:
    assert opened({"a": 1, "value": value}) == [{"a": 1, "value": plain}]


@pytest.mark.parametrize(
    ("row", "plain"),
    [
        (
            {"attributes": [{"key": "a.ms", "value": {"intValue": "7"}}, {"key": "ok", "value": {"boolValue": True}}]},
            {"attributes": {"a.ms": 7, "ok": True}},
        ),
        ({"body": {"stringValue": "done"}}, {"body": "done"}),
        (
            {"spans": [{"attributes": [{"key": "a", "value": {"doubleValue": 1.5}}, {"key": "b"}], "name": "x"}]},
            {"spans": [{"attributes": {"a": 1.5, "b": None}, "name": "x"}]},
        ),
        ({"body": {"arrayValue": {"values": [{"intValue": 1}, {"stringValue": "b"}]}}}, {"body": [1, "b"]}),
        (
            {"body": {"kvlistValue": {"values": [{"key": "a", "value": {"stringValue": "b"}}]}}},
            {"body": {"a": "b"}},
        ),
        ({"body": {"doubleValue": "NaN"}}, {"body": None}),
        ({"orderValue": 5, "pairs": [{"key": "a"}, {"key": "b"}]},) * 2,
    ],
)  # fmt: skip
def test_opentelemetrys_typed_values_are_fields(row: Row, plain: Row) -> None:
    assert opened(row) == [plain]


def test_plain_records_stay_what_they_are() -> None:
    rows: list[Row] = [
        {"schema": "public", "payload": {"a": 1}},
        {"after": "{not json", "op": "c"},
        {"after": "noon", "before": None},
        {"op": "d", "after": None, "before": "x"},
        {"payload": "text", "schema": {"type": "struct"}},
        {"a": [{"b": None}]},
    ]

    assert opened(*copy.deepcopy(rows)) == rows


def test_a_broken_schema_beside_the_payload_costs_no_record() -> None:
    for schema in (
        {"type": "struct"},
        {"type": "struct", "fields": [{"field": "a", "name": DECIMAL, "parameters": {"scale": "x"}}, 5]},
        {"type": "struct", "fields": [{"field": "a", "name": DECIMAL, "parameters": {"scale": "99999999"}}]},
        {"type": "struct", "fields": [{"field": ["a"], "type": "array", "items": {"type": "array", "items": []}}]},
    ):
        assert opened({"schema": schema, "payload": {"a": "B4s="}}) == [{"payload": {"a": "B4s="}}]


def test_what_is_opened_is_written_and_read_again() -> None:
    row = decoder().parse(orjson.dumps(change("d", COLUMNS, None)))

    assert decoder().parse(decoder().encode(row)) == row


def test_one_envelope_alone_leaves_the_others() -> None:
    value = orjson.dumps({"a": {"$oid": "x"}, "body": {"stringValue": "y"}})

    assert decoder("otel").parse(value) == {"a": {"$oid": "x"}, "body": "y"}
    assert decoder("mongo").parse(value) == {"a": "x", "body": {"stringValue": "y"}}


def test_decimals_without_a_scale_are_named() -> None:
    rows = [
        {"after": {"amount": base64_of(number * 37, 2), "shop": "abcd", "note": f"text {number}="}, "n": number}
        for number in range(40)
    ]

    assert undecoded_decimals(rows) == ["after.amount"]
    assert undecoded_decimals(rows[:10]) == []


@pytest.mark.parametrize(("text", "number"), [("", ""), ("!", "!"), ("A" * 200, "A" * 200), (5, 5), ("AA==", 0)])
def test_what_is_no_decimal_stays(text: Any, number: Any) -> None:
    assert decimal_reader(2)(text) == number


KEYS = (
    *("$date", "$oid", "$numberDecimal", "$timestamp", "$binary", "key", "value", "intValue", "kvlistValue"),
    *("op", "after", "before", "payload", "schema", "type", "fields", "name", "values", "arrayValue"),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=5) | st.floats(allow_nan=False),
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS),
            below,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.dictionaries(st.sampled_from(["a", "after", "before", "op", "payload", "schema"]), VALUES, max_size=4))
def test_any_object_ends_in_a_row(row: Row) -> None:
    value = orjson.dumps(row, option=orjson.OPT_NON_STR_KEYS)
    result = decoder().decode([Message("in", 0, 0, 0, None, value)])

    assert len(result.rows) + len(result.rejects) == 1
    assert all(orjson.dumps(one) for one in result.rows)
