import gzip
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.errors import DataError
from worker.sources import lines as source
from worker.sources.lines import Reading, file_size, read_lines

LINES = [f'{{"n":{number},"text":"{"x" * (number % 50)}"}}'.encode() for number in range(40_000)]
TEXT = b"\n".join(LINES) + b"\n"


def every_line(path: Path, reading: Reading | None = None) -> list[bytes | None]:
    return [line for lines in read_lines(str(path), reading or Reading()) for line in lines]


def lines_before_the_error(path: Path) -> tuple[list[bytes | None], str]:
    lines: list[bytes | None] = []
    with pytest.raises(DataError) as caught:
        lines.extend(line for block in read_lines(str(path), Reading()) for line in block)
    return lines, str(caught.value)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.ZstdCompressor().compress])
def test_plain_gzip_and_zstd_hold_the_same_lines_whatever_the_name(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "records.data"
    path.write_bytes(pack(TEXT))

    assert every_line(path) == LINES


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress])
def test_packed_files_that_were_put_together_are_read_whole(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "records"
    path.write_bytes(pack(TEXT) + pack(TEXT))

    assert every_line(path) == LINES * 2


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress])
def test_a_file_that_was_cut_off_gives_its_whole_lines_and_then_an_error_with_file_and_line(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "records.packed"
    noise = random.Random(0)
    lines = [noise.randbytes(50).hex().encode() for _ in range(40_000)]
    packed = pack(b"\n".join(lines))
    path.write_bytes(packed[: len(packed) * 2 // 3])

    got, message = lines_before_the_error(path)

    assert len(got) > 20_000
    assert got == lines[: len(got)]
    assert message == f"{path}:{len(got) + 1}: the {message.split()[-9]} data ends early: the file was cut off"


def test_a_damaged_gzip_file_never_ends_quietly(tmp_path: Path) -> None:
    path = tmp_path / "records.gz"
    packed = bytearray(gzip.compress(TEXT, mtime=0))
    packed[len(packed) // 2] ^= 255
    path.write_bytes(bytes(packed))

    assert ": the gzip data is broken" in lines_before_the_error(path)[1]


def test_windows_line_ends_and_a_byte_order_mark_are_not_part_of_a_record(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a":1}\r\n{"a":2}\r\n')

    assert every_line(path) == [b'{"a":1}', b'{"a":2}']


def test_utf16_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text('{"a":1}', encoding="utf-16")

    assert "UTF-16" in lines_before_the_error(path)[1]


@pytest.mark.parametrize("end", [b"", b"\n", b"\n[]\n[]", b"\n[]\n[]\n" + b"[]\n" * 400_000])
def test_a_line_beyond_the_limit_costs_one_item_and_is_named(tmp_path: Path, end: bytes) -> None:
    reading = Reading(max_line_bytes=2_000_000)
    path = tmp_path / "records.jsonl"
    path.write_bytes(b"{}\n" + b"x" * 4_000_000 + end)

    lines = every_line(path, reading)

    assert lines[:2] == [b"{}", None]
    assert lines[2:] == end[1:].splitlines()
    assert reading.unreadable.examples == [f"{path}:2: a line of more than 2,000,000 bytes"]
    assert reading.unreadable.count == 1


def test_the_meter_ends_at_the_size_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl.gz"
    path.write_bytes(gzip.compress(TEXT, mtime=0))
    reading = Reading()
    for _ in read_lines(str(path), reading):
        pass

    assert reading.meter.done == file_size(str(path))


def test_a_missing_file_and_a_directory_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such file"):
        file_size(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="is a directory"):
        file_size(str(tmp_path))


@settings(deadline=None)
@given(st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"").replace(b"\r", b"")), min_size=1))
def test_lines_come_back_whatever_the_block_size(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("lines") / "records"
    text = b"\n".join(lines) + b"\n"
    path.write_bytes(b"-" + text)  # no mark of another encoding
    block, source.BLOCK_BYTES = source.BLOCK_BYTES, 16
    try:
        got = every_line(path)
    finally:
        source.BLOCK_BYTES = block

    assert got == (b"-" + text)[:-1].split(b"\n")
