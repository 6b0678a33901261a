"""Redaction: every spelling of a field is masked, keys are hashed where they hold a value, dead letters lose theirs."""

import struct
from base64 import b64encode
from typing import Any

import orjson
import pytest

from worker.errors import ErrorCode, UsageError
from worker.formats.json_objects import JsonDecoder
from worker.records import DeadLetter, Message
from worker.redaction import HASHED, MASK, MAX_DEPTH, Pseudonym, Redaction, revive

S = "pl4nted-s3cret"


def nested(levels: int) -> Any:
    value: Any = {"b": S}
    for _ in range(levels):
        value = [value]
    return value


RECORDS: list[tuple[str, list[str], dict[str, Any], dict[str, Any]]] = [
    ("a key", ["a"], {"a": S, "x": 1}, {"a": MASK, "x": 1}),
    ("a path", ["a.b"], {"a": {"b": S, "c": 1}}, {"a": {"b": MASK, "c": 1}}),
    ("a key with a dot", ["a.b"], {"a.b": S}, {"a.b": MASK}),
    ("both spellings in one record", ["a.b"], {"a.b": S, "a": {"b": S}}, {"a.b": MASK, "a": {"b": MASK}}),
    ("a dot in the middle", ["a.b.c"], {"a.b": {"c": S}, "a": {"b.c": S}}, {"a.b": {"c": MASK}, "a": {"b.c": MASK}}),
    ("a whole subtree", ["a"], {"a": {"b": [S, {"c": S}]}}, {"a": MASK}),
    ("a subtree in flat spelling", ["a.b"], {"a.b.c": S, "a": {"b.d": S}}, {"a.b.c": MASK, "a": {"b.d": MASK}}),
    ("in an array", ["a.b"], {"a": [{"b": S}, {"c": 1}]}, {"a": [{"b": MASK}, {"c": 1}]}),
    ("in arrays of arrays", ["a.b"], {"a": [[{"b": S}], 1]}, {"a": [[{"b": MASK}], 1]}),
    ("an array itself", ["a"], {"a": [S, S]}, {"a": MASK}),
    ("numbers, null and booleans", ["a", "b", "c"], {"a": 7, "b": None, "c": True}, dict.fromkeys("abc", MASK)),
    ("a field and what it lies in", ["a", "a.b"], {"a": {"b": S}}, {"a": MASK}),
    (
        "two fields of one object",
        ["a.b", "a.c"],
        {"a": {"b": S, "c": S, "d": 1}},
        {"a": {"b": MASK, "c": MASK, "d": 1}},
    ),
    (
        "names that only begin alike",
        ["a.b"],
        {"a.bc": 1, "a": {"bc": 1}, "ab": 1},
        {"a.bc": 1, "a": {"bc": 1}, "ab": 1},
    ),
    ("another case is another field", ["a"], {"A": 1}, {"A": 1}),
    ("the same name elsewhere", ["a"], {"x": {"a": 1}}, {"x": {"a": 1}}),
    ("no object where the path leads", ["a.b.c"], {"a": {"b": 5}}, {"a": {"b": 5}}),
]


@pytest.mark.parametrize(("fields", "record", "masked"), [row[1:] for row in RECORDS], ids=[row[0] for row in RECORDS])
def test_every_spelling_of_a_redacted_field_is_masked_and_nothing_else(
    fields: list[str], record: dict[str, Any], masked: dict[str, Any]
) -> None:
    before = orjson.dumps(record)

    assert Redaction(fields).record(record) == masked
    assert orjson.dumps(record) == before


def test_what_is_nested_deeper_than_any_record_is_masked_as_a_whole() -> None:
    masked = Redaction(["a.b"]).record({"a": nested(3 * MAX_DEPTH)})

    assert S.encode() not in orjson.dumps(masked)


KEYS: list[tuple[str, bytes | None, Any, bool]] = [
    ("the value", S.encode(), S, True),
    ("a part of the key", f"customer:{S}:7".encode(), S, True),
    ("in another case", S.upper().encode(), S, True),
    ("in a JSON key", orjson.dumps({"customer": S}), S, True),
    ("in a JSON key with escapes", b'{"c": "\\u0070l4nted-s3cret"}', S, True),
    ("percent-encoded", b"a%40example.org", "a@example.org", True),
    ("in UTF-16", S.encode("utf-16-le"), S, True),
    ("in hexadecimal", S.encode().hex().encode(), S, True),
    ("in base64", b64encode(S.encode()), S, True),
    ("a number", b"7390215577", 7390215577, True),
    ("a number as text in the record", b"7390215577", "7390215577", True),
    ("a long in Kafka's own form", struct.pack(">q", 7390215577), 7390215577, True),
    ("an int in Kafka's own form", struct.pack(">i", 5), 5, True),
    ("a double in Kafka's own form", struct.pack(">d", 12.5), 12.5, True),
    ("a whole number that the record has as a fraction", b"12", 12.0, True),
    ("deep in the redacted subtree", S.encode(), [{"x": [S]}], True),
    ("a short value, all of the key", b"42", 42, True),
    ("a short value within a number", b"1429", 42, False),
    ("something else", b"shop-17", S, False),
    ("no key", None, S, False),
    ("a record without the field", b"shop-17", None, True),
    ("an empty key", b"", S, False),
]


@pytest.mark.parametrize(("key", "value", "hashed"), [row[1:] for row in KEYS], ids=[row[0] for row in KEYS])
def test_a_key_is_hashed_where_it_holds_a_redacted_value_or_where_nobody_can_tell(
    key: bytes | None, value: Any, hashed: bool
) -> None:
    shown = Redaction(["customer"], secret="x").key(key, {"customer": value, "shop": "shop-17"})

    assert (shown != key) is hashed
    assert not hashed or (shown or b"").startswith(HASHED.encode())


def test_equal_keys_have_equal_hashes_under_one_secret_and_others_under_another() -> None:
    row = {"c": S}
    first, again, other = (Redaction(["c"], secret=secret).key(S.encode(), row) for secret in ("x", "x", "y"))

    assert first == again != other


def test_the_rule_for_keys_can_be_all_or_none() -> None:
    row = {"c": S}

    assert Redaction(["c"], keys="always").key(b"shop", row) != b"shop"
    assert Redaction(["c"], keys="never").key(S.encode(), row) == S.encode()


def dead(value: bytes, key: bytes | None = None, headers: Any = (), detail: str = "x") -> DeadLetter:
    return DeadLetter(Message("in", 3, 17, 5, key, value, headers), ErrorCode.INVALID_JSON, detail)


def test_a_dead_letter_that_can_be_read_is_published_masked() -> None:
    value = orjson.dumps({"a": {"b": S}, "n": 1})
    headers = ((S, b"1"), ("a.b", b"2"), ("h", S.encode()), ("trace", b"7"), ("none", None))
    masked = Redaction(["a.b"]).dead_letter(
        dead(value, S.encode(), headers, f"refused {S}"), orjson.loads(value), orjson.dumps
    )

    assert orjson.loads(masked.message.value or b"") == {"a": {"b": MASK}, "n": 1}
    assert list(masked.message.headers) == [
        *((MASK, b"1"), ("a.b", MASK.encode()), ("h", MASK.encode()), ("trace", b"7"), ("none", None)),
        ("redacted", b"true"),
    ]
    assert S not in repr(masked)
    assert masked.message.offset == 17


UNREADABLE = [b'{"a": "pl4nted-s3cret', b'"pl4nted-s3cret"', S.encode("utf-16"), b"\xff" + S.encode(), b'{"a":NaN}']


@pytest.mark.parametrize("value", UNREADABLE)
def test_of_a_dead_letter_that_cannot_be_read_place_length_and_hash_are_published(value: bytes) -> None:
    (row,) = JsonDecoder().rows([value])
    masked = Redaction(["a"]).dead_letter(dead(value, S.encode(), (("h", S.encode()),)), row, orjson.dumps)

    stub = orjson.loads(masked.message.value or b"")
    assert stub["source"] == {"topic": "in", "partition": 3, "offset": 17}
    assert (stub["redacted"], stub["bytes"]) == (True, len(value))
    assert S not in repr(masked)


def test_dead_letters_of_a_format_that_cannot_be_written_are_replaced_too() -> None:
    def encode(row: Any) -> bytes:
        raise UsageError("can't write")

    masked = Redaction(["a"]).dead_letter(dead(S.encode()), {"a": S}, encode)

    assert orjson.loads(masked.message.value or b"")["redacted"] is True


def test_dead_letters_can_be_left_as_they_came() -> None:
    letter = dead(S.encode(), S.encode())

    assert Redaction(["a"], dead_letters=False).dead_letter(letter, {"a": S}, orjson.dumps) is letter


def test_a_pseudonym_survives_json_and_keeps_length_and_token() -> None:
    hidden = Redaction(["a"], secret="x")
    kept = orjson.loads(orjson.dumps({"a": Pseudonym.of(hidden.token(S), S), "b": "redacted:x:1"}))

    row = revive(kept, ["a"])

    assert hidden.token(row["a"]) == hidden.token(S)
    assert row["a"].length == len(S)
    assert type(row["b"]) is str
    assert S not in str(row)


def test_values_of_different_types_have_different_tokens() -> None:
    hidden = Redaction(["a"])

    assert len({hidden.token(value) for value in (1, "1", True, "True")}) == 4
