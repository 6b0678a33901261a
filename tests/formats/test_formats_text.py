"""Lines of text and of delimited cells."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.errors import ErrorCode, RecordError, UsageError
from worker.formats import DECODERS
from worker.formats.base import FormatOptions, Row
from worker.formats.delimited import DelimitedDecoder
from worker.formats.text_lines import LinesDecoder


def delimited(*columns: str, delimiter: str | None = None) -> DelimitedDecoder:
    return DelimitedDecoder(10_000).configured(FormatOptions(columns=columns, delimiter=delimiter))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"10:00 INFO done\n", "10:00 INFO done"),
        (b"\xef\xbb\xbfa\r\n", "a"),
        (b"boom\n  at Cart.add\n", "boom\n  at Cart.add"),
        (b"caf\xe9", "caf\ufffd"),
        (b"", ""),
        (b'{"a": 1}', '{"a": 1}'),
    ],
)
def test_a_line_is_its_message(value: bytes, message: str) -> None:
    assert LinesDecoder().parse(value) == {"message": message}


def test_a_line_is_written_again_and_other_fields_are_not() -> None:
    assert LinesDecoder().encode({"message": "a"}) == b"a"
    with pytest.raises(UsageError):
        LinesDecoder().encode({"message": "a", "b": 1})


@pytest.mark.parametrize(
    ("decoder", "value", "row"),
    [
        (delimited(), b"12.5,web,", {"column_1": "12.5", "column_2": "web", "column_3": None}),
        (delimited(), b"zip;shop\n01067;a\n", {"zip": "01067", "shop": "a"}),
        (delimited("zip", "note"), b'99501,"a, b"\r\n', {"zip": "99501", "note": "a, b"}),
        (delimited("zip", "note"), b'99501,"two\nlines"', {"zip": "99501", "note": "two\nlines"}),
        (delimited("a", "b", delimiter="\t"), b"1,5\tx;y;z", {"a": "1,5", "b": "x;y;z"}),
        (delimited("a"), b"\xef\xbb\xbfx", {"a": "x"}),
    ],
)
def test_cells_are_texts_by_their_column(decoder: DelimitedDecoder, value: bytes, row: Row) -> None:
    assert decoder.parse(value) == row
    assert list(decoder.parse(value)) == list(row)


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        (b"a,b", "the line with the names of the columns"),
        (b"1,2,3", "3 cells for 2 columns, as [input.columns] has them"),
        (b"1,2\n3,4\n5,6", "3 rows in one value"),
        (b'1,"2', "unexpected end of data"),
        (b"", "looks like nothing"),
        (b"\xff\x80\x81", "no UTF-8; looks like bytes that are no text"),
    ],
)
def test_what_is_no_row_of_the_columns_says_why(value: bytes, detail: str) -> None:
    with pytest.raises(RecordError) as caught:
        delimited("a", "b").parse(value)

    assert caught.value.error_code == ErrorCode.INVALID_RECORD
    assert detail in caught.value.detail


def test_cells_are_written_again() -> None:
    decoder = delimited("a", "b")

    assert decoder.parse(decoder.encode({"a": 'x, "y"', "b": None})) == {"a": 'x, "y"', "b": None}


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.sampled_from(["lines", "csv"]), st.binary(max_size=80) | st.text('a,;"\n\r\t|', max_size=40).map(str.encode))
def test_any_bytes_end_in_a_row_or_a_reason(name: str, value: bytes) -> None:
    decoder = DECODERS[name](60)

    assert len(decoder.rows([value])) == 1
