"""Several files of any format, one after the other, as one input."""

from collections.abc import Iterator, Sequence

from worker.errors import DataError
from worker.features.schema import Schema
from worker.sources.lines import Meter, file_size, read_lines
from worker.sources.tables import read_csv, read_parquet

FORMATS = ("jsonl", "csv", "parquet")
_SUFFIXES = {"csv": "csv", "tsv": "csv", "parquet": "parquet", "pq": "parquet"}


def format_of(path: str) -> str:
    """The format that a file's name tells, packed or not; JSONL where it tells nothing."""
    name = path.lower().removesuffix(".gz").removesuffix(".zst")
    return _SUFFIXES.get(name.rpartition(".")[2], "jsonl")


def reads_tables(paths: Sequence[str], format: str | None = None) -> bool:  # noqa: A002
    """Whether any of these files is a table, whose rows come out as JSON. format: of all, None to go by their names."""
    return any((format or format_of(path)) != "jsonl" for path in paths)


class Files:
    """The records of files in the order given. Every file is looked up before the first one is read.

    schema: tells which columns of a CSV file are numbers and booleans; without one, cells that look like it are.
    format: one of FORMATS for all files, None to go by their names. DataError where a file is missing.
    """

    def __init__(self, paths: Sequence[str], *, schema: Schema | None = None, format: str | None = None) -> None:  # noqa: A002
        sizes = [file_size(path) for path in paths]
        self.meter = Meter(total=sum(sizes))
        self.empty: list[str] = []
        self._paths = paths
        self._format = format
        self._numbers: frozenset[str] | None = None
        self._booleans: frozenset[str] = frozenset()
        if schema is not None:
            self._numbers = frozenset(field.name for field in schema.fields if field.cell == "number")
            self._booleans = frozenset(field.name for field in schema.fields if field.cell == "boolean")
        self._header: list[str] = []

    def __iter__(self) -> Iterator[list[bytes]]:
        """Lists of values, JSON mostly. A file without records is noted in `empty`; DataError if all are."""
        for path in self._paths:
            found = False
            for values in self._values(path):
                found = found or any(values)
                yield values
            if not found:
                self.empty.append(path)
        if len(self.empty) == len(self._paths):
            raise DataError(f"{', '.join(self.empty)}: no records")

    def _values(self, path: str) -> Iterator[list[bytes]]:
        kind = self._format or format_of(path)
        if kind == "parquet":
            return read_parquet(path, self.meter)
        if kind == "csv":
            return read_csv(path, self.meter, numbers=self._numbers, booleans=self._booleans, header=self._header)
        return (lines for _, lines in read_lines(path, self.meter))
