from typing import Any

import orjson
import pytest

from worker.errors import ErrorCode, SettingsError
from worker.formats.base import Decoder
from worker.formats.json_objects import JsonDecoder
from worker.formats.unfold import MAX_UNFOLDED, UnfoldingDecoder
from worker.records import Message, RawMessage, member_of, place_of


def raw(*values: Any) -> list[RawMessage]:
    texts = [None if value is None else value if type(value) is bytes else orjson.dumps(value) for value in values]
    return [Message("in", 2, 7 + at, 1000 + at, b"key", text, (("h", b"1"),)) for at, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("path", "value", "rows"),
    [
        ("Records", {"Records": [{"a": 1}, {"a": 2}]}, [{"a": 1}, {"a": 2}]),
        ("Records[]", {"Records": [{"a": 1}]}, [{"a": 1}]),
        ("events", {"group": "g", "events": [{"a": 1}, {"group": "own"}]}, [{"group": "g", "a": 1}, {"group": "own"}]),
        ("detail.items", {"detail": {"n": 1, "items": [{"a": 1}]}}, [{"detail": {"n": 1}, "a": 1}]),
        ("a.b", {"a.b": [{"c": 1}], "a": 2}, [{"a": 2, "c": 1}]),
        (
            "res[].scopes[].logs",
            {"res": [{"r": 1, "scopes": [{"s": 1, "logs": [{"b": 1}, {"b": 2}]}, {"s": 2, "logs": [{"b": 3}]}]}]},
            [{"r": 1, "s": 1, "b": 1}, {"r": 1, "s": 1, "b": 2}, {"r": 1, "s": 2, "b": 3}],
        ),
        ("res[].logs", {"res": [{"r": 1}, {"r": 2, "logs": [{"b": 1}]}]}, [{"r": 1}, {"r": 2, "b": 1}]),
        ("Records", {"a": 1}, [{"a": 1}]),
        ("Records", {"Records": 5}, [{"Records": 5}]),
        ("Records", {"Records": []}, []),
    ],
)
def test_the_members_of_an_array_are_records_with_what_stands_around_it(path: str, value: Any, rows: Any) -> None:
    decoder = UnfoldingDecoder(JsonDecoder(), path)

    decoded = decoder.decode(raw(value))

    assert decoded.rows == rows
    assert decoded.rejects == []
    assert decoded.skipped == (0 if rows else 1)
    assert [orjson.loads(message.value or b"") for message in decoded.messages] == rows


def test_each_member_has_a_place_of_its_own_and_the_rest_of_its_kafka_record() -> None:
    decoder = UnfoldingDecoder(JsonDecoder(), "r")

    messages = decoder.decode(raw({"r": [{"a": 1}, {"a": 2}]}, {"a": 3})).messages

    assert list(map(place_of, messages)) == [(7, 0), (7, 1), (8,)]
    assert {(m.topic, m.partition, m.key, tuple(m.headers)) for m in messages} == {("in", 2, b"key", (("h", b"1"),))}
    assert [message.timestamp for message in messages] == [1000, 1000, 1001]


def test_what_was_unfolded_once_is_a_record_even_where_it_has_such_an_array_itself() -> None:
    decoder = UnfoldingDecoder(JsonDecoder(), "r")
    once = decoder.decode(raw({"r": [{"r": [{"a": 1}]}]}))

    assert once.rows == [{"r": [{"a": 1}]}]
    assert decoder.decode(once.messages) == once
    assert decoder.rows([message.value for message in once.messages]) == once.rows


def test_only_members_that_are_no_objects_are_dead_letters() -> None:
    decoded = UnfoldingDecoder(JsonDecoder(), "r").decode(raw({"r": [{"a": 1}, 5, [1]]}, b"{", None))

    assert decoded.rows == [{"a": 1}]
    assert [(dead.message.offset, member_of(dead.message), dead.error_code) for dead in decoded.rejects] == [
        (8, None, ErrorCode.INVALID_JSON),
        (7, 1, ErrorCode.NOT_AN_OBJECT),
        (7, 2, ErrorCode.NOT_AN_OBJECT),
    ]
    assert decoded.rejects[1].detail == "member 1 of r: expected a JSON object, got a number"
    assert decoded.rejects[1].message.value == b"5"
    assert decoded.skipped == 1


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        ({"r": [{}] * 1_000_000}, f"more than {MAX_UNFOLDED:,} records in r"),
        ({"around": "x" * 1_000_000, "r": [{}] * 9_000}, "with what stands around it, r has more than 64 times"),
    ],
)
def test_a_record_that_wraps_too_much_is_one_dead_letter(value: Any, detail: str) -> None:
    messages = raw(value)

    decoded = UnfoldingDecoder(JsonDecoder(), "r").decode(messages)

    assert decoded.rows == []
    assert [dead.error_code for dead in decoded.rejects] == [ErrorCode.TOO_LARGE]
    assert detail in decoded.rejects[0].detail
    assert decoded.rejects[0].message is messages[0]


def test_a_format_that_can_not_write_a_member_is_refused() -> None:
    class ReadOnly(Decoder):
        def parse(self, value: bytes) -> dict[str, Any]:
            return {"length": len(value)}

    with pytest.raises(SettingsError, match=r"\[input.unfold\] = 'r': ReadOnly can't write"):
        UnfoldingDecoder(ReadOnly(), "r")
