"""History from files of any registered format, one after the other, as one input.

The rows of CSV and Parquet files become JSON records, so that they go the way of every other record. An empty cell, and
NaN in a column of numbers, is null; an infinite number stays one that JSON can't hold (1e999), so that the pipeline
refuses its record.
"""

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import isfinite, isnan
from typing import Any, Self

import orjson
from typing_extensions import override

from worker.errors import DataError, Hint
from worker.features.schema import Schema
from worker.registry import Registry
from worker.sources.base import Block, Meter, Source
from worker.sources.lines import STDIN, file_size, read_lines

BLOCK_ROWS = 8192
INFINITE = orjson.Fragment(b"1e999")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False, "": None}
_GUESSED = {"true": True, "false": False, "": None, "nan": None}


@dataclass(slots=True)
class Columns:
    """What is known of the columns of a source's CSV files.

    numbers    columns that hold numbers; None: each cell that looks like a number or a boolean is one
    booleans   columns that hold booleans
    header     columns of the files read before, empty for the first; a later file may order them anew
    """

    numbers: frozenset[str] | None = None
    booleans: frozenset[str] = frozenset()
    header: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, schema: Schema) -> Self:
        """The columns of a schema's fields."""
        sorts = ("number", "boolean")
        numbers, booleans = (frozenset(entry.name for entry in schema.fields if entry.cell == sort) for sort in sorts)
        return cls(numbers, booleans)

    def cell_reader(self, name: str) -> Callable[[str], Any]:
        """What makes a JSON value of the cells of a column."""
        if self.numbers is None:
            return _guessed
        if name in self.numbers:
            return _number
        if name in self.booleans:
            return lambda cell: _BOOLEANS.get(cell.strip().lower(), cell)
        return lambda cell: cell or None

    def check_header(self, path: str, columns: list[str]) -> None:
        """Takes a file's columns; DataError where one is named twice, or they aren't those of the files before."""
        twice = sorted({name for name in columns if columns.count(name) > 1})
        if twice:
            raise DataError(f"{path}:1: the header names {', '.join(twice)} twice")
        self.header = self.header or columns
        sides = set(self.header) - set(columns), set(columns) - set(self.header)
        if any(sides):
            missing, new = (", ".join(sorted(names)) or "none" for names in sides)
            raise DataError(f"{path}:1: other columns than the file before: missing {missing}, new {new}")


def read_csv(path: str, meter: Meter, columns: Columns) -> Iterator[list[bytes]]:
    """Lists of JSON values, one per row, from a CSV or TSV file with a header line.

    A row with invalid UTF-8 comes out as it is, which is no JSON. Raises DataError with file and line for other
    columns than before, a row of another width, or quotes that never end.
    """
    text = (line for lines in read_lines(path, meter) for line in lines)
    first = next(text, b"").decode("utf-8", "surrogateescape")
    if not first.strip():
        raise DataError(f"{path}:1: no header line")
    delimiter = max(",;\t|", key=first.count)
    (header,) = csv.reader([first], delimiter=delimiter)
    columns.check_header(path, header)
    readers = [columns.cell_reader(name) for name in header]
    later = (line.decode("utf-8", "surrogateescape") + "\n" for line in text)
    rows = csv.reader(later, delimiter=delimiter, strict=True)
    values: list[bytes] = []
    try:
        for cells in rows:
            if not cells or cells == header:  # the header again: files that were put together
                continue
            if len(cells) != len(header):
                raise csv.Error(f"{len(cells)} cells, but the header names {len(header)} columns")  # noqa: TRY301
            values.append(_csv_value(cells, header, readers))
            if len(values) == BLOCK_ROWS:
                yield values
                values = []
    except csv.Error as error:
        yield values
        raise DataError(f"{path}:{rows.line_num + 1}: {error}") from error
    except DataError:
        yield values
        raise
    yield values


def _csv_value(cells: list[str], header: list[str], readers: list[Callable[[str], Any]]) -> bytes:
    row = {name: read(cell) for name, read, cell in zip(header, readers, cells, strict=True)}
    try:
        return orjson.dumps(row)
    except TypeError:  # orjson.JSONEncodeError: bytes that are no UTF-8
        return ",".join(cells).encode("utf-8", "surrogateescape")


def _number(cell: str) -> Any:
    """An int or float; None for an empty cell or NaN; any other text as it is, which the pipeline refuses."""
    try:
        return int(cell)
    except ValueError:
        pass
    try:
        return _json_number(float(cell))
    except ValueError:
        return cell.strip() or None


def _guessed(cell: str) -> Any:
    digits = cell.lstrip("-")
    if not digits[:1].isdigit() or (digits[0] == "0" and digits[1:2].isdigit()):  # 007 names something
        return _GUESSED.get(cell.lower(), cell)
    return _number(cell)


def _json_number(value: float) -> Any:
    return value if isfinite(value) else None if isnan(value) else INFINITE


def read_parquet(path: str, meter: Meter) -> Iterator[list[bytes]]:
    """Lists of JSON values, one per row, from a Parquet file: structs as objects, lists as arrays, times as ISO 8601.

    Raises DataError for a broken file and for columns that JSON can't hold, with file and row.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise DataError("reading Parquet needs pyarrow", hint=Hint.INSTALL_REPLAY) from error
    row, size = 0, file_size(path)
    try:
        with pq.ParquetFile(path) as file:
            total = max(1, file.metadata.num_rows)
            names = file.schema_arrow.names
            for batch in file.iter_batches(batch_size=BLOCK_ROWS):
                rows = zip(*map(_parquet_column, batch.columns), strict=True)
                values = [orjson.dumps(dict(zip(names, cells, strict=True)), default=_plain) for cells in rows]
                meter.done += size * len(values) // total
                row += len(values)
                yield values
    except (pa.ArrowException, OSError, TypeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: row {row} or after: {error}") from error


def _parquet_column(column: Any) -> list[Any]:
    import pyarrow as pa

    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        column = column.cast(pa.timestamp("us", tz=column.type.tz), safe=False)
    values: list[Any] = column.to_pylist()
    if pa.types.is_floating(column.type):
        return [value if value is None else _json_number(value) for value in values]
    return values


def _plain(value: Any) -> Any:
    """Values that orjson doesn't know: decimals, durations, binary text."""
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return value.total_seconds() if hasattr(value, "total_seconds") else float(value)


@dataclass(frozen=True, slots=True)
class FileFormat:
    """How the records of one sort of file are read.

    read            lists of values of one file, a value for each record, in order; adds what it has read to the meter.
                    DataError, with file and line, where the file is broken, after all whole records before that point
    suffixes        ends of the names that tell it, without .gz and .zst
    record_format   the record format of the values; None: the one of the settings
    """

    read: Callable[[str, Meter, Columns], Iterator[list[bytes]]]
    suffixes: tuple[str, ...]
    record_format: str | None = None


FORMATS: Registry[FileFormat] = Registry("file format")
FORMATS.register("jsonl", FileFormat(lambda path, meter, _: read_lines(path, meter), ("jsonl",)))
FORMATS.register("csv", FileFormat(read_csv, ("csv", "tsv"), "json"))
FORMATS.register("parquet", FileFormat(lambda path, meter, _: read_parquet(path, meter), ("parquet", "pq"), "json"))


def format_of(path: str) -> str:
    """The format that a file's name tells, packed or not; lines where it tells nothing."""
    suffix = path.lower().removesuffix(".gz").removesuffix(".zst").rpartition(".")[2]
    return next((name for name in FORMATS if suffix in FORMATS[name].suffixes), "jsonl")


class Files(Source):
    """The records of files in the order given. All are looked up before the first one is read.

    paths    files, packed or not; - is standard input
    schema   tells which cells of a CSV file are numbers and booleans; None: those that look like it
    format   one of FORMATS for all files; None: what each name tells

    Raises DataError (on creation) where a file is missing, and after the last block where none held a record.
    """

    def __init__(self, paths: Sequence[str], *, schema: Schema | None = None, format: str | None = None) -> None:  # noqa: A002
        self.name = ", ".join("standard input" if path == STDIN else path for path in paths)
        self.meter = Meter(total=sum(map(file_size, paths)))
        self.empty: list[str] = []
        self._columns = Columns() if schema is None else Columns.of(schema)
        self._files = [(path, FORMATS[format or format_of(path)]) for path in paths]
        formats = {file_format.record_format for _, file_format in self._files} - {None}
        self.record_format = next(iter(formats), None)

    @override
    def blocks(self) -> Iterator[Block]:
        for path, file_format in self._files:
            any_record = False
            for values in file_format.read(path, self.meter, self._columns):
                any_record = any_record or any(values)
                yield Block(values)
            if not any_record:
                self.empty.append(path)
        if len(self.empty) == len(self._files):
            raise DataError(f"{', '.join(self.empty)}: no records")
