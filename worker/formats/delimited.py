"""Records that are lines of delimited cells, as CSV has them."""

import csv
import io
from typing import Any, ClassVar, Final, Self

from typing_extensions import override

from worker.errors import ErrorCode, RecordError, UsageError
from worker.formats.base import Decoder, FormatOptions, Row
from worker.formats.guess import DELIMITERS, MARK, looks_like

NUMBERED: Final = "column_"
MAX_CELLS = 10_000


class DelimitedDecoder(Decoder):
    """Each value is one line of cells in UTF-8, quoted as in RFC 4180: a text each, null where it is empty.

    Names come from the option `columns`; else from the first of two lines that a value has; else the cells are
    `column_1`, `column_2` and so on. A cell is never made a number here, where one record alone could not tell a code
    such as 01067 from a number: the kind of its field reads it.

    Refused as `invalid_record`: no UTF-8, a quote that never ends, another number of cells than names, the header
    again, several rows in one value.
    """

    is_flat: ClassVar[bool] = True

    _columns: tuple[str, ...] = ()
    _delimiter: str | None = None

    @override
    def configured(self, options: FormatOptions) -> Self:
        self._columns, self._delimiter = options.columns, options.delimiter
        return self

    @override
    def parse(self, value: bytes) -> Row:
        try:
            text = value.removeprefix(MARK).decode()
        except UnicodeDecodeError:
            raise _refused(f"no UTF-8; {looks_like(value)}") from None
        delimiter = self._delimiter or max(DELIMITERS, key=text.count)
        try:
            # Line ends stay in the lines, so that those within quotes are kept.
            rows = [row for row in csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True) if row]
        except csv.Error as error:
            raise _refused(str(error)) from None
        return self._row(rows, value)

    def _row(self, rows: list[list[str]], value: bytes) -> Row:
        names = list(self._columns)
        if not names and len(rows) == 2:
            names, rows = rows[0], rows[1:]
        if len(rows) != 1:
            raise _refused(f"{len(rows)} rows in one value" if rows else f"expected cells; {looks_like(value)}")
        (cells,) = rows
        if cells == names:
            raise _refused("the line with the names of the columns")
        if len(cells) > MAX_CELLS:
            raise _refused(f"{len(cells)} cells, more than {MAX_CELLS}")
        if not names:
            names = [f"{NUMBERED}{number}" for number in range(1, len(cells) + 1)]
        if len(names) != len(cells):
            raise _refused(f"{len(cells)} cells for {len(names)} columns, as [input.columns] has them")
        return {name: cell or None for name, cell in zip(names, cells, strict=True)}

    @override
    def encode(self, row: Row) -> bytes:
        names = self._columns or [f"{NUMBERED}{number}" for number in range(1, len(row) + 1)]
        if row.keys() != set(names):
            raise UsageError("a line of cells has no other fields than its columns")
        line = io.StringIO()
        delimiter = self._delimiter or ","
        csv.writer(line, delimiter=delimiter, lineterminator="").writerow([_cell(row[name]) for name in names])
        return line.getvalue().encode()


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


def _refused(detail: str) -> RecordError:
    return RecordError(ErrorCode.INVALID_RECORD, detail)
