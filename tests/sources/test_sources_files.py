"""Files as one source of history, whatever their formats; a new format is one registration."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from worker.errors import DataError
from worker.features.schema import parse_schema
from worker.sources.base import messages_of
from worker.sources.csv_files import Columns
from worker.sources.files import FORMATS, FileFormat, Files, format_of
from worker.sources.lines import Reading

ROWS = [{"amount": 1.5, "zip": "01234"}, {"amount": 2.0, "zip": "5"}]


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    """The same rows in each format, some of them packed."""
    text = b"amount;zip\n1.5;01234\n2.0;5\n"
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"\n".join(map(orjson.dumps, ROWS)) + b"\n", mtime=0))
    (tmp_path / "b.CSV").write_bytes(text)
    (tmp_path / "c.tsv.zst").write_bytes(zstandard.ZstdCompressor().compress(text.replace(b";", b"\t")))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "d.pq")
    return sorted(map(str, tmp_path.iterdir()))


def rows_of(source: Files) -> list[object]:
    return [orjson.loads(message.value or b"") for batch in messages_of(source) for message in batch]


def test_files_of_all_formats_are_one_input_in_the_order_given(paths: list[str]) -> None:
    schema = parse_schema('[fields.amount]\nkind = "numeric"\n[fields.zip]\nkind = "categorical"\n')
    source = Files(paths, schema=schema)

    assert rows_of(source) == ROWS * 4
    assert source.name == ", ".join(paths)
    assert source.meter.done == source.meter.total == sum(Path(path).stat().st_size for path in paths)


@pytest.mark.parametrize(
    ("name", "file_format"),
    [
        ("a.jsonl", "jsonl"),
        ("a", "jsonl"),
        ("-", "jsonl"),
        ("A.TSV.GZ", "csv"),
        ("a.csv.zst", "csv"),
        ("a.pq", "parquet"),
    ],
)
def test_a_name_tells_the_format(name: str, file_format: str) -> None:
    assert format_of(name) == file_format


def test_a_format_that_is_named_counts_for_every_file(tmp_path: Path) -> None:
    path = tmp_path / "records.txt"
    path.write_text("a,b\n1,x\n")

    assert rows_of(Files([str(path)], format="csv")) == [{"a": 1, "b": "x"}]


def test_a_new_format_is_one_registration(tmp_path: Path) -> None:
    def read(path: str, reading: Reading, columns: Columns) -> Iterator[list[bytes | None]]:
        del columns
        reading.meter.done += Path(path).stat().st_size
        yield [orjson.dumps({"word": word}) for word in Path(path).read_text().split()]

    path = tmp_path / "r.words"
    path.write_text("one two")
    FORMATS.register("words", FileFormat(read, ("words",), "json"))
    try:
        source = Files([str(path)])
    finally:
        FORMATS.pop("words")

    assert rows_of(source) == [{"word": "one"}, {"word": "two"}]
    assert source.record_format == "json"


def test_rows_of_tables_are_json_and_lines_have_the_format_of_the_settings(paths: list[str]) -> None:
    assert Files(paths[1:]).record_format == "json"
    assert Files(paths[:1]).record_format is None


def test_messages_of_files_have_their_row_as_offset_and_no_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"{}\n\n \n[]\n")

    (batch,) = messages_of(Files([str(path)]))

    assert [(message.offset, message.value) for message in batch] == [(0, b"{}"), (3, b"[]")]


def test_a_file_without_records_is_noted_and_an_error_where_all_are(tmp_path: Path, paths: list[str]) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    source = Files([str(empty), paths[0]])

    assert rows_of(source) == ROWS
    assert source.empty == [str(empty)]
    with pytest.raises(DataError, match=r"empty\.jsonl: no records"):
        rows_of(Files([str(empty)]))
