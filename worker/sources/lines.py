"""Files as lines of bytes: plain, gzip or zstd, told apart by their first bytes, never by their name."""

import sys
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from worker.errors import DataError, Hint
from worker.sources.base import Meter

READ_BYTES = 256 * 1024  # read at once from a plain or gzip file
ZSTD_READ_BYTES = 16 * 1024  # zstd has no limit on what one read unpacks to
BLOCK_BYTES = 1024 * 1024  # unpacked bytes that are split into lines at once
MAX_LINE_BYTES = 64 * 1024 * 1024  # a longer line is a file of another kind, not a record
STDIN = "-"


def file_size(path: str) -> int:
    """Bytes of the file on disk, 0 for standard input; DataError where there is no such file."""
    if path == STDIN:
        return 0
    file = Path(path)
    if not file.is_file():
        raise DataError(f"{path}: {'is a directory, not a file' if file.is_dir() else 'no such file'}")
    return file.stat().st_size


def read_lines(path: str, meter: Meter) -> Iterator[list[bytes]]:
    """Lists of whole lines of a file or of standard input, without their line ends and a UTF-8 mark at the start.

    A last line needs no line end. Raises DataError with file and line where the data is broken or cut off, and where
    the file can't be opened; every whole line before that point was yielded.
    """
    number, rest = 1, b""
    try:
        for piece in _read_bytes(path, meter):
            rest += piece
            if len(rest) < BLOCK_BYTES:
                continue
            block, end, rest = rest.rpartition(b"\n")
            if len(rest) > MAX_LINE_BYTES:
                raise DataError(f"a line of more than {MAX_LINE_BYTES} bytes")  # noqa: TRY301  it needs its line, too
            if end:
                lines = _split(block)
                yield lines
                number += len(lines)
    except DataError as error:
        block, end, _ = rest.rpartition(b"\n")
        lines = _split(block) if end else []
        if lines:
            yield lines
        raise DataError(f"{path}:{number + len(lines)}: {error}", hint=error.hint) from error
    if rest:
        yield _split(rest.removesuffix(b"\n"))


def _split(block: bytes) -> list[bytes]:
    if b"\r" in block:
        block = block.replace(b"\r\n", b"\n").removesuffix(b"\r")
    return block.split(b"\n")


def _read_bytes(path: str, meter: Meter) -> Iterator[bytes]:
    """The unpacked bytes in pieces; DataError, without file and line, where they can't be read to their end."""
    try:
        stream = sys.stdin.buffer if path == STDIN else Path(path).open("rb")  # noqa: SIM115  closed below
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    with stream:
        head = stream.read(READ_BYTES)
        zstd = head.startswith(b"\x28\xb5\x2f\xfd")
        pieces = _read(stream, head, meter, ZSTD_READ_BYTES if zstd else READ_BYTES)
        if zstd:
            try:
                from zstandard import ZstdDecompressor, ZstdError
            except ImportError as error:
                raise DataError("reading .zst needs the zstandard package", hint=Hint.INSTALL_REPLAY) from error
            pieces = _unpacked(pieces, "zstd", ZstdError, lambda: ZstdDecompressor().decompressobj(), b"")
        elif head.startswith(b"\x1f\x8b"):
            padding = b"\0"  # as tapes have it between two files
            pieces = _unpacked(pieces, "gzip", zlib.error, lambda: zlib.decompressobj(31), padding, BLOCK_BYTES)
        first = next(pieces, b"")
        if first.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise DataError("the text is UTF-16; convert it to UTF-8 first (iconv -f UTF-16 -t UTF-8)")
        yield from chain([first.removeprefix(b"\xef\xbb\xbf")], pieces)


def _read(stream: BinaryIO, head: bytes, meter: Meter, size: int) -> Iterator[bytes]:
    parts = (head[start : start + size] for start in range(0, len(head), size))
    for piece in chain(parts, iter(partial(stream.read, size), b"")):
        meter.done += len(piece)
        yield piece


# A small file can unpack to gigabytes. gzip gives at most `limit` bytes at once and keeps the rest packed, in
# unconsumed_tail; zstd has no such limit, and is read in small pieces instead. A file that was cut off is no error to
# either: only the mark of the end is missing, so it is asked for.
def _unpacked(
    pieces: Iterator[bytes], name: str, broken: type[Exception], begin: Callable[[], Any], padding: bytes, *limit: int
) -> Iterator[bytes]:
    unpack = begin()
    try:
        for packed in pieces:
            data = packed
            while data:
                if unpack.eof:  # several packed files, one after the other
                    unpack = begin()
                yield unpack.decompress(data, *limit)
                data = unpack.unused_data.lstrip(padding) if unpack.eof else unpack.unconsumed_tail
    except broken as error:
        raise DataError(f"the {name} data is broken ({error})") from error
    if not unpack.eof:
        raise DataError(f"the {name} data ends early: the file was cut off")
