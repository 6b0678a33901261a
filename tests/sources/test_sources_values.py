"""A file that is a JSON array is read as its records."""

import gzip
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.errors import DataError
from worker.sources.files import Files
from worker.sources.json_values import split_values
from worker.sources.lines import Reading

TEXTS = st.text('a"\\{}[],', max_size=4)
ROWS = [{"shop": "a]}", "items": [{"n": 1}, {"n": 2}]}, {"shop": '"{\\', "items": []}, {}]


def values_of(path: Path) -> list[bytes | None]:
    return [value for block in Files([str(path)]).blocks() for value in block.values]


@pytest.mark.parametrize(
    "content",
    [
        orjson.dumps(ROWS),
        b"[\n" + b",\n".join(map(orjson.dumps, ROWS)) + b"\n]\n",
        orjson.dumps(ROWS, option=orjson.OPT_INDENT_2),
        b"\n".join(orjson.dumps(row, option=orjson.OPT_INDENT_2) for row in ROWS),
        b"\xef\xbb\xbf" + orjson.dumps(ROWS),
        gzip.compress(orjson.dumps(ROWS), mtime=0),
        b"".join(orjson.dumps([row]) for row in ROWS),
    ],
)
def test_an_array_and_objects_of_several_lines_are_their_records(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "history.json"
    path.write_bytes(content)

    assert [orjson.loads(value or b"") for value in values_of(path)] == ROWS


def test_lines_stay_lines(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_bytes(b"[07:15] {a\n{b\n")

    assert values_of(path) == [b"[07:15] {a", b"{b", b""][:2]


def test_what_stands_between_two_records_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "history.json"
    path.write_bytes(b'[{"a": 1}, garbage, {"a": 2}, 3]')

    assert values_of(path) == [b'{"a": 1}', b"garbage", b'{"a": 2}', b"3"]


def test_a_file_that_was_cut_off_gives_what_was_whole_and_an_error(tmp_path: Path) -> None:
    path = tmp_path / "history.json"
    path.write_bytes(b'[{"a": 1}, {"a": 2')
    source = Files([str(path)]).blocks()

    assert list(next(source).values) == [b'{"a": 1}']
    with pytest.raises(DataError, match="ends inside of a JSON value"):
        list(source)


def test_a_record_beyond_the_limit_ends_the_reading() -> None:
    pieces = iter([b'[{"a": 1}, {"a": "' + b"x" * 50] + [b"x" * 50] * 10)

    with pytest.raises(DataError, match="more than 100 bytes"):
        list(split_values("file", pieces, Reading(max_line_bytes=100)))


@settings(derandomize=True, deadline=None)
@given(
    st.lists(
        st.dictionaries(st.text('a"\\{}[],', max_size=4), st.text('a"\\{}[],', max_size=4), max_size=3), min_size=1
    ),
    st.integers(1, 7),
)
def test_where_pieces_end_does_not_matter(rows: list[dict[str, str]], size: int) -> None:
    content = orjson.dumps(rows)
    pieces = iter([content[start : start + size] for start in range(0, len(content), size)])

    blocks = list(split_values("file", pieces, Reading()))

    assert [orjson.loads(value or b"") for block in blocks for value in block] == rows


@settings(derandomize=True, deadline=None)
@given(st.binary(max_size=60) | st.text('{}[]",\\ 1', max_size=60).map(str.encode))
def test_any_bytes_are_split_or_refused(content: bytes) -> None:
    try:
        blocks = list(split_values("file", iter([content]), Reading()))
    except DataError:
        return
    assert all(value for block in blocks for value in block)
