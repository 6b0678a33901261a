"""A value that is not what was expected is named, with the setting that reads it."""

import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.formats.guess import UNFOLD, guessed, looks_like, without_not_finite

CONFLUENT = b"\x00\x00\x00\x00\x11"

LINES, CSV, JSON, AVRO, PROTOBUF = (f"[kafka.format] = {name}" for name in ("lines", "csv", "json", "avro", "protobuf"))

GUESSES = [
    (b"", "nothing", ""),
    (b" \n", "nothing", ""),
    (b"07:15:02 WARN cart-3 retried after 80 ms", "a line of text", LINES),
    (b"[07:15:02] WARN cart-3 retried", "a line of text", LINES),
    ("gr\u00fc\u00dfe aus K\u00f6ln, und noch mehr davon, wie immer".encode(), "a line of text", LINES),
    (b"ERROR boom\n  at Cart.add(Cart.java:9)\n  at Main.main(Main.java:3)", "3 lines of text", LINES),
    (b"level=warn msg=retried ms=80", "a line of text", LINES),
    (b"12.5,web,true", "CSV", CSV),
    (b'7;"a; b";;x', "CSV", CSV),
    (b"amount\tchannel\n12.5\tweb\n", "CSV", CSV),
    (b'{"a": NaN}', "JSON with NaN or Infinity", "[input.nan] = null"),
    (b'{"a": [1, -Infinity], "b": "NaN"}', "JSON with NaN or Infinity", "[input.nan] = null"),
    (b'{"a": "NaN"', "JSON that is cut off or broken", ""),
    (b'{"a": 1}', "a JSON object", JSON),
    (b'{"a": 1}{"a": 2}', "several JSON values, one after the other", UNFOLD),
    (b'{"a": 1}\n{"a": 2}\n', "2 JSON values, one a line", UNFOLD),
    (b'[{"a": 1}, {"a": 2}]', "a JSON array of 2 values", UNFOLD),
    (b"[", "JSON that is cut off or broken", ""),
    (b"{'a': 1}", "a Python dictionary", ""),
    (b'"{\\"a\\": 1}"', "JSON inside of a JSON string", ""),
    (b"<order id='1'><a/></order>", "XML or HTML", ""),
    (CONFLUENT + b'{"a": 1}', "JSON with Confluent's header, schema id 17", JSON),
    (CONFLUENT + b"\x06abc\x18", "Avro with Confluent's header, schema id 17", AVRO),
    (CONFLUENT + b"\x00\x0a\x03abc\x10\x07", "Protobuf with Confluent's header, schema id 17", PROTOBUF),
    (CONFLUENT + b"\x04\x02\x00\x10\x07", "Protobuf with Confluent's header, schema id 17", PROTOBUF),
    (b"\x0a\x03abc\x10\x07", "Protobuf without Confluent's header", ""),
    (gzip.compress(b"{}", mtime=0), "gzip", ""),
    (b"\x28\xb5\x2f\xfd....", "zstd", ""),
    ("a".encode("utf-16"), "text in UTF-16", ""),
    (b"Obj\x01\x04\x14avro.codec", "a whole file of Avro", ""),
    (b"\x80\x02\x03}q\x00X", "bytes that are no text", ""),
    (b"", "nothing", ""),
    (b"\xef\xbb\xbf", "nothing", ""),
    (b"\xef\xbb\xbf \n", "nothing", ""),
    ("\u00a0\u3000".encode(), "nothing", ""),
]  # fmt: skip


@pytest.mark.parametrize(("value", "what", "setting"), GUESSES)
def test_a_value_looks_like_what_it_is_and_names_the_setting_that_reads_it(
    value: bytes, what: str, setting: str
) -> None:
    guess = guessed(value)

    assert guess.what.startswith(what)
    assert guess.setting == setting
    assert looks_like(value) == f"looks like {guess.what}" + (f", which {setting} reads" if setting else "")


@settings(derandomize=True, deadline=None, max_examples=300)
@given(
    st.binary(max_size=200)
    | st.text(" \t\n\x0c\x1f\u0085\u00a0\u2028\u3000\ufeff").map(str.encode)
    | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass"))
)
def test_any_bytes_look_like_something(value: bytes) -> None:
    assert looks_like(value).startswith("looks like ")
    assert guessed(CONFLUENT + value).what


def test_guessing_at_a_value_of_a_megabyte_takes_linear_time() -> None:
    for value in (b'{"a":' + b'\\"' * 500_000 + b"NaN", b'{"' * 400_000, b"{}," * 300_000, b"a," * 500_000):
        assert looks_like(value)
    assert without_not_finite(b'"' + b"\\" * 1_000_001 + b" NaN")


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (b'{"NaN": "Infinity", "a": NaN}', b'{"NaN": "Infinity", "a": null}'),
        (b'["\\"NaN", NaN, -Infinity, Infinity]', b'["\\"NaN", null, null, null]'),
        (b'["\\\\", NaN]', b'["\\\\", null]'),
        (b'{"a": xNaN, "b": NaNs, "c": "NaN', b'{"a": xNaN, "b": NaNs, "c": "NaN'),
    ],
)
def test_nan_is_null_where_it_is_a_value_and_stays_in_texts(value: bytes, read: bytes) -> None:
    assert without_not_finite(value) == read
