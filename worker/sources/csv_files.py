"""CSV and TSV files, with a header line or with names that somebody gives, as JSON records.

An empty cell, and NaN in a column of numbers, is null; an infinite number stays one that JSON can't hold (1e999), so
that the pipeline refuses its record. What looks like a number is one by the grammar of JSON.
"""

import csv
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from math import isfinite
from typing import Any, Self

import orjson

from worker.errors import DataError
from worker.features.schema import Schema
from worker.sources.lines import BLOCK_BYTES, Reading, read_lines
from worker.texts import parse_number, quoted

BLOCK_ROWS = 8192
SAMPLE_BYTES = 16 << 20  # of the first rows, which tell what the columns hold
MAX_ROW_LINES = 4096  # of a row whose quoted cells hold line ends: a quote that never ends must not take the whole file
INFINITE = orjson.Fragment(b"1e999")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False, "": None}
_NO_NUMBER = {"", "nan"}
_NUMBER_STARTS = frozenset("-0123456789")
_GUESSED_KINDS = ({"number"}, {"boolean"})
_GUESSED = {"true": True, "false": False, "": None, "nan": None}


@dataclass(slots=True)
class Columns:
    """What is known of the columns of a source's CSV files.

    numbers    columns that hold numbers; None: those of which every cell of the first rows is one, for 01067 is a text
    booleans   columns that hold booleans
    header     columns of the files read before, empty for the first; a later file may order them anew
    names      of the columns of files without a header line; one that has these names itself is read by it
    delimiter  what stands between two cells; None: whichever of , ; | and tab a file's first line has more of
    """

    numbers: frozenset[str] | None = None
    booleans: frozenset[str] = frozenset()
    header: list[str] = field(default_factory=list)
    names: Sequence[str] = ()
    delimiter: str | None = None
    _guessed: frozenset[str] | None = None  # columns of numbers or of booleans, where nobody says what they hold

    @classmethod
    def of(cls, schema: Schema | None, names: Sequence[str] = (), delimiter: str | None = None) -> Self:
        """The columns of a schema's fields, where one is known."""
        if schema is None:
            return cls(names=names, delimiter=delimiter)
        sorts = ("number", "boolean")
        numbers, booleans = (
            frozenset(entry.name for entry in schema.fields if entry.cell_sort() == sort) for sort in sorts
        )
        return cls(numbers, booleans, names=names, delimiter=delimiter)

    def cell_reader(self, name: str) -> Callable[[str], Any]:
        """What makes a JSON value of the cells of a column."""
        if name in (self._guessed or ()):
            return _guessed
        if name in (self.numbers or ()):
            return _number
        if name in self.booleans:
            return lambda cell: _BOOLEANS.get(cell.strip().lower(), cell)
        return lambda cell: cell or None

    def guess(self, names: list[str], rows: list[list[str]]) -> None:
        """Takes the first rows of a file, where it is not known yet what its columns hold: each has one type."""
        if self.numbers is not None or self._guessed is not None:
            return
        kinds = [{_cell_kind(cell) for cell in column} - {""} for column in zip(*rows, strict=True)]
        self._guessed = frozenset(name for name, held in zip(names, kinds, strict=False) if held in _GUESSED_KINDS)

    def check_header(self, path: str, columns: list[str]) -> None:
        """Takes a file's columns; DataError where one is named twice, or they aren't those of the files before."""
        twice = sorted(name for name, count in Counter(columns).items() if count > 1)
        if twice:
            advice = "where it is a record, [input.columns] has the names"
            raise DataError(f"{path}:1: the header names {_listed(twice)} twice; {advice}")
        self.header = self.header or columns
        sides = set(self.header) - set(columns), set(columns) - set(self.header)
        if any(sides):
            missing, new = (_listed(sorted(names)) or "none" for names in sides)
            raise DataError(f"{path}:1: other columns than the file before: missing {missing}, new {new}")


def _listed(names: list[str]) -> str:
    return quoted(", ".join(name or "a column without a name" for name in names[:100]), 300)


class _RowLines:
    """The lines of a file for a csv.reader, and those that the row it reads has taken so far.

    A row that turns out to be no row costs its first line only: the others are read again, each as the first of a row.

    fault   why the file ended early, where it did
    """

    def __init__(self, lines: Iterator[bytes | None], max_bytes: int) -> None:
        self.taken: list[bytes | None] = []
        self.fault: DataError | None = None
        self._lines = lines
        self._again: deque[bytes | None] = deque()
        self._max_bytes = max_bytes
        self._size = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            line = self._again.popleft() if self._again else next(self._lines)
        except DataError as error:
            self.fault = error
            raise StopIteration from None
        self.taken.append(line)
        if line is None:
            raise csv.Error("a quote that never ends")
        self._size += len(line)
        if len(self.taken) > 1 and (self._size > self._max_bytes or len(self.taken) > MAX_ROW_LINES):
            raise csv.Error("a quote that never ends")
        return line.decode("utf-8", "surrogateescape") + "\n"

    def begin_row(self) -> None:
        """The next line is the first of a row."""
        self.taken.clear()
        self._size = 0

    def give_back(self) -> None:
        """All lines of the row but the first are read again."""
        self._again.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]


def read_csv(path: str, reading: Reading, columns: Columns) -> Iterator[list[bytes | None]]:
    """Lists of JSON values, one per row, from a CSV or TSV file; None for a row of another width, with a quote that
    never ends, or beyond the limit.

    A row with invalid UTF-8 comes out as it is, which is no JSON. Raises DataError with file and line for other
    columns than before, and what `read_lines` raises.
    """
    text: Iterator[bytes | None] = (line for lines in read_lines(path, reading) for line in lines)
    first = next(text, b"")
    header, delimiter = _header(path, first, columns.delimiter)
    has_header = not columns.names or set(header) == set(columns.names)
    if not has_header:
        header, text = list(columns.names), chain([first], text)
    columns.check_header(path, header)
    lines = _RowLines(text, reading.max_line_bytes)
    rows = _rows(path, lines, header, delimiter, reading, 2 if has_header else 1)
    sample, size = list[list[str] | None](), 0
    for cells in islice(rows, BLOCK_ROWS):
        sample.append(cells)
        size += sum(map(len, cells or ()))
        if size >= SAMPLE_BYTES:
            break
    columns.guess(header, [cells for cells in sample if cells is not None])
    readers = [columns.cell_reader(name) for name in header]
    size, values = 0, list[bytes | None]()
    for cells in chain(sample, rows):
        values.append(None if cells is None else _csv_value(cells, header, readers))
        size += len(values[-1] or b"")
        if size >= BLOCK_BYTES or len(values) == BLOCK_ROWS:
            yield values
            size, values = 0, []
    yield values
    if lines.fault is not None:
        raise lines.fault


def _rows(
    path: str, lines: _RowLines, header: list[str], delimiter: str, reading: Reading, number: int
) -> Iterator[list[str] | None]:
    """The cells of each row, the first of which is in the line of this number; None where it could not be read."""
    csv.field_size_limit(reading.max_line_bytes)  # of the process: nothing else in it reads CSV
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        number += len(lines.taken)
        lines.begin_row()
        try:
            cells = next(rows, None)
            if cells is None:
                return
            if not cells or cells == header:  # the header again: files that were put together
                continue
            if len(cells) != len(header):
                raise csv.Error(f"{len(cells)} cells, but the header names {len(header)} columns")  # noqa: TRY301
            yield cells
        except csv.Error as error:
            lines.give_back()
            if lines.taken[0] is not None:  # else it was counted where it was found too long
                reading.unreadable.add(f"{path}:{number}: {error}")
            yield None


def _header(path: str, line: bytes | None, delimiter: str | None) -> tuple[list[str], str]:
    """The names of the columns, and what stands between them; DataError where the first line has none."""
    first = b"" if line is None else line
    text = first.decode("utf-8", "replace")
    if not text.strip():
        raise DataError(f"{path}:1: no header line" if line is not None else f"{path}:1: the header line is too long")
    delimiter = delimiter or max(",;\t|", key=text.count)
    try:
        (header,) = csv.reader([text], delimiter=delimiter)
    except (csv.Error, ValueError) as error:
        raise DataError(f"{path}:1: no header line: {error}") from error
    return header, delimiter


def _csv_value(cells: list[str], header: list[str], readers: list[Callable[[str], Any]]) -> bytes:
    row = {name: read(cell) for name, read, cell in zip(header, readers, cells, strict=True)}
    try:
        return orjson.dumps(row)
    except TypeError:  # orjson.JSONEncodeError: bytes that are no UTF-8
        return ",".join(cells).encode("utf-8", "surrogateescape")


def _number(cell: str) -> Any:
    """The number; None for an empty cell or NaN; any other text as it is, which the pipeline refuses."""
    number = parse_number(cell)
    if number is None:
        text = cell.strip()
        return None if text.lower() in _NO_NUMBER else text
    return number if isfinite(number) else INFINITE


def _cell_kind(cell: str) -> str:
    """What a cell looks like: number, boolean, text, or nothing."""
    if cell[:1] in _NUMBER_STARTS and parse_number(cell) is not None:
        return "number"
    known = cell.lower()
    return "text" if known not in _GUESSED else "" if _GUESSED[known] is None else "boolean"


def _guessed(cell: str) -> Any:
    number = parse_number(cell) if cell[:1] in _NUMBER_STARTS else None  # a space before it: a text
    if number is None:
        return _GUESSED.get(cell.lower(), cell)
    return number if isfinite(number) else INFINITE
