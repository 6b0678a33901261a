"""CSV and Parquet files as JSON records, one a row, so that they go the way of every other record.

An empty cell, and NaN in a column of numbers, is null.
"""

import csv
from collections.abc import Callable, Iterator
from math import isfinite
from typing import Any

import orjson

from worker.errors import DataError
from worker.sources.lines import Meter, file_size, read_lines

ROWS = 8192
Cell = Callable[[str], Any]


def read_csv(
    path: str, meter: Meter, *, numbers: frozenset[str] | None, booleans: frozenset[str], header: list[str]
) -> Iterator[list[bytes]]:
    """Lists of JSON values, one per row, from a CSV or TSV file with a header line.

    numbers: columns to read as numbers; None reads every cell as a number that looks like one.
    header: the columns of the files before this one, empty for the first; filled here. A file may order them anew.
    A row with invalid UTF-8 comes out as it is, which is no JSON. Raises DataError with file and line for other
    columns than before, a row of another width, or quotes that never end.
    """
    rows, columns = _csv_rows(path, meter)
    _check_header(path, columns, header)
    readers = [_cell_reader(name, numbers, booleans) for name in columns]
    values: list[bytes] = []
    fault: DataError | None = None
    try:
        for line, cells in rows:
            if cells == columns:  # the header again: files that were put together
                continue
            _check_width(path, line, cells, columns)
            values.append(_csv_value(cells, columns, readers))
            if len(values) == ROWS:
                yield values
                values = []
    except DataError as error:
        fault = error
    if values:
        yield values
    if fault is not None:
        raise fault


def _csv_rows(path: str, meter: Meter) -> tuple[Iterator[tuple[int, list[str]]], list[str]]:
    """The rows, each with the line that it ends on, and the header."""
    text = (line for _, lines in read_lines(path, meter) for line in lines)
    first = next(text, b"").decode("utf-8", "surrogateescape")
    if not first.strip():
        raise DataError(f"{path}:1: no header line")
    delimiter = max(",;\t|", key=first.count)
    later = (line.decode("utf-8", "surrogateescape") + "\n" for line in text)
    (columns,) = csv.reader([first], delimiter=delimiter)
    reader = csv.reader(later, delimiter=delimiter, strict=True)

    def rows() -> Iterator[tuple[int, list[str]]]:
        try:
            for cells in reader:
                if cells:
                    yield reader.line_num + 1, cells
        except csv.Error as error:
            raise DataError(f"{path}:{reader.line_num + 1}: {error}") from error

    return rows(), columns


def _check_header(path: str, columns: list[str], header: list[str]) -> None:
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise DataError(f"{path}:1: the header names {', '.join(twice)} twice")
    if not header:
        header.extend(columns)
    elif set(header) != set(columns):
        missing, new = sorted(set(header) - set(columns)), sorted(set(columns) - set(header))
        raise DataError(
            f"{path}:1: other columns than the file before: missing {', '.join(missing) or 'none'}, "
            f"new {', '.join(new) or 'none'}"
        )


def _check_width(path: str, line: int, cells: list[str], columns: list[str]) -> None:
    if len(cells) != len(columns):
        raise DataError(f"{path}:{line}: {len(cells)} cells, but the header names {len(columns)} columns")


def _cell_reader(name: str, numbers: frozenset[str] | None, booleans: frozenset[str]) -> Cell:
    if numbers is None:
        return _guess
    if name in numbers:
        return _number
    return _boolean if name in booleans else _text


def _text(cell: str) -> str | None:
    return cell or None


def _number(cell: str) -> Any:
    """An int or float; None for an empty cell or NaN; any other text as it is, which the pipeline refuses."""
    try:
        return int(cell)
    except ValueError:
        pass
    try:
        number = float(cell)
    except ValueError:
        return cell.strip() or None
    if isfinite(number):
        return number
    return None if number != number else orjson.Fragment(b"1e999")  # noqa: PLR0124  only NaN differs from itself


def _boolean(cell: str) -> bool | str | None:
    return {"true": True, "false": False, "1": True, "0": False, "": None}.get(cell.strip().lower(), cell)


def _guess(cell: str) -> Any:
    digits = cell.lstrip("-")
    if not cell or (digits[:1] == "0" and digits[1:2].isdigit()) or not digits[:1].isdigit():
        return {"true": True, "false": False, "": None, "nan": None}.get(cell.lower(), cell)  # a leading 0 is a code
    return _number(cell)


def _csv_value(cells: list[str], columns: list[str], readers: list[Cell]) -> bytes:
    row = {name: read(cell) for name, read, cell in zip(columns, readers, cells, strict=True)}
    try:
        return orjson.dumps(row)
    except TypeError:  # orjson.JSONEncodeError: bytes that are no UTF-8
        return ",".join(cells).encode("utf-8", "surrogateescape")


def read_parquet(path: str, meter: Meter) -> Iterator[list[bytes]]:
    """Lists of JSON values, one per row, from a Parquet file: structs as objects, lists as arrays, times as ISO 8601.

    Raises DataError for a broken file and for columns that JSON can't hold, with file and row.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise DataError("reading Parquet needs pyarrow: pip install kafka-anomaly-worker[replay]") from error
    row, size = 0, file_size(path)
    try:
        with pq.ParquetFile(path) as file:
            total = max(1, file.metadata.num_rows)
            names = file.schema_arrow.names
            for batch in file.iter_batches(batch_size=ROWS):
                columns = [_parquet_column(column) for column in batch.columns]
                rows = zip(*columns, strict=True)
                values = [orjson.dumps(dict(zip(names, cells, strict=True)), default=_plain) for cells in rows]
                meter.done += size * len(values) // total
                row += len(values)
                yield values
    except (pa.ArrowException, OSError, TypeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: row {row} or after: {error}") from error


def _parquet_column(column: Any) -> list[Any]:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        column = column.cast(pa.timestamp("us", tz=kind.tz), safe=False)
    values: list[Any] = column.to_pylist()
    if pa.types.is_floating(kind):
        return [value if value is None or isfinite(value) else _not_finite(value) for value in values]
    return values


def _not_finite(value: float) -> Any:
    return None if value != value else orjson.Fragment(b"1e999")  # noqa: PLR0124  only NaN differs from itself


def _plain(value: Any) -> Any:
    """Values that orjson doesn't know: decimals, durations, binary text."""
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if hasattr(value, "total_seconds"):
        return value.total_seconds()
    return float(value)
