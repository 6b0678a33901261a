"""Values that a producer has packed itself, told by their first bytes: gzip and zstd.

A kilobyte can unpack to a gigabyte. So it is unpacked up to a bound, and what lies beyond is never made.
"""

import zlib
from typing import Final

from worker.errors import ErrorCode, RecordError

GZIP: Final = b"\x1f\x8b\x08"
ZSTD: Final = b"\x28\xb5\x2f\xfd"
MAX_UNPACKED_BYTES = 64 << 20
MAX_RATIO = 64
ALWAYS_BYTES = 64 * 1024  # whatever the ratio: small values of one repeated word pack well
MAX_WINDOW_BYTES = 32 << 20
MAX_PARTS = 64  # packed one after the other: of empty ones there could be a hundred thousand


def is_packed(value: bytes) -> bool:
    """Whether a value begins as gzip or zstd does; no text does, for it is no UTF-8."""
    return value.startswith((GZIP, ZSTD))


def unpacked(value: bytes, max_bytes: float) -> bytes:
    """What a packed value holds.

    max_bytes   it may hold, as far as that is no more than 64 times its size (64 KiB always are) and 64 MiB

    Raises RecordError: `too_large` beyond the bound, `unreadable` where it is broken or cut off, or zstd is missing.

    >>> import gzip
    >>> unpacked(gzip.compress(b'{"amount": 1}'), 1_000)
    b'{"amount": 1}'
    """
    limit = int(min(max_bytes, MAX_UNPACKED_BYTES, max(ALWAYS_BYTES, MAX_RATIO * len(value))))
    data = _gunzip(value, limit) if value.startswith(GZIP) else _unzstd(value, limit)
    if len(data) > limit:
        raise RecordError(ErrorCode.TOO_LARGE, f"{len(value)} packed bytes hold more than the {limit} that are allowed")
    return data


def _gunzip(value: bytes, limit: int) -> bytes:
    parts, size, rest = list[bytes](), 0, value
    while rest and size <= limit:  # several packed parts, one after the other, are one value
        if len(parts) == MAX_PARTS:
            raise RecordError(ErrorCode.UNREADABLE, f"looks like gzip, in more than {MAX_PARTS} parts")
        unpack = zlib.decompressobj(31)
        try:
            parts.append(unpack.decompress(rest, limit + 1 - size))
        except zlib.error as error:
            raise RecordError(ErrorCode.UNREADABLE, f"looks like gzip, but is broken: {error}") from None
        size += len(parts[-1])
        if not unpack.eof and size <= limit:
            raise RecordError(ErrorCode.UNREADABLE, "looks like gzip, but is cut off")
        rest = unpack.unused_data
    return b"".join(parts)


def _unzstd(value: bytes, limit: int) -> bytes:
    try:
        from zstandard import ZstdDecompressor, ZstdError, frame_content_size
    except ImportError:
        raise RecordError(ErrorCode.UNREADABLE, "looks like zstd, whose package is not installed") from None
    try:
        with ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).stream_reader(value, read_across_frames=True) as reader:
            data: bytes = reader.read(limit + 1)
        if len(data) < min(limit, frame_content_size(value)):  # -1 where a frame doesn't say it
            raise RecordError(ErrorCode.UNREADABLE, "looks like zstd, but is cut off")
        return data  # noqa: TRY300
    except ZstdError as error:
        raise RecordError(ErrorCode.UNREADABLE, f"looks like zstd, but is broken: {error}") from None
