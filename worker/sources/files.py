"""History from files of any registered format, one after the other, as one input."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from typing_extensions import override

from worker.errors import DataError
from worker.features.schema import Schema
from worker.registry import Registry
from worker.sources.base import Block, Meter, Source
from worker.sources.lines import STDIN, file_size, read_lines
from worker.sources.tables import Columns, read_csv, read_parquet


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
FORMATS.register(
    "jsonl", FileFormat(lambda path, meter, _: (lines for _, lines in read_lines(path, meter)), ("jsonl",))
)
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
