"""What the pages of a Parquet file unpack to, from their headers: before anything unpacks them.

Arrow unpacks a page whole, and doesn't tell how large it is. The headers are Thrift's compact protocol, of which only
two numbers matter here (parquet-format, PageHeader: 2 uncompressed_page_size, 3 compressed_page_size).
"""

import os
from typing import Any

MAX_PAGE_BYTES = 128 * 1024 * 1024  # unpacked; 1 MiB is usual
MAX_COLUMNS_BYTES = 512 * 1024 * 1024  # unpacked, one page of each column, where that is over 50 times the packed size
MAX_RATIO = 50
HEADER_BYTES = 1024  # of a page; one that holds statistics of long values is read again, whole
MAX_HEADER_BYTES = 1024 * 1024
MAX_NESTING = 16


def require_pages(file: int, group: Any) -> None:
    """ValueError where a page of a group of rows unpacks to more than 128 MiB, or all its columns' pages together to a
    lot from nearly nothing, and where the headers are broken.

    file    descriptor of the file
    group   metadata of the group, as pyarrow has it
    """
    unpacked = packed = 0
    for number in range(group.num_columns):
        chunk = group.column(number)
        first = chunk.dictionary_page_offset if chunk.has_dictionary_page else None
        start = min(first or chunk.data_page_offset, chunk.data_page_offset)
        size = max_page_bytes(file, start, start + chunk.total_compressed_size)
        if size > MAX_PAGE_BYTES:
            raise ValueError(
                f"a page of the column {chunk.path_in_schema:.80} unpacks to {size:,} bytes, the limit is "
                f"{MAX_PAGE_BYTES:,}; write the file with smaller pages"
            )
        unpacked, packed = unpacked + size, packed + chunk.total_compressed_size
    if unpacked > max(MAX_COLUMNS_BYTES, MAX_RATIO * packed):
        raise ValueError(f"{packed:,} bytes unpack to {unpacked:,} at once, the limit is {MAX_COLUMNS_BYTES:,}")


def max_page_bytes(file: int, start: int, end: int) -> int:
    """Unpacked bytes of the largest page between two places of a file; ValueError where a header is none."""
    max_unpacked = 0
    while start < end:
        try:
            unpacked, packed, length = page_header(os.pread(file, HEADER_BYTES, start))
        except IndexError:
            try:
                unpacked, packed, length = page_header(os.pread(file, MAX_HEADER_BYTES, start))
            except IndexError:
                raise ValueError(f"the header of the page at byte {start} is broken") from None
        if unpacked < 0 or packed < 0:
            raise ValueError(f"the header of the page at byte {start} is broken")
        max_unpacked = max(max_unpacked, unpacked)
        start += length + packed
    return max_unpacked


def page_header(data: bytes) -> tuple[int, int, int]:
    """(unpacked bytes, packed bytes, bytes of the header) of a page; IndexError where the header goes on after `data`.

    >>> page_header(bytes([0x15, 0, 0x15, 200, 1, 0x15, 80, 0]))
    (100, 40, 8)
    """
    compact = _Compact(data)
    sizes = {2: -1, 3: -1}
    number = 0
    while kind := compact.byte():
        number = number + (kind >> 4) if kind >> 4 else compact.zigzag()
        if number in sizes and kind & 15 == _I32:
            sizes[number] = compact.zigzag()
        else:
            compact.skip(kind & 15)
    return sizes[2], sizes[3], compact.at


_I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(4, 13)
_TRUE, _FALSE, _BYTE = range(1, 4)


class _Compact:
    """Thrift's compact protocol: reads numbers, passes over everything else. IndexError at the end of the data."""

    def __init__(self, data: bytes) -> None:
        self.at = 0
        self._data = data

    def byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def varint(self) -> int:
        value = shift = 0
        while (part := self.byte()) & 0x80:
            value |= (part & 0x7F) << shift
            shift += 7
        return value | part << shift

    def zigzag(self) -> int:
        value = self.varint()
        return value >> 1 ^ -(value & 1)

    def skip(self, kind: int, depth: int = 0) -> None:
        if kind in (_I16, _I32, _I64):
            self.varint()
        elif kind == _STRUCT:
            self._skip_struct(depth + 1)
        elif kind in (_LIST, _SET):
            head = self.byte()
            self._skip_items([head & 15], self.varint() if head >> 4 == 15 else head >> 4, depth + 1)
        elif kind == _MAP:
            if count := self.varint():
                kinds = self.byte()
                self._skip_items([kinds >> 4, kinds & 15], count, depth + 1)
        elif kind == _BINARY:
            self._pass(self.varint())
        elif kind in (_BYTE, _DOUBLE):
            self._pass(1 if kind == _BYTE else 8)
        elif kind not in (_TRUE, _FALSE):  # a field's truth stands in its kind
            raise IndexError

    def _skip_struct(self, depth: int) -> None:
        if depth > MAX_NESTING:
            raise IndexError
        while field := self.byte():
            if not field >> 4:
                self.varint()
            self.skip(field & 15, depth)

    def _skip_items(self, kinds: list[int], count: int, depth: int) -> None:
        if depth > MAX_NESTING:
            raise IndexError
        for _ in range(count):
            for kind in kinds:
                self.skip(_BYTE if kind in (_TRUE, _FALSE) else kind, depth)

    def _pass(self, count: int) -> None:
        self.at += count
        if self.at > len(self._data):
            raise IndexError
