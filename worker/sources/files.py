"""History from files of any registered format, one after the other, as one input.

The rows of CSV and Parquet files become JSON records, so that they go the way of every other record.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from typing_extensions import override

from worker.errors import DataError
from worker.features.schema import Schema
from worker.registry import Registry
from worker.sources.base import Block, Meter, Source
from worker.sources.csv_files import Columns, read_csv
from worker.sources.history import History, fingerprint
from worker.sources.json_values import begins_values, split_values
from worker.sources.lines import MAX_LINE_BYTES, STDIN, Reading, file_size, read_bytes, split_lines
from worker.sources.parquet_files import read_parquet

PARQUET = b"PAR1"  # at both ends of a file
LINES = ("jsonl", "ndjson", "json", "log", "txt")


def read_values(path: str, reading: Reading) -> Iterator[list[bytes | None]]:
    """The lines of a file; of one that is a JSON array, or whose objects take several lines each, its values.

    Raises what `split_lines` and `split_values` raise.
    """
    pieces = read_bytes(path, reading.meter)
    first = next(pieces, b"")
    split = split_values if isinstance(first, bytes) and begins_values(first) else split_lines
    yield from split(path, chain([first], pieces), reading)


@dataclass(frozen=True, slots=True)
class FileFormat:
    """How the records of one sort of file are read.

    read            lists of values of one file, a value for each record, in order, None for one that could not be read;
                    adds to the reading what it has read and left out. DataError, with file and line, after all that
                    could be read, where more than single records could not
    suffixes        ends of the names that tell it, without .gz and .zst
    record_format   the record format of the values; None: the one of the settings
    """

    read: Callable[[str, Reading, Columns], Iterator[list[bytes | None]]]
    suffixes: tuple[str, ...]
    record_format: str | None = None


FORMATS: Registry[FileFormat] = Registry("file format")
FORMATS.register("jsonl", FileFormat(lambda path, reading, _: read_values(path, reading), LINES))
FORMATS.register("csv", FileFormat(read_csv, ("csv", "tsv"), "json"))
FORMATS.register("parquet", FileFormat(lambda path, reading, _: read_parquet(path, reading), ("parquet", "pq"), "json"))


def name_suffix(path: str) -> str:
    """What a name ends in, without .gz and .zst: `csv` of `a.csv.gz`."""
    return path.lower().removesuffix(".gz").removesuffix(".zst").rpartition(".")[2]


def format_of(path: str) -> str:
    """The format of a file: Parquet where its first bytes are, else what its name tells, packed or not; lines where
    that tells nothing, or where it tells of a table and the file begins like a JSON object.
    """
    suffix = name_suffix(path)
    named = next((name for name in FORMATS if suffix in FORMATS[name].suffixes), "jsonl")
    if path == STDIN or not Path(path).is_file():
        return named
    try:
        with Path(path).open("rb") as stream:
            head = stream.read(64)
    except OSError:
        return named  # whoever reads it says why it can't be read
    if head.startswith(PARQUET):
        return "parquet"
    is_object = head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")
    return "jsonl" if named == "parquet" or (is_object and named == "csv") else named


def _name_of(path: str) -> str:
    return "standard input" if path == STDIN else path


class Files(Source):
    """The records of files in the order given. All are looked up before the first one is read.

    paths            files, packed or not; - is standard input
    schema           tells which cells of a CSV file are numbers and booleans; None: those that look like it
    format           one of FORMATS for all files; None: what each file's first bytes and name tell
    max_line_bytes   a longer line or row is left out
    columns          names of the columns of CSV files without a header line
    delimiter        what stands between two cells of CSV files; None: what the first line of each has more of

    Raises DataError (on creation) where a file is missing, and after the last block where one was broken, or none held
    a record. A broken file doesn't keep the ones after it from being read.
    """

    def __init__(
        self,
        paths: Sequence[str],
        *,
        schema: Schema | None = None,
        format: str | None = None,  # noqa: A002
        max_line_bytes: int = MAX_LINE_BYTES,
        columns: Sequence[str] = (),
        delimiter: str | None = None,
    ) -> None:
        self.name = ", ".join(map(_name_of, paths))
        self._reading = Reading(Meter(total=sum(map(file_size, paths))), max_line_bytes=max_line_bytes)
        self.meter, self.unreadable = self._reading.meter, self._reading.unreadable
        self.empty: list[str] = []
        self._fingerprints: list[str] = []
        self._columns = Columns.of(schema, columns, delimiter)
        self._files = [(path, FORMATS[format or format_of(path)]) for path in paths]
        formats = {file_format.record_format for _, file_format in self._files} - {None}
        self.record_format = next(iter(formats), None)

    @override
    def history(self) -> History:
        return History(files=tuple(self._fingerprints))

    @override
    def blocks(self) -> Iterator[Block]:
        faults: list[DataError] = []
        for path, file_format in self._files:
            self._fingerprints += filter(None, [fingerprint(path) if path != STDIN else None])
            any_record, known_faults = False, len(faults)
            try:
                for values in file_format.read(path, self._reading, self._columns):
                    any_record = any_record or any(values)
                    yield Block(values)
            except DataError as error:
                faults.append(error)
            if not any_record and len(faults) == known_faults:
                self.empty.append(_name_of(path))
        if faults:
            more = f" (and {len(faults) - 1} more of the files)" if len(faults) > 1 else ""
            raise DataError(f"{faults[0]}{more}", hint=faults[0].hint)
        if len(self.empty) == len(self._files):
            left_out = f" that could be read: {self.unreadable.examples[0]}" if self.unreadable.count else ""
            raise DataError(f"{', '.join(self.empty)}: no records{left_out}")
