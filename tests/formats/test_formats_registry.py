"""Avro, Protobuf and JSON Schema, written by their own libraries, read with the writer's schema."""

import io
import json
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import fastavro
import pytest
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st

from devtools.registry import Registry, running_registry, with_id
from worker.broker.schema_registry import SchemaRegistry
from worker.errors import ErrorCode, SettingsError
from worker.formats import DECODERS
from worker.formats.base import Decoder, FormatOptions, Row, WriterSchema
from worker.formats.protobuf import _compiled
from worker.records import Message

ITEM = {"type": "record", "name": "shop.Item", "fields": [{"name": "sku", "type": "string"}]}
ORDER: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}], "default": None},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "items", "type": {"type": "array", "items": "shop.Item"}},
        {"name": "rate", "type": "double"},
        {"name": "tags", "type": {"type": "map", "values": "string"}},
        {"name": "raw", "type": {"type": "fixed", "name": "Raw", "size": 2}},
        {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["NEW", "PAID"]}},
    ],
}
ORDER_ROW = {
    "price": Decimal("12.50"),
    "at": datetime(2026, 3, 1, tzinfo=UTC),
    "day": date(2026, 3, 1),
    "items": [{"sku": "a"}],
    "rate": 2.5,
    "tags": {"a": "b"},
    "raw": b"\xff\x00",
    "state": "PAID",
}
LINKED = {
    "type": "record",
    "name": "Node",
    "fields": [{"name": "n", "type": "int"}, {"name": "next", "type": ["null", "Node"]}],
}
COMMON = """
syntax = "proto3";
package common;
import "confluent/type/decimal.proto";
message Money { string currency = 1; confluent.type.Decimal amount = 2; }
"""
PROTO = """
syntax = "proto3";
package shop.v1;  // a comment
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
import "google/protobuf/struct.proto";
import "common.proto";
import "confluent/meta.proto";
import "validate/validate.proto";
option java_package = "x";
message Other { string note = 1; }
message Order {
  message Inner { message Deep { sint32 d = 1; } }
  int64 id = 1 [(confluent.field_meta).doc = "the id"];
  optional double amount = 2;
  repeated Item items = 3;
  map<string, Item.Kind> kinds = 5;
  oneof pay { string card = 6; Other other = 7; }
  google.protobuf.Timestamp at = 8;
  google.protobuf.Int64Value points = 9;
  google.protobuf.Struct extra = 10;
  common.Money money = 11;
  bytes raw = 12;
  float rate = 13;
  map<bool, Other> flags = 14;
  message Item { enum Kind { NONE = 0; BOOK = 1; } string sku = 1; .shop.v1.Order part_of = 2; Kind kind = 3; }
}
"""


@pytest.fixture
def registry() -> Iterator[Registry]:
    with running_registry() as registry:
        yield registry


def decoder(registry: Registry, name: str) -> Decoder:
    return DECODERS[name](100_000).configured(FormatOptions(schemas=SchemaRegistry(registry.url)))


def rows(decoder: Decoder, *values: bytes) -> list[Row]:
    result = decoder.decode([Message("in", 0, at, 0, None, value) for at, value in enumerate(values)])
    assert result.rejects == []
    return result.rows


def reject(decoder: Decoder, value: bytes) -> tuple[ErrorCode, str]:
    (dead,) = decoder.decode([Message("in", 0, 0, 0, None, value)]).rejects
    return dead.error_code, dead.detail


def avro(schema: Any, row: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), row)
    return out.getvalue()


def whole_order() -> Any:
    items = {**ORDER["fields"][3], "type": {"type": "array", "items": ITEM}}
    return {**ORDER, "fields": [*ORDER["fields"][:3], items, *ORDER["fields"][4:]]}


def message_class(*path: str) -> Any:
    descriptor = _compiled(WriterSchema("PROTOBUF", PROTO, {"common.proto": COMMON})).message_types_by_name[path[0]]
    for name in path[1:]:
        descriptor = descriptor.nested_types_by_name[name]
    return GetMessageClass(descriptor)


def test_avro_is_read_with_a_schema_that_refers_to_another(registry: Registry) -> None:
    registry.add("item", json.dumps(ITEM))
    number = registry.add("order", json.dumps(ORDER), references={"shop.Item": "item"})
    value = with_id(number, avro(whole_order(), ORDER_ROW))

    assert (
        rows(decoder(registry, "avro"), value, value)
        == [
            {
                "price": 12.5,
                "at": "2026-03-01T00:00:00Z",
                "day": "2026-03-01",
                "items": [{"sku": "a"}],
                "rate": 2.5,
                "tags": {"a": "b"},
                "raw": "/wA=",
                "state": "PAID",
            }
        ]
        * 2
    )
    assert len(registry.paths) == 2


def test_each_record_is_read_with_the_schema_it_was_written_with(registry: Registry) -> None:
    old = {"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}]}
    new = {"type": "record", "name": "R", "fields": [{"name": "b", "type": "double"}, {"name": "a", "type": "string"}]}
    first, second = (registry.add("r", json.dumps(schema)) for schema in (old, new))
    values = [
        with_id(first, avro(old, {"a": 1})),
        with_id(second, avro(new, {"b": float("nan"), "a": "x"})),
        with_id(first, avro(old, {"a": 2})),
        b'{"a": 3}',
    ]

    assert rows(decoder(registry, "avro"), *values) == [{"a": 1}, {"b": None, "a": "x"}, {"a": 2}, {"a": 3}]


def test_protobuf_is_read_by_the_indexes_of_its_message_with_imports(registry: Registry) -> None:
    registry.add("common", COMMON, "PROTOBUF")
    number = registry.add("order", PROTO, "PROTOBUF", {"common.proto": "common"})
    order = message_class("Order")(id=5, amount=2.5, card="x", raw=b"\xff", rate=float("inf"))
    order.items.add(sku="s", kind=1)
    order.kinds["a"] = 1
    order.at.seconds = 1_772_323_200
    order.points.value = 3
    order.extra.update({"a": [1, {"b": None}]})
    order.money.amount.value, order.money.amount.scale = b"\x07\x8b", 2
    order.flags[True].note = "y"
    deep = message_class("Order", "Inner", "Deep")(d=-4)
    other = message_class("Other")(note="hi")
    reader = decoder(registry, "protobuf")

    (row,) = rows(reader, with_id(number, order.SerializeToString(), [1]))
    assert rows(reader, with_id(number, deep.SerializeToString(), [1, 0, 0])) == [{"d": -4}]
    assert rows(reader, with_id(number, other.SerializeToString(), [0])) == [{"note": "hi"}]
    assert row == {
        "id": 5,
        "amount": 2.5,
        "items": [{"sku": "s", "part_of": None, "kind": "BOOK"}],
        "kinds": {"a": "BOOK"},
        "card": "x",
        "other": None,
        "at": "2026-03-01T00:00:00Z",
        "points": 3,
        "extra": {"a": [1.0, {"b": None}]},
        "money": {"currency": "", "amount": 19.31},
        "raw": "/w==",
        "rate": None,
        "flags": {"true": {"note": "y"}},
    }


def test_what_is_not_set_is_null_where_protobuf_can_tell_and_its_default_elsewhere(registry: Registry) -> None:
    number = registry.add("r", 'syntax = "proto3"; message R { int32 a = 1; optional int32 b = 2; }', "PROTOBUF")

    assert rows(decoder(registry, "protobuf"), with_id(number, b"", [0])) == [{"a": 0, "b": None}]


def test_a_registry_may_send_descriptors_in_place_of_texts(registry: Registry) -> None:
    from google.protobuf.descriptor_pb2 import FileDescriptorProto

    file = FileDescriptorProto()
    _compiled(WriterSchema("PROTOBUF", "message R { optional int32 a = 1; }", {})).CopyToProto(file)
    number = registry.add("r", b64encode(file.SerializeToString()).decode(), "PROTOBUF")

    assert rows(decoder(registry, "protobuf"), with_id(number, b"\x08\x05", [0])) == [{"a": 5}]


def test_json_with_a_schema_is_read_and_its_decimals_by_their_scale(registry: Registry) -> None:
    decimal = {"type": "string", "title": "org.apache.kafka.connect.data.Decimal", "connect.parameters": {"scale": "2"}}
    schema = {
        "type": "object",
        "properties": {"a": {"type": "number"}, "price": {"oneOf": [{"type": "null"}, decimal]}},
    }
    number = registry.add("r", json.dumps(schema), "JSON")
    value = with_id(number, b'{"a": 1, "price": "B4s="}')

    assert rows(decoder(registry, "json-schema"), value, b'{"a": 2}') == [{"a": 1, "price": 19.31}, {"a": 2}]


def test_what_can_not_be_read_says_why(registry: Registry) -> None:
    number = registry.add("r", json.dumps({"type": "record", "name": "R", "fields": [{"name": "a", "type": "string"}]}))
    other = registry.add("p", 'syntax = "proto3"; message R { int32 a = 1; }', "PROTOBUF")
    reader = decoder(registry, "avro")
    cases = [
        (with_id(99, b"x"), "unknown_schema", "schema id 99: the schema registry"),
        (with_id(number, b"\x10ab"), "invalid_record", f"schema id {number}: the bytes don't fit the schema"),
        (with_id(number, b"\x02ab"), "invalid_record", "more bytes than the schema has"),
        (with_id(other, b"\0"), "unknown_schema", "is of the sort PROTOBUF, which [kafka.format] = protobuf reads"),
        (b"12.5,web", "invalid_record", "no schema's id in front; looks like CSV, which [kafka.format] = csv reads"),
        (b"\0\0", "invalid_record", "no schema's id in front"),
    ]

    for value, code, detail in cases:
        dead = reject(reader, value)
        assert dead[0] == code
        assert detail in dead[1]
    assert "no message type (3,)" in reject(decoder(registry, "protobuf"), with_id(other, b"", [3]))[1]


@pytest.mark.parametrize(
    ("name", "sort", "text"),
    [
        ("avro", "AVRO", "no json"),
        ("avro", "AVRO", '{"type": "record"}'),
        ("avro", "AVRO", '{"type": "record", "name": "R", "fields": [{"name": "a", "type": "Missing"}]}'),
        ("avro", "AVRO", "[" * 5_000 + "]" * 5_000),
        ("avro", "AVRO", '{"type": "array", "items": {"type": "array", "items": "null"}}'),
        ("protobuf", "PROTOBUF", "no proto"),
        ("protobuf", "PROTOBUF", 'syntax = "proto3"; message R { Missing a = 1; }'),
        ("protobuf", "PROTOBUF", 'syntax = "proto3"; message R { int32 a = 1; int32 b = 1; }'),
        ("protobuf", "PROTOBUF", "x" * 2_000_000),
        ("json-schema", "JSON", "no json"),
    ],
)  # fmt: skip
def test_a_schema_that_can_not_be_used_costs_its_records_and_is_named(
    registry: Registry, name: str, sort: str, text: str
) -> None:
    number = registry.add("r", text, sort)
    code, detail = reject(decoder(registry, name), with_id(number, b"\x00"))

    assert code == ErrorCode.UNKNOWN_SCHEMA
    assert detail.startswith(f"schema id {number}: ")


def test_a_list_that_is_linked_a_hundred_thousand_times_costs_a_record(registry: Registry) -> None:
    number = registry.add("linked", json.dumps(LINKED))
    reader = decoder(registry, "avro")

    assert rows(reader, with_id(number, b"\x02\x02" * 5 + b"\x02\x00"))
    assert reject(reader, with_id(number, b"\x02\x02" * 45_000 + b"\x02\x00"))[0] == ErrorCode.INVALID_RECORD


def test_messages_without_end_and_by_the_hundred_thousand_cost_a_record(registry: Registry) -> None:
    text = 'syntax = "proto3"; message R { R r = 1; repeated R many = 2; int32 a = 3; int32 b = 4; }'
    number = registry.add("r", text, "PROTOBUF")
    reader = decoder(registry, "protobuf")
    nested = b""
    for _ in range(95):
        size = len(nested)
        nested = b"\x0a" + (bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])) + nested

    assert reject(reader, with_id(number, nested, [0]))[0] == ErrorCode.INVALID_RECORD
    assert reject(reader, with_id(number, b"\x12\x00" * 49_000, [0]))[0] == ErrorCode.TOO_LARGE


def test_masked_records_are_written_as_json_and_read_again(registry: Registry) -> None:
    reader = decoder(registry, "avro")

    assert reader.parse(reader.encode({"a": None, "b": "x"})) == {"a": None, "b": "x"}


def test_without_a_registry_the_setting_is_named() -> None:
    with pytest.raises(SettingsError, match=r"\[registry.url\] is not set"):
        DECODERS["avro"](None).configured(FormatOptions())


class Kept:
    """Schemas without a registry, for many examples."""

    def __init__(self, schema: WriterSchema) -> None:
        self._schema = schema

    def schema(self, _: int) -> WriterSchema:
        return self._schema


def reader_of(name: str, schema: WriterSchema) -> Decoder:
    return DECODERS[name](10_000).configured(FormatOptions(schemas=Kept(schema)))


READERS = {
    "avro": reader_of("avro", WriterSchema("AVRO", json.dumps(whole_order()), {})),
    "linked": reader_of("avro", WriterSchema("AVRO", json.dumps(LINKED), {})),
    "protobuf": reader_of("protobuf", WriterSchema("PROTOBUF", PROTO, {"common.proto": COMMON})),
    "json-schema": reader_of("json-schema", WriterSchema("JSON", "{}", {})),
}
SOUND = avro(whole_order(), ORDER_ROW)


SPOILED = st.tuples(st.integers(0, len(SOUND)), st.binary(max_size=8))


@settings(derandomize=True, deadline=None, max_examples=400)
@given(
    st.sampled_from(sorted(READERS)),
    st.binary(max_size=60) | SPOILED.map(lambda at: SOUND[: at[0]] + at[1] + SOUND[at[0] + 1 :]),
    st.sampled_from([None, b"", b"\x02\x02"]),
)
def test_any_bytes_end_in_a_row_or_a_reason(name: str, body: bytes, front: bytes | None) -> None:
    value = body if front is None else with_id(7, front + body)
    result = READERS[name].decode([Message("in", 0, 0, 0, None, value)])

    assert len(result.rows) + len(result.rejects) == 1
    assert all(json.dumps(row, allow_nan=False) for row in result.rows)
