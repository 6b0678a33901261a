"""Values that a producer packed itself are read, and never unpack to more than a record may have."""

import gzip
import tracemalloc
from functools import partial

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.errors import ErrorCode
from worker.formats.base import Decoded, decoded_bytes
from worker.formats.json_objects import JsonDecoder
from worker.formats.packed import GZIP, ZSTD
from worker.formats.text_lines import LinesDecoder
from worker.records import Message

zipped = partial(gzip.compress, mtime=0)  # the same on every run
OBJECT = b'{"amount": 12.5, "shop": "a"}'


def decoded(*values: bytes) -> Decoded:
    return JsonDecoder(1_000_000).decode([Message("in", 0, at, 0, None, value) for at, value in enumerate(values)])


@pytest.mark.parametrize(
    "value", [*(pack(OBJECT) for pack in (zipped, zstandard.compress)), zipped(b"\0\0\0\0\1" + OBJECT)]
)
def test_a_packed_value_is_read_whatever_stands_beside_it(value: bytes) -> None:
    result = decoded(value, OBJECT, value)

    assert result.rows == [{"amount": 12.5, "shop": "a"}] * 3


def test_every_format_reads_packed_values() -> None:
    assert LinesDecoder().rows([zipped(b"a line"), b"another"]) == [
        {"message": "a line"},
        {"message": "another"},
    ]


@pytest.mark.parametrize("pack", [zipped, zstandard.compress])
def test_a_bomb_is_too_large_and_is_never_unpacked(pack: object) -> None:
    bomb = pack(b" " * 200_000_000)  # type: ignore[operator]

    tracemalloc.start()
    result = decoded(bomb, OBJECT)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 50_000_000
    assert [reject.error_code for reject in result.rejects] == [ErrorCode.TOO_LARGE]
    assert len(result.rows) == 1


def test_the_bound_is_that_of_a_record_as_far_as_a_value_packs_64_times() -> None:
    assert len(decoded(zipped(b'{"a": "' + b"x" * 60_000 + b'"}')).rows) == 1
    assert decoded(zipped(b'{"a": "' + b"x" * 100_000 + b'"}')).rejects[0].error_code == ErrorCode.TOO_LARGE
    assert JsonDecoder(100).decode([Message("in", 0, 0, 0, None, zipped(b" " * 101))]).rejects[0].error_code == (
        ErrorCode.TOO_LARGE
    )


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        (zipped(OBJECT)[:-9], "looks like gzip, but is cut off"),
        (GZIP + b"garbage", "looks like gzip, but is broken"),
        (zstandard.compress(OBJECT)[:-3], "looks like zstd, but is cut off"),
        (ZSTD + b"garbage", "looks like zstd, but is broken"),
        (zipped(b"") * 20_000, "looks like gzip, in more than 64 parts"),
    ],
)
def test_what_can_not_be_unpacked_says_so(value: bytes, detail: str) -> None:
    (reject,) = decoded(value).rejects

    assert reject.error_code == ErrorCode.UNREADABLE
    assert detail in reject.detail


def test_memory_counts_a_packed_value_as_what_it_may_hold() -> None:
    assert decoded_bytes(zipped(OBJECT)) > decoded_bytes(OBJECT)


@settings(derandomize=True, deadline=None)
@given(st.sampled_from([GZIP, ZSTD]), st.binary(max_size=100))
def test_any_packed_bytes_end_in_a_row_or_a_reason(magic: bytes, rest: bytes) -> None:
    result = decoded(magic + rest)

    assert len(result.rows) + len(result.rejects) == 1
