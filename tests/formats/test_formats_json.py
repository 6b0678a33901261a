import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.errors import ErrorCode
from worker.formats.base import Decoded, FormatOptions
from worker.formats.json_objects import MAX_DEPTH, JsonDecoder
from worker.records import Message


def messages(*values: bytes | None) -> list[Message]:
    return [Message("in", 0, offset, 1000 + offset, None, value) for offset, value in enumerate(values)]


def decoded(*values: bytes | None) -> Decoded:
    return JsonDecoder(10_000).decode(messages(*values))


def nested(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


NAN = FormatOptions(nan="null")
CONFLUENT = b"\x00\x00\x00\x00\x2a"
MARK = b"\xef\xbb\xbf"

GOOD = [b'{"a":1}', b' {"a" : 2}\n', b'{"\xc3\xa9":"\\ud83d\\ude00"}', b"{}", nested(MAX_DEPTH)]

BAD = [
    (b"", ErrorCode.INVALID_JSON),
    (b" ", ErrorCode.INVALID_JSON),
    (b"\xff\xfe", ErrorCode.INVALID_JSON),
    (b'{"a":"\xed\xa0\x80"}', ErrorCode.INVALID_JSON),
    (b'{"a":"\\ud800"}', ErrorCode.INVALID_JSON),
    (b'{"a":NaN}', ErrorCode.INVALID_JSON),
    (b'{"a":Infinity}', ErrorCode.INVALID_JSON),
    (b'{"a":1', ErrorCode.INVALID_JSON),
    (b'{"a":1}{"a":2}', ErrorCode.INVALID_JSON),
    (b'{"a":1},{"a":2}', ErrorCode.INVALID_JSON),
    (nested(MAX_DEPTH + 1), ErrorCode.INVALID_JSON),
    (b'{"a":' + b"[" * 2000 + b"]" * 2000 + b"}", ErrorCode.INVALID_JSON),
    (b'{"a":1e999}', ErrorCode.NOT_FINITE),
    (b'{"a":-1e999}', ErrorCode.NOT_FINITE),
    (b'{"a":1' + b"0" * 400 + b"}", ErrorCode.NOT_FINITE),
    (b"[1]", ErrorCode.NOT_AN_OBJECT),
    (b"1", ErrorCode.NOT_AN_OBJECT),
    (b"null", ErrorCode.NOT_AN_OBJECT),
    (b'"{}"', ErrorCode.NOT_AN_OBJECT),
    (b'{"a":"' + b"x" * 10_000 + b'"}', ErrorCode.TOO_LARGE),
]


def test_objects_are_parsed_in_order() -> None:
    result = decoded(*GOOD)

    assert [message.offset for message in result.messages] == list(range(len(GOOD)))
    assert result.rows == [orjson.loads(value) for value in GOOD]
    assert result.rejects == []
    assert result.skipped == 0


@pytest.mark.parametrize(("value", "code"), BAD)
def test_a_bad_value_is_rejected_with_its_code_and_the_neighbours_go_on(value: bytes, code: ErrorCode) -> None:
    result = decoded(b'{"a":1}', value, b'{"a":2}')

    assert [(reject.message.offset, reject.error_code) for reject in result.rejects] == [(1, code)]
    assert result.rejects[0].detail
    assert [message.offset for message in result.messages] == [0, 2]
    assert result.rows == [{"a": 1}, {"a": 2}]


def test_a_bad_value_alone_is_rejected_too() -> None:
    for value, code in BAD:
        result = decoded(value)

        assert [reject.error_code for reject in result.rejects] == [code]
        assert result.rows == []


def test_a_tombstone_is_skipped_and_counted() -> None:
    result = decoded(b"{}", None, None, b"{}")

    assert result.skipped == 2
    assert len(result.rows) == 2
    assert result.rejects == []


def test_no_messages_give_nothing() -> None:
    assert decoded() == Decoded([], [], [], 0)


def test_of_duplicate_keys_the_last_one_wins() -> None:
    assert decoded(b'{"a":1,"a":2}').rows == [{"a": 2}]


def test_the_size_limit_is_inclusive() -> None:
    value = b'{"a":"' + b"x" * (10_000 - 8) + b'"}'

    assert decoded(value).rejects == []
    assert decoded(value + b" ").rejects[0].error_code == ErrorCode.TOO_LARGE


def test_what_passes_can_be_written_again_inside_another_object() -> None:
    for row in decoded(*GOOD).rows:
        assert orjson.dumps({"alert": {"record": row}})


def test_rows_stand_where_their_values_stand_and_none_where_there_are_no_fields() -> None:
    decoder = JsonDecoder(20)

    assert decoder.rows([b'{"a":1}', b'{"b":2}']) == [{"a": 1}, {"b": 2}]
    assert decoder.rows([b'{"a":1}', None, b"[]", b"{" + b" " * 20 + b"}", b'{"b":2}']) == [
        {"a": 1}, None, None, None, {"b": 2}
    ]  # fmt: skip


def test_without_a_limit_no_value_is_too_large() -> None:
    large = b'{"a":"' + b"x" * 2_000_000 + b'"}'

    assert len(JsonDecoder().decode(messages(large)).rows) == 1
    assert JsonDecoder(1_000_000).decode(messages(large)).rejects[0].error_code == "too_large"


@settings(derandomize=True, deadline=None)
@given(st.dictionaries(st.text(st.characters(codec="utf-8")), st.integers(-(2**63), 2**63) | st.booleans() | st.none()))
def test_what_is_encoded_is_decoded_again(row: dict[str, object]) -> None:
    decoder = JsonDecoder()

    assert decoder.rows([decoder.encode(row)]) == [row]


@pytest.mark.parametrize("front", [CONFLUENT, MARK, CONFLUENT + MARK])
def test_confluents_bytes_and_a_mark_in_front_are_passed_over_alone_and_among_others(front: bytes) -> None:
    assert decoded(front + b'{"a":1}', front + b'{"a":2}').rows == [{"a": 1}, {"a": 2}]
    assert decoded(b'{"a":1}', front + b'{"a":2}', b"[3]").rows == [{"a": 1}, {"a": 2}]
    assert decoded(front + b'{"a":1}', b'{"a":2}').rows == [{"a": 1}, {"a": 2}]


def test_an_array_of_one_object_is_that_object() -> None:
    assert decoded(b'[{"a":1}]', b'[{"a":1},{"a":2}]').rows == [{"a": 1}]


def test_nan_and_infinity_are_null_by_an_option_and_named_without_it() -> None:
    values = [b'{"a":NaN,"b":"NaN"}', b'{"a":[-Infinity]}', b'{"a":1e999}', b'{"a":NaN']
    lenient = JsonDecoder().configured(NAN).decode(messages(*values))

    assert lenient.rows == [{"a": None, "b": "NaN"}, {"a": [None]}]
    assert [reject.error_code for reject in lenient.rejects] == ["not_finite", "invalid_json"]
    assert "JSON with NaN or Infinity, which [input.nan] = null reads" in decoded(*values).rejects[0].detail


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        (CONFLUENT + b"\x06abc\x18", "looks like Avro with Confluent's header, schema id 42"),
        (b"10:00 INFO done in 4 ms", "looks like a line of text, which [kafka.format] = lines reads"),
        (b'{"a":1}\n{"a":2}', "looks like 2 JSON values, one a line"),
        (b"[1,2]", "expected a JSON object, got an array; looks like a JSON array of 2 values"),
    ],
)
def test_the_reason_says_what_the_value_looks_like(value: bytes, detail: str) -> None:
    assert detail in decoded(value).rejects[0].detail


@pytest.mark.parametrize(
    "value",
    [b'[{"a":1},{"a":2}]', b'{"a":1}{"a":2}', b'{"a":1}\n{"a":2}\n', b' {"a":1},\r\n{"a":2},', b'{"a":1}{"a":NaN}'],
)
def test_several_values_are_an_array_by_an_option(value: bytes) -> None:
    options = FormatOptions(nan="null", array="rows")
    (row, last) = JsonDecoder().configured(options).decode(messages(value, b'{"b":3}')).rows

    assert [list(member) for member in row["rows"]] == [["a"], ["a"]]
    assert last == {"b": 3}
    assert "which [input.unfold] = records reads" in decoded(value.replace(b"NaN", b"2")).rejects[0].detail


@pytest.mark.parametrize("value", [b'{"a":1}x', b'{"a":1}2', b"{}" * 10_001, b'{"a":1}{"a":', b'{"a":' * 100_000, b""])
def test_what_is_no_series_of_objects_is_refused_with_the_option_too(value: bytes) -> None:
    (dead,) = JsonDecoder().configured(FormatOptions(array="rows")).decode(messages(value)).rejects

    assert dead.error_code == ErrorCode.INVALID_JSON


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.lists(st.binary(max_size=60) | st.binary(max_size=40).map(lambda value: b'{"a":' + value + b"}"), max_size=5))
def test_any_bytes_end_in_a_row_or_a_reason(values: list[bytes]) -> None:
    result = JsonDecoder(50).configured(NAN).decode(messages(*values))

    assert len(result.rows) + len(result.rejects) == len(values)
    assert all(orjson.dumps(row) for row in result.rows)
