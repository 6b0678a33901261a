"""Files as lines of bytes: plain, gzip or zstd, told apart by their first bytes, never by their name.

Bounds are in bytes, for a small file can unpack to gigabytes: pieces of a megabyte, lines up to a limit. A longer line
is left out while it is read, and so is a packed part that is broken; what follows is read on.
"""

import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from worker.errors import DataError, Hint
from worker.sources.base import Meter, UnreadableItems
from worker.texts import did_you_mean

READ_BYTES = 256 * 1024  # read at once from a plain or gzip file
ZSTD_READ_BYTES = 1024  # zstd has no limit on what one read unpacks to: at the very worst 32 MiB of 1 KiB
BLOCK_BYTES = 1024 * 1024  # unpacked bytes that are split into lines at once
MAX_LINE_BYTES = 8 * 1024 * 1024  # a longer line is a file of another kind, not a record
STDIN = "-"
FOREIGN = {
    b"PK\x03\x04": "a ZIP archive: unpack it first",
    b"BZh": "packed with bzip2: unpack it, or pack it with gzip or zstd",
    b"\xfd7zXZ\x00": "packed with xz: unpack it, or pack it with gzip or zstd",
    b"\x04\x22\x4d\x18": "packed with lz4: unpack it, or pack it with gzip or zstd",
    b"Obj\x01": "Avro, which is not read: convert it to JSON lines or Parquet",
    b"ORC": "ORC, which is not read: convert it to JSON lines or Parquet",
    b"ARROW1": "Arrow IPC, which is not read: convert it to Parquet",
    b"PAR1": "Parquet, which is read from a file: not from standard input or a pipe",
    b"SQLite format 3": "an SQLite database: export it as CSV",
}
"""First bytes of what can't be read, and what to do about it."""


@dataclass(slots=True)
class Reading:
    """What the reading of files adds to, and how large an item may be.

    meter            how far it has come
    unreadable       what was left out
    max_line_bytes   a longer line, or row of a table, is left out
    """

    meter: Meter = field(default_factory=Meter)
    unreadable: UnreadableItems = field(default_factory=UnreadableItems)
    max_line_bytes: int = MAX_LINE_BYTES


def file_size(path: str) -> int:
    """Bytes of the file on disk, 0 for standard input and pipes; DataError where there is no such file."""
    if path == STDIN:
        return 0
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file{nearest_file(path)}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if stat.S_ISDIR(status.st_mode):
        raise DataError(f"{path}: is a directory, not a file")
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def nearest_file(path: str) -> str:
    """What to add where there is no such file: the name beside it that is most like it, or that there is no folder."""
    folder = Path(path).parent
    try:
        return did_you_mean(Path(path).name, (entry.name for entry in islice(folder.iterdir(), 10_000)))
    except FileNotFoundError:
        return f": there is no folder {folder}"
    except (OSError, ValueError):
        return ""


def read_lines(path: str, reading: Reading) -> Iterator[list[bytes | None]]:
    """The lines of a file or of standard input: see `split_lines`."""
    yield from split_lines(path, read_bytes(path, reading.meter), reading)


def split_lines(path: str, pieces: Iterator[bytes | DataError], reading: Reading) -> Iterator[list[bytes | None]]:
    """Lists of whole lines of a file or of standard input, without their line ends and a UTF-8 mark at the start; None
    for a line beyond the limit.

    A last line needs no line end. Raises DataError with file and line, at the end, where the data was broken or cut
    off, and at once where the file can't be opened; every whole line that could be read was yielded before.
    """
    number, held, size, has_end, too_long = 1, list[bytes](), 0, False, False
    gaps: list[DataError] = []
    for piece in pieces:
        gap = isinstance(piece, DataError)
        data = b"" if isinstance(piece, DataError) else piece
        if too_long and not gap:
            _, end, data = data.partition(b"\n")
            if not end:
                continue
            yield [None]
            number, too_long = number + 1, False
        held.append(data)
        size += len(data)
        has_end = has_end or b"\n" in data
        if (has_end and size >= BLOCK_BYTES) or gap:
            block, end, tail = b"".join(held).rpartition(b"\n")
            if end:
                lines = _split(block, f"{path}:", number, reading)
                yield lines
                number += len(lines)
            held, size, has_end = [tail], len(tail), False
        elif size > reading.max_line_bytes and not has_end:
            reading.unreadable.add(f"{path}:{number}: a line of more than {reading.max_line_bytes:,} bytes")
            held, size, too_long = [], 0, True
        if isinstance(piece, DataError):  # what was begun before it is lost, too
            gaps.append(DataError(f"{path}:{number}: {piece}", hint=piece.hint))
            held, size, too_long = [], 0, False
    if size or too_long:
        yield [None] if too_long else _split(b"".join(held).removesuffix(b"\n"), f"{path}:", number, reading)
    if gaps:
        more = f" (and {len(gaps) - 1} more such places)" if len(gaps) > 1 else ""
        raise DataError(f"{gaps[0]}{more}", hint=gaps[0].hint)


def _split(block: bytes, place: str, number: int, reading: Reading) -> list[bytes | None]:
    if b"\r" in block:
        block = block.replace(b"\r\n", b"\n").removesuffix(b"\r")
    lines: list[bytes | None] = block.split(b"\n")  # type: ignore[assignment]  # a list of bytes, to which None is added
    if len(block) <= reading.max_line_bytes:
        return lines
    for at, line in enumerate(lines):
        if line is not None and len(line) > reading.max_line_bytes:
            reading.unreadable.add(f"{place}{number + at}: a line of more than {reading.max_line_bytes:,} bytes")
            lines[at] = None
    return lines


class _Packing(NamedTuple):
    """A way to pack: what begins a packed part, what may stand between two, how one is unpacked, what it raises."""

    name: str
    begins: bytes
    padding: bytes
    broken: type[Exception]
    unpack: Callable[[], Any]
    limit: tuple[int, ...] = ()


def read_bytes(path: str, meter: Meter) -> Iterator[bytes | DataError]:
    """The unpacked bytes in pieces of at most BLOCK_BYTES; a DataError, without file and line, stands for what could
    not be read, and what follows for what comes after it.
    """
    try:
        stream = _opened(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    with stream:
        head, packing = b"", None
        try:
            head = stream.read(READ_BYTES)
            packing = _packing_of(head)
        except OSError as error:
            yield DataError(f"can't be read: {error.strerror}")
        except DataError as error:
            raise DataError(f"{path}: {error}", hint=error.hint) from error
        zstd = packing is not None and not packing.limit
        read = _read(stream, head, meter, ZSTD_READ_BYTES if zstd else READ_BYTES)
        pieces = read if packing is None else _unpacked(read, packing)
        first = next(pieces, b"")
        if isinstance(first, bytes):
            if first.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise DataError(f"{path}: the text is UTF-16; convert it to UTF-8 first (iconv -f UTF-16 -t UTF-8)")
            first = first.removeprefix(b"\xef\xbb\xbf")
        for piece in chain([first], pieces):
            if isinstance(piece, DataError) or len(piece) <= BLOCK_BYTES:
                yield piece
            else:
                yield from (piece[start : start + BLOCK_BYTES] for start in range(0, len(piece), BLOCK_BYTES))


def _opened(path: str) -> BinaryIO:
    if path != STDIN:
        return Path(path).open("rb")
    if sys.stdin is None or sys.stdin.closed:
        raise ValueError("standard input is closed, or was read already")
    return sys.stdin.buffer


def _packing_of(head: bytes) -> _Packing | None:
    """How a file is packed whose first bytes these are; None where it isn't. DataError for what is never read."""
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        try:
            from zstandard import ZstdDecompressor, ZstdError
        except ImportError as error:
            raise DataError("reading .zst needs the zstandard package", hint=Hint.INSTALL_REPLAY) from error
        return _Packing("zstd", head[:4], b"", ZstdError, lambda: ZstdDecompressor().decompressobj())
    if head.startswith(b"\x1f\x8b"):  # between two packed files may stand zeros, as tapes have them
        return _Packing("gzip", b"\x1f\x8b\x08", b"\0", zlib.error, lambda: zlib.decompressobj(31), (BLOCK_BYTES,))
    foreign = next((what for magic, what in FOREIGN.items() if head.startswith(magic)), None)
    if foreign is not None:
        raise DataError(f"the file is {foreign}")
    return None


def _read(stream: BinaryIO, head: bytes, meter: Meter, size: int) -> Iterator[bytes | DataError]:
    parts = (head[start : start + size] for start in range(0, len(head), size))
    try:
        for piece in chain(parts, iter(partial(stream.read, size), b"")):
            meter.done += len(piece)
            yield piece
    except OSError as error:
        yield DataError(f"can't be read further: {error.strerror}")


# A small file can unpack to gigabytes. gzip gives at most `limit` bytes at once and keeps the rest packed, in
# unconsumed_tail; zstd has no such limit, and is read in small pieces instead. A file that was cut off is no error to
# either: only the mark of the end is missing, so it is asked for. Of a broken part nothing tells where it ends: the
# next part begins at the next place that looks like a beginning.
def _unpacked(pieces: Iterator[bytes | DataError], packing: _Packing) -> Iterator[bytes | DataError]:
    unpack, lost = packing.unpack(), False
    kept = b""  # of what is searched for a beginning: its end may be the first bytes of one
    for packed in pieces:
        if isinstance(packed, DataError):
            yield packed
            return
        data = packed
        if lost:
            data, kept = kept + packed, b""
        while data:
            if lost:
                at = data.find(packing.begins)
                if at < 0:
                    kept = data[1 - len(packing.begins) :]
                    break
                data, lost, unpack = data[at:], False, packing.unpack()
            elif unpack.eof:  # several packed files, one after the other
                unpack = packing.unpack()
            try:
                yield unpack.decompress(data, *packing.limit)
            except packing.broken as error:
                yield DataError(f"the {packing.name} data is broken ({error})")
                data, lost = data[1:], True
                continue
            data = unpack.unused_data.lstrip(packing.padding) if unpack.eof else unpack.unconsumed_tail
    if not unpack.eof and not lost:
        yield DataError(f"the {packing.name} data ends early: the file was cut off")
