"""One bad line, cell, packed part or group of rows costs no other, and each is named with file and line or row."""

import gzip
import io
import os
import stat
import sys
import threading
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from worker.errors import DataError
from worker.sources.files import Files
from worker.texts import parse_number

CHANCE = Random(1)
ROWS = b"".join(b'{"n":%d}\n' % number for number in range(1000))
NOISE = b"".join(b'{"n":"%s"}\n' % CHANCE.randbytes(60).hex().encode() for _ in range(5000))


def read(*paths: Path, **options: Any) -> tuple[list[bytes | None], Files, str]:
    source = Files([str(path) for path in paths], **options)
    values: list[bytes | None] = []
    try:
        for block in source.blocks():
            values += block.values
    except DataError as error:
        return values, source, str(error)
    return values, source, ""


@pytest.mark.parametrize(
    ("text", "good", "named"),
    [
        (b"a,b\n1,2\n3\n5,6\n", 2, ["3: 1 cells, but the header names 2 columns"]),
        (b"a,b\n1,2\n3,4,5\n5,6\n", 2, ["3: 3 cells, but the header names 2 columns"]),
        (b"a,b\n1," + b"x" * 200_000 + b"\n5,6\n", 2, []),
        (b"a,b\n1," + b"x" * 2_000_000 + b"\n5,6\n", 1, ["2: a line of more than 1,000,000 bytes"]),
        (b'a,b\n1,"x\n3,4\n5,6\n', 2, ["2: unexpected end of data"]),
        (b'a,b\n1,"x\n' + b"3,4\n" * 9000, 9000, ["2: a quote that never ends"]),
        (b'a,b\n1,"x\n3,4\n5,y"\n7,8\n', 2, []),
        (b'a,b\n1,2,"x\n3,4\n5,y"\n7,8\n', 3, ["2: 3 cells"]),
        (b'a,b\n1,"x"y\n5,6\n', 1, ["2: "]),
        (b'a,b\n1,"two\nlines"\n5,6\n', 2, []),
        (b"a,b\n1,\0\n5,6\n", 2, []),
        (b"a,b\r\n1,2\r\n\r\n5,6\r\n", 2, []),
        (b"a,b\n1,x\ry\n5,6\n", 1, ["2: new-line character"]),
        (b"\xef\xbb\xbfa,b\n1,2\n", 1, []),
        (b'a,b\n1,"x\n' + b"y" * 2_000_000 + b"\n5,6\n", 1, ["3: a line of more than 1,000,000 bytes", "2: a quote"]),
    ],
)
def test_a_bad_row_of_a_csv_file_costs_one_row(tmp_path: Path, text: bytes, good: int, named: list[str]) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes(text)

    values, source, fault = read(path, max_line_bytes=1_000_000)

    said = [example.removeprefix(f"{path}:") for example in source.unreadable.examples]
    assert sum(value is not None for value in values) == good
    assert [text[: len(start)] for text, start in zip(said, named, strict=True)] == named
    assert values.count(None) == source.unreadable.count
    assert fault == ""


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("a,b,a", "the header names a twice; where it is a record, [input.columns] has the names"),
        (",,x", "the header names a column without a name twice; where it is a record, [input.columns] has the names"),
        ("", "no header line"),
        (" ", "no header line"),
        ("a,b", "no records"),
        ("\ufeff", "no header line"),
    ],
)
def test_a_header_that_tells_no_columns_is_named(tmp_path: Path, header: str, said: str) -> None:
    path = tmp_path / "r.csv"
    path.write_text(header + "\n", encoding="utf-8")

    assert said in read(path)[2]


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor(write_checksum=True).compress])
@pytest.mark.parametrize(
    ("damage", "good", "said"),
    [
        (lambda parts: parts[0] + parts[1][: len(parts[1]) // 2], 1000, "ends early"),
        (lambda parts: parts[0] + bytes(20) + parts[2], 1000, ""),
        (lambda parts: parts[0] + _flipped(parts[1]) + parts[2], 2000, "data is broken"),
        (lambda parts: _flipped(parts[1]) + parts[0] + _flipped(parts[1]) + parts[2], 2000, "(and 1 more such places)"),
        (lambda parts: parts[0] + b"trailing text", 1000, "data is broken"),
    ],
)
def test_a_damaged_part_of_a_packed_file_costs_that_part(
    tmp_path: Path, pack: Any, damage: Any, good: int, said: str
) -> None:
    path = tmp_path / "r.jsonl.gz"
    path.write_bytes(damage([pack(ROWS), pack(NOISE), pack(ROWS)]))

    values, _, fault = read(path)

    whole = set(ROWS.splitlines())
    assert sum(value in whole for value in values) >= good
    assert said in fault
    assert not said or fault.startswith(f"{path}:")


def _flipped(packed: bytes) -> bytes:
    damaged = bytearray(packed)
    damaged[len(damaged) // 3 : len(damaged) // 3 + 40] = Random(2).randbytes(40)
    return bytes(damaged)


def test_a_broken_file_does_not_keep_the_next_one_from_being_read(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(ROWS, mtime=0)[:-200])
    (tmp_path / "b.jsonl").write_bytes(b"[1]\n")

    values, _, fault = read(tmp_path / "a.gz", tmp_path / "b.jsonl")

    assert values[-1] == b"[1]"
    assert "a.gz:" in fault


@pytest.mark.parametrize(
    ("name", "content", "count"),
    [
        ("r.jsonl", gzip.compress(ROWS, mtime=0), 1000),
        ("r.csv", gzip.compress(b"a,b\n1,2\n", mtime=0), 1),
        ("r.parquet", ROWS, 1000),
        ("r.csv", ROWS, 1000),
        ("r.gz", ROWS, 1000),
        ("r.jsonl", None, 3),
        ("r.csv", None, 3),
    ],
)
def test_the_content_of_a_file_decides_not_its_name(
    tmp_path: Path, name: str, content: bytes | None, count: int
) -> None:
    path = tmp_path / name
    if content is None:
        pq.write_table(pa.table({"a": [1, 2, 3]}), path)
    else:
        path.write_bytes(content)

    values, _, fault = read(path)

    assert (len([value for value in values if value]), fault) == (count, "")


@pytest.mark.parametrize(
    "content", [b"PK\x03\x04 a", b"BZh91AY", b"\xfd7zXZ\x00 a", b"Obj\x01 a", b"ARROW1\0\0", b"SQLite format 3\0"]
)
def test_what_is_never_read_is_named_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(content)

    fault = read(path)[2]

    assert fault.startswith(f"{path}: the file is ")
    assert any(word in fault for word in ("unpack", "convert", "export"))


def test_pipes_are_read_and_what_is_no_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(ROWS))
    writer.start()
    assert len(read(pipe)[0]) == 1000
    writer.join()

    for path, said in (
        (tmp_path, "is a directory"),
        (tmp_path / "absent", "no such file"),
        (tmp_path / ("x" * 300), "File name too long"),
        (tmp_path / "absent" / "r", "no such file"),
    ):
        with pytest.raises(DataError, match=said):
            Files([str(path)])
    monkeypatch.setattr(sys, "stdin", None)
    assert "standard input is closed" in read(Path("-"))[2]
    assert "not from standard input" in read(Path("-"), format="parquet")[2]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def parquet_values(path: Path) -> tuple[list[Any], Files, str]:
    values, source, fault = read(path)
    return [value if value is None else orjson.loads(value) for value in values], source, fault


FAR = pa.array([2**62, 0], pa.int64())


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (pa.array([2**64 - 1, 0], pa.uint64()), [2**64 - 1, 0]),
        (pa.array([None, None], pa.null()), [None, None]),
        (pa.array([Decimal("1e30"), Decimal(1)], pa.decimal256(60, 2)), [1e30, 1.0]),
        (pa.array([0, 1], pa.date32()), ["1970-01-01", "1970-01-02"]),
        (pa.array([1_500_000, 0], pa.duration("ns")), [0.0015, 0.0]),
        (pa.array([1_500, 0], pa.time64("ns")), ["00:00:00.000001", "00:00:00"]),
        (
            pa.array([1_500, 0], pa.timestamp("ns", "Mars/Base")),
            ["1970-01-01T00:00:00.000001+00:00", "1970-01-01T00:00:00+00:00"],
        ),
        (pa.array([0, 0], pa.timestamp("ms", "+05:30")), ["1970-01-01T05:30:00+05:30"] * 2),
        (FAR.cast(pa.timestamp("us")), [None, "1970-01-01T00:00:00"]),
        (pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())), [[["k", 1]], None]),
        (pa.array([[{"x": [1.5]}], None]), [[{"x": [1.5]}], None]),
        (pa.array([b"\xff", b"a"], pa.binary()), ["/w==", "a"]),
        (pa.array([b"\xff\xfe", b"ab"], pa.binary(2)), ["//4=", "ab"]),
        (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
        (pa.array([{"x": float("nan")}, None]), [{"x": None}, None]),
        (
            pa.Array.from_buffers(
                pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"\xffb")]
            ),
            [None, "b"],
        ),
    ],
)
def test_a_value_of_any_parquet_type_is_json_or_costs_its_row(
    tmp_path: Path, column: pa.Array, values: list[Any]
) -> None:
    path = tmp_path / "r.parquet"
    pq.write_table(pa.table({"a": column, "b": [1, 2]}), path)

    rows, source, fault = parquet_values(path)

    assert [row if row is None else row["a"] for row in rows] == values
    assert source.unreadable.count == rows.count(None)
    assert all(example.startswith(f"{path}: row 0: ") for example in source.unreadable.examples)
    assert fault == ""


def test_a_group_of_rows_that_is_broken_costs_that_group(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    pq.write_table(pa.table({"a": range(3000)}), path, row_group_size=1000, compression="zstd", use_dictionary=False)
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(0)
    content = bytearray(path.read_bytes())
    content[chunk.data_page_offset + 5 : chunk.data_page_offset + 300] = bytes(295)
    path.write_bytes(content)

    rows, source, fault = parquet_values(path)

    assert [row["a"] for row in rows] == [*range(1000), *range(2000, 3000)]
    assert source.unreadable.count == 1000
    assert fault.startswith(f"{path}: rows 1000 to 1999: ")


def test_a_column_that_is_named_twice_and_a_file_that_was_cut_are_named(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), path)
    assert parquet_values(path)[2] == f"{path}: names the column a twice"

    path.write_bytes(path.read_bytes()[:-20])
    assert "can't be read as Parquet" in parquet_values(path)[2]


@pytest.mark.parametrize(
    "text",
    [
        "1_000",
        "+1",
        ".5",
        "5.",
        "007",
        "0x10",
        "1e",
        "nan",
        "NaN",
        "inf",
        "-Infinity",
        "١٢",
        "1 2",
        "--1",
        "1,5",
        "",
        "1\n2",
    ],
)
def test_what_is_no_number_in_json_is_no_number_in_a_text(tmp_path: Path, text: str) -> None:
    assert parse_number(text) is None

    if text.isprintable() and text and "," not in text and text.lower() != "nan":
        path = tmp_path / "r.csv"
        path.write_text(f"a,b\n{text},x\n", encoding="utf-8")
        assert read(path)[0] == [orjson.dumps({"a": text, "b": "x"})]


def test_a_text_that_is_a_number_in_json_is_the_same_number() -> None:
    moment = datetime(2026, 3, 1, tzinfo=UTC)
    texts = ["0", "-0", "12", "-1.5", "1e3", " 7 ", "123456789012345678901234567890", str(moment.timestamp())]

    assert [parse_number(text) for text in texts] == [orjson.loads(text) for text in texts]
    assert parse_number("1e999") == float("inf")
    assert io.StringIO(str(parse_number("-1e999"))).read() == "-inf"
