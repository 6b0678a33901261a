"""Files as lines of bytes: plain, gzip or zstd, told apart by their first bytes, never by their name."""

import sys
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from worker.errors import DataError, Hint
from worker.sources.base import Meter

READ_BYTES = 256 * 1024  # read at once from a plain or gzip file
ZSTD_READ_BYTES = 16 * 1024  # zstd has no limit on what one read unpacks to
BLOCK_BYTES = 1024 * 1024  # unpacked bytes that are split into lines at once
MAX_LINE_BYTES = 64 * 1024 * 1024  # a longer line is a file of another kind, not a record
STDIN = "-"

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_UTF8_MARK = b"\xef\xbb\xbf"


def file_size(path: str) -> int:
    """Bytes of the file on disk, 0 for standard input; DataError where there is no such file."""
    if path == STDIN:
        return 0
    file = Path(path)
    if not file.is_file():
        raise DataError(f"{path}: {'is a directory, not a file' if file.is_dir() else 'no such file'}")
    return file.stat().st_size


def read_lines(path: str, meter: Meter) -> Iterator[tuple[int, list[bytes]]]:
    """Lists of whole lines, without their line ends, each with the 1-based number of its first line.

    A last line needs no line end. Raises DataError with file and line where the data is broken or cut off;
    every whole line before that point was yielded.
    """
    number, rest = 1, b""
    try:
        for piece in read_bytes(path, meter):
            rest += piece
            if len(rest) < BLOCK_BYTES:
                continue
            block, end, rest = rest.rpartition(b"\n")
            if len(rest) > MAX_LINE_BYTES:
                raise DataError(f"a line of more than {MAX_LINE_BYTES} bytes")  # noqa: TRY301  it needs its line, too
            if end:
                lines = _split(block)
                yield number, lines
                number += len(lines)
    except DataError as error:
        block, end, _ = rest.rpartition(b"\n")
        lines = _split(block) if end else []
        if lines:
            yield number, lines
        raise DataError(f"{path}:{number + len(lines)}: {error}", hint=error.hint) from error
    if rest:
        yield number, _split(rest.removesuffix(b"\n"))


def _split(block: bytes) -> list[bytes]:
    if b"\r" in block:
        block = block.replace(b"\r\n", b"\n").removesuffix(b"\r")
    return block.split(b"\n")


def read_bytes(path: str, meter: Meter) -> Iterator[bytes]:
    """The unpacked bytes of one file or of standard input, in pieces, without a UTF-8 mark at the start.

    Raises DataError where packed data is broken or ends early (without file and line), and where the file can't be
    opened.
    """
    with _opened(path) as stream:
        head = stream.read(READ_BYTES)
        if head.startswith(_ZSTD):
            pieces = _unzstd(_read(stream, head, meter, ZSTD_READ_BYTES))
        elif head.startswith(_GZIP):
            pieces = _gunzip(_read(stream, head, meter, READ_BYTES))
        else:
            pieces = _read(stream, head, meter, READ_BYTES)
        first = next(pieces, b"")
        if first.startswith(_UTF16):
            raise DataError("the text is UTF-16; convert it to UTF-8 first (iconv -f UTF-16 -t UTF-8)")
        yield from chain([first.removeprefix(_UTF8_MARK)], pieces)


def _opened(path: str) -> BinaryIO:
    try:
        return sys.stdin.buffer if path == STDIN else Path(path).open("rb")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error


def _read(stream: BinaryIO, head: bytes, meter: Meter, size: int) -> Iterator[bytes]:
    for start in range(0, len(head), size):
        piece = head[start : start + size]
        meter.done += len(piece)
        yield piece
    while piece := stream.read(size):
        meter.done += len(piece)
        yield piece


def _gunzip(pieces: Iterator[bytes]) -> Iterator[bytes]:
    unpack = zlib.decompressobj(wbits=31)
    try:
        for packed in pieces:
            data = packed
            while data:
                if unpack.eof:  # several gzip files, one after the other
                    unpack = zlib.decompressobj(wbits=31)
                yield unpack.decompress(data, BLOCK_BYTES)
                data = unpack.unused_data.lstrip(b"\0") if unpack.eof else unpack.unconsumed_tail
    except zlib.error as error:
        raise DataError(f"the gzip data is broken ({error})") from error
    if not unpack.eof:
        raise DataError("the gzip data ends early: the file was cut off")


def _unzstd(pieces: Iterator[bytes]) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError as error:
        raise DataError("reading .zst needs the zstandard package", hint=Hint.INSTALL_REPLAY) from error
    unpack = zstandard.ZstdDecompressor().decompressobj()
    try:
        for packed in pieces:
            data = packed
            while data:
                if unpack.eof:  # several frames, one after the other
                    unpack = zstandard.ZstdDecompressor().decompressobj()
                yield unpack.decompress(data)
                data = unpack.unused_data if unpack.eof else b""
    except zstandard.ZstdError as error:
        raise DataError(f"the zstd data is broken ({error})") from error
    if not unpack.eof:
        raise DataError("the zstd data ends early: the file was cut off")
