"""Compressed record batches, unpacked a piece at a time: memory depends on the piece, never on what a batch unpacks to.

kafka-python unpacks a batch whole, and 1 MB of gzip or zstd can hold a gigabyte.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping
from struct import error as StructError  # noqa: N812  # it is named like a function
from struct import unpack_from
from typing import Any, Final

from kafka import codec as codecs

from worker.errors import FatalError, Hint

PIECE_BYTES: Final = 1 << 20
INPUT_BYTES: Final = 64 << 10  # fed at once: what a decoder leaves over of it is copied
# A block of snappy can't be unpacked in pieces. Java's client writes blocks of 32 kB, others one block.
MAX_BLOCK_BYTES: Final = 64 << 20
MAX_WINDOW_BYTES: Final = 128 << 20  # of zstd: what its level 22 asks for; only the part that is written takes memory

_XERIAL: Final = b"\x82SNAPPY\x00"
_XERIAL_HEADER_BYTES: Final = 16


class UnpackError(Exception):
    """What follows can't be unpacked. What was yielded before is sound as far as the format can tell."""


def unpacked(codec: int, data: memoryview, max_bytes: int) -> Iterator[bytes]:
    """What `data` unpacks to, in pieces of about a megabyte. codec: as in the attributes of a record batch.

    Raises UnpackError (garbage, cut off, an unknown codec, more than `max_bytes`), FatalError where the codec's package
    is not installed.
    """
    if codec not in _CODECS:
        raise UnpackError(f"its codec {codec} is unknown")
    name, is_installed, unpack = _CODECS[codec]
    if not is_installed():
        raise FatalError(f"the topic is compressed with {name}, which is not installed", hint=Hint.INSTALL_COMPRESSION)
    left = max_bytes
    try:
        for piece in unpack(data):
            left -= len(piece)
            if left < 0:
                raise UnpackError(f"it unpacks to more than {max_bytes} bytes")  # not one of those below
            yield piece
    except _errors_of(name) as error:
        raise UnpackError(f"its {name} is broken: {error or 'garbage'}") from error


def _errors_of(name: str) -> tuple[type[Exception], ...]:
    errors: dict[str, list[Any]] = {"gzip": [zlib.error], "lz4": [RuntimeError]}
    if name == "snappy":
        errors[name] = [codecs.snappy.UncompressError, StructError]
    if name == "zstd":
        errors[name] = [codecs.zstd.ZstdError]
    return tuple(errors[name])


def _gzip(data: memoryview) -> Iterator[bytes]:
    yield from _members(data, lambda: zlib.decompressobj(zlib.MAX_WBITS | 16), _zlib_leaves)


def _lz4(data: memoryview) -> Iterator[bytes]:
    yield from _members(data, codecs.lz4.LZ4FrameDecompressor, lambda _: b"")


def _zlib_leaves(decoder: Any) -> bytes:
    return decoder.unconsumed_tail  # type: ignore[no-any-return]


def _members(data: memoryview, make: Callable[[], Any], leaves: Callable[[Any], bytes]) -> Iterator[bytes]:
    """One compressed member after another. leaves: the input that a decoder has not taken yet and does not keep."""
    decoder: Any = None
    food, position = b"", 0
    while food or position < len(data):
        if not food:
            food = bytes(data[position : position + INPUT_BYTES])
            position += INPUT_BYTES
        decoder = decoder or make()
        piece = decoder.decompress(food, PIECE_BYTES)
        while piece:
            yield piece
            food = leaves(decoder)
            piece = b"" if decoder.eof else decoder.decompress(food, PIECE_BYTES)
        food = leaves(decoder)
        if decoder.eof:
            decoder, food = None, decoder.unused_data or b""
    if decoder is not None:
        raise UnpackError("it is cut off")


def _snappy(data: memoryview) -> Iterator[bytes]:
    if bytes(data[: len(_XERIAL)]) != _XERIAL:
        yield _snappy_block(data)
        return
    position = _XERIAL_HEADER_BYTES
    while position < len(data):
        (size,) = unpack_from("!i", data, position)
        position += 4
        if not 0 <= size <= len(data) - position:
            raise UnpackError(f"a block of {size} bytes stands where {len(data) - position} are left")
        yield _snappy_block(data[position : position + size])
        position += size


def _snappy_block(block: memoryview) -> bytes:
    size, shift = 0, 0
    for byte in block[:5]:  # the length is declared in front; nothing may be unpacked before it is known
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    if size > MAX_BLOCK_BYTES:
        raise UnpackError(f"a block unpacks to {size} bytes, more than {MAX_BLOCK_BYTES}")
    return codecs.snappy.decompress(bytes(block))  # type: ignore[no-any-return]


def _zstd(data: memoryview) -> Iterator[bytes]:
    decoder = codecs.zstd.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
    with decoder.stream_reader(data, read_across_frames=True) as reader:
        while piece := reader.read(PIECE_BYTES):
            yield piece


_CODECS: Final[Mapping[int, tuple[str, Callable[[], bool], Callable[[memoryview], Iterator[bytes]]]]] = {
    1: ("gzip", codecs.has_gzip, _gzip),
    2: ("snappy", codecs.has_snappy, _snappy),
    3: ("lz4", codecs.has_lz4, _lz4),
    4: ("zstd", codecs.has_zstd, _zstd),
}
