"""Parquet files as JSON records: structs as objects, lists as arrays, times as ISO 8601, other bytes as base64.

The size of a Parquet file says little: one page of 200 bytes can unpack to gigabytes, 8,000 rows can share one value of
a megabyte. So the headers of the pages are asked first what they unpack to, dictionaries stay dictionaries until a few
rows at a time become JSON, and how many those are follows from the bytes that they will take.
"""

from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import isfinite, isnan
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from worker.errors import DataError, Hint
from worker.sources.csv_files import BLOCK_ROWS, INFINITE
from worker.sources.lines import BLOCK_BYTES, STDIN, Reading, file_size
from worker.sources.parquet_pages import require_pages
from worker.texts import quoted

READ_AHEAD_BYTES = 32 * BLOCK_BYTES  # decoded at once
VALUE_BYTES = 48  # of a Python number with its place in a row
DELTA_ROWS = 32  # decoded at once where values share their beginnings: how long they are shows only then


def read_parquet(path: str, reading: Reading) -> Iterator[list[bytes | None]]:
    """Lists of JSON values, one per row; None for a row that JSON can't hold, or beyond the limit.

    Raises DataError for a file that is no Parquet or names a column twice, and at the end where groups of rows were
    left out because they are broken or unpack to too much.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise DataError("reading Parquet needs pyarrow", hint=Hint.INSTALL_REPLAY) from error
    if path == STDIN or not Path(path).is_file():
        raise DataError(f"{path}: Parquet is read from a file, not from standard input or a pipe")
    broken = (pa.ArrowException, OSError, ValueError, KeyError, IndexError, MemoryError, RecursionError)
    size, row, faults = file_size(path), 0, list[str]()
    try:
        with pq.ParquetFile(path) as file:
            names = Counter(file.schema_arrow.names)
            kept, total = _kept_as_dictionaries(file), max(1, file.metadata.num_rows)
        file = pq.ParquetFile(path, read_dictionary=kept, buffer_size=1 << 16)
    except broken as error:
        raise DataError(f"{path}: can't be read as Parquet: {quoted(error)}") from error
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise DataError(f"{path}: names the column {quoted(', '.join(twice[:10]))} twice")
    with file, Path(path).open("rb") as stream:
        for number in range(file.num_row_groups):
            end = row + file.metadata.row_group(number).num_rows
            try:
                group = file.metadata.row_group(number)
                require_pages(stream.fileno(), group)
                for batch in file.iter_batches(_rows_at_once(file, group), row_groups=[number]):
                    for values in _json_values(batch, f"{path}: row", row, reading):
                        row += len(values)
                        reading.meter.done += size * len(values) // total
                        yield values
            except broken as error:
                faults.append(f"{path}: rows {row} to {end - 1}: {quoted(error)}")
                reading.unreadable.add(f"{path}: rows {row} to {end - 1}: {error}", end - row)
                row = end
    if faults:
        raise DataError(faults[0] + (f" (and {len(faults) - 1} more such places)" if len(faults) > 1 else ""))


def _kept_as_dictionaries(file: Any) -> list[str]:
    """The columns whose values stand once in a dictionary, by their paths."""
    texts = [at for at in range(len(file.schema)) if file.schema.column(at).physical_type == "BYTE_ARRAY"]
    kept = []
    for at in texts:
        chunks = [file.metadata.row_group(number).column(at) for number in range(file.num_row_groups)]
        # Arrow can't make dictionaries of values that share their beginnings.
        if any(chunk.has_dictionary_page for chunk in chunks) and not any(map(_is_delta, chunks)):
            kept.append(file.schema.column(at).path)
    return kept


def _is_delta(chunk: Any) -> bool:
    return "DELTA_BYTE_ARRAY" in chunk.encodings


def _rows_at_once(file: Any, group: Any) -> int:
    """How many rows of a group are decoded at once, by what its columns say of their values."""
    expected = 0
    for at in range(group.num_columns):
        chunk = group.column(at)
        if _is_delta(chunk):
            return DELTA_ROWS
        width = file.schema.column(at).length if chunk.physical_type == "FIXED_LEN_BYTE_ARRAY" else 0
        expected += max(chunk.total_uncompressed_size, chunk.num_values * (VALUE_BYTES + width))
    return max(1, min(BLOCK_ROWS, READ_AHEAD_BYTES * int(group.num_rows) // max(1, int(expected))))


def _json_values(batch: Any, place: str, row: int, reading: Reading) -> Iterator[list[bytes | None]]:
    """The rows of a batch in lists of about BLOCK_BYTES; row: the number of the first."""
    sizes = sum((_row_bytes(column) for column in batch.columns), np.zeros(batch.num_rows, np.int64))
    begins = np.flatnonzero(np.diff(np.cumsum(sizes) // BLOCK_BYTES, prepend=-1))  # a new piece with each megabyte
    large = np.flatnonzero(sizes > reading.max_line_bytes)
    borders = np.unique(np.concatenate([begins, large, large + 1, [0, batch.num_rows]]))
    for start, end in pairwise(borders.tolist()):
        if sizes[start] > reading.max_line_bytes:
            reading.unreadable.add(f"{place} {row + start}: a row of more than {reading.max_line_bytes:,} bytes")
            yield [None]
        else:
            piece = batch.slice(start, end - start)
            yield _converted(piece.schema.names, piece.columns, place, row + start, reading)


def _converted(names: list[str], columns: list[Any], place: str, row: int, reading: Reading) -> list[bytes | None]:
    import pyarrow as pa

    count = len(columns[0])
    try:
        rows = zip(*map(_python_values, columns), strict=True)
        return [orjson.dumps(dict(zip(names, cells, strict=True)), default=_plain) for cells in rows]
    except (pa.ArrowException, ValueError, OverflowError, TypeError, KeyError) as error:
        if count == 1:
            reading.unreadable.add(f"{place} {row}: {error}")
            return [None]
    half = count // 2  # one row that JSON can't hold costs its neighbours nothing
    first, second = [column[:half] for column in columns], [column[half:] for column in columns]
    return [
        *_converted(names, first, place, row, reading),
        *_converted(names, second, place, row + half, reading),
    ]


def _row_bytes(column: Any) -> Any:
    """About how many bytes each row of a column will take in Python or as JSON, int64 (B,)."""
    import pyarrow.compute as pc
    from pyarrow import types

    kind, count = column.type, len(column)
    if types.is_dictionary(kind):
        if not len(column.dictionary):
            return np.full(count, VALUE_BYTES)
        return _row_bytes(column.dictionary)[column.indices.fill_null(0).to_numpy(zero_copy_only=False)]
    if types.is_struct(kind):
        return sum(map(_row_bytes, column.flatten()), np.full(count, VALUE_BYTES))
    if types.is_map(kind):
        offsets = column.offsets.to_numpy()
        passed = np.concatenate([[0], np.cumsum(_row_bytes(column.keys) + _row_bytes(column.items))])
        return passed[offsets[1:]] - passed[offsets[:-1]] + VALUE_BYTES
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        ends, passed = np.cumsum(lengths), np.concatenate([[0], np.cumsum(_row_bytes(column.flatten()))])
        return passed[ends] - passed[ends - lengths] + VALUE_BYTES
    if hasattr(column, "storage"):  # a type of somebody's own
        return _row_bytes(column.storage)
    try:
        return pc.binary_length(column).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64) + VALUE_BYTES
    except NotImplementedError:  # of no text: all its values are of one size
        return np.full(count, VALUE_BYTES)


def _python_values(column: Any) -> Sequence[Any]:
    """The values of a column, None where missing, as what JSON is made of; times in whole microseconds."""
    import pyarrow as pa
    from pyarrow import types

    kind = column.type
    if types.is_dictionary(kind):
        return _python_values(column.dictionary_decode())
    if types.is_struct(kind):
        names, parts = [child.name for child in kind], map(_python_values, column.flatten())
        rows = [dict(zip(names, cells, strict=True)) for cells in zip(*parts, strict=True)] or [{}] * len(column)
        return [row if valid else None for row, valid in zip(rows, column.is_valid().to_pylist(), strict=True)]
    if types.is_list(kind) or types.is_large_list(kind):
        items, at, lists = _python_values(column.flatten()), 0, list[Any]()
        for length in column.value_lengths().to_pylist():
            lists.append(None if length is None else items[at : at + length])
            at += length or 0
        return lists
    if types.is_timestamp(kind) and kind.unit == "ns":
        column = column.cast(pa.timestamp("us", tz=kind.tz), safe=False)
    elif types.is_time64(kind) or types.is_duration(kind):
        column = column.cast(pa.time64("us") if types.is_time64(kind) else pa.duration("us"), safe=False)
    if types.is_timestamp(kind) and kind.tz is not None:
        try:
            return column.to_pylist()  # type: ignore[no-any-return]
        except (pa.ArrowException, KeyError):  # a zone that nobody knows here: the moment is the same in another one
            column = column.cast(pa.timestamp(column.type.unit, tz="UTC"))
    values: list[Any] = column.to_pylist()
    if types.is_floating(kind):
        return [value if value is None else _json_number(float(value)) for value in values]
    return values


def _json_number(value: float) -> Any:
    return value if isfinite(value) else None if isnan(value) else INFINITE


def _plain(value: Any) -> Any:
    """Values that orjson doesn't know: decimals, durations, bytes."""
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return b64encode(value).decode()
    return value.total_seconds() if hasattr(value, "total_seconds") else _json_number(float(value))
