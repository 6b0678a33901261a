"""A file that is one JSON array, or objects that take several lines each: its records, one by one."""

import re
from collections.abc import Iterator

from worker.errors import DataError
from worker.sources.lines import BLOCK_BYTES, Reading

# Up to the next bracket outside of strings; what is kept of an unfinished string is read again with more of it.
_TO_BRACKET = re.compile(rb'(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")*+([{}\[\]])', re.DOTALL)
_BEGINS = re.compile(rb"\s*(?:\[\s*[{\]]|\{\s*\r?\n)")
_BETWEEN = b" \t\r\n,"


def begins_values(head: bytes) -> bool:
    """Whether a file that begins like this holds an array of records, or objects of several lines.

    >>> [begins_values(head) for head in (b'[{"a": 1}, ', b'{\\n  "a": 1', b'{"a": 1}\\n', b"[07:15:02] INFO")]
    [True, True, False, False]
    """
    return _BEGINS.match(head) is not None


def split_values(path: str, pieces: Iterator[bytes | DataError], reading: Reading) -> Iterator[list[bytes | None]]:
    """Lists of the items of arrays, and of the values that stand outside of one, in order; each is looked at by whoever
    reads records, for here only brackets are counted.

    DataError, after all that could be read, where the file ends inside of one, a piece is broken, or one is too large.
    """
    splitter = _Splitter(reading.max_line_bytes)
    for piece in pieces:
        if isinstance(piece, DataError):
            raise DataError(f"{path}: {piece}; what follows belongs to no record", hint=piece.hint)
        yield from splitter.feed(piece)
        if splitter.waiting_bytes > reading.max_line_bytes:
            raise DataError(f"{path}: a record of more than {reading.max_line_bytes:,} bytes: not read further")
    rest = splitter.rest
    if rest:
        yield [rest]
    if splitter.is_open:
        raise DataError(f"{path}: ends inside of a JSON value: the file was cut off")


class _Splitter:
    """Counts brackets. Values are what stands at the depth of the items: 1 inside of an array, else 0."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._data = b""
        self._at = 0  # up to where brackets were counted
        self._start = 0  # of the value that is read, or of what stands before the next one
        self._depth = 0
        self._base = 0

    @property
    def waiting_bytes(self) -> int:
        """Of the value that is read."""
        return len(self._data) - self._start

    @property
    def is_open(self) -> bool:
        """Whether a value has not ended."""
        return self._depth > 0

    @property
    def rest(self) -> bytes:
        """What stands behind the last value, or is left of one that did not end."""
        return self._data[self._start :].strip(_BETWEEN)

    def feed(self, piece: bytes) -> Iterator[list[bytes | None]]:
        """The values that have ended with this piece."""
        self._data = self._data[self._start :] + piece
        self._at -= self._start
        self._start = 0
        values, size = list[bytes | None](), 0
        while match := _TO_BRACKET.match(self._data, self._at):
            self._at = match.end()
            if (value := self._count(match[1], match.end())) is not None:
                values.append(value)
                size += len(value)
                if size > BLOCK_BYTES:
                    yield values
                    values, size = [], 0
        if values:
            yield values

    def _count(self, bracket: bytes, end: int) -> bytes | None:
        """Takes a bracket; the value that ends here, or one that stands between two others."""
        opens = bracket in b"{["
        value = None
        if opens and self._depth == self._base:
            value = self._data[self._start : end - 1].strip(_BETWEEN) or None  # between two: a number, say
            self._start = end - 1
            if self._base == 0 and bracket == b"[":
                self._base, self._start = 1, end
        elif not opens and self._depth == self._base + 1:
            value, self._start = self._data[self._start : end], end
        elif not opens and self._base == self._depth == 1:  # the array ends
            value = self._data[self._start : end - 1].strip(_BETWEEN) or None
            self._base, self._start = 0, end
        self._depth = max(0, self._depth + (1 if opens else -1))
        return value
