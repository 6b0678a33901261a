"""Small files that unpack to gigabytes: read whole in a process that may have 1 GiB."""

import gzip
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

MIB = 1 << 20
PAD = "x" * MIB
# What replay does with a file before a model comes in: all of its blocks as batches of lines, with a label looked for.
READ = """
import gc, resource, sys
from worker.errors import DataError
from worker.processes.wiring import make_decoder
from worker.replay.lines import FieldLabels, Reader
from worker.settings import Settings
from worker.sources.files import Files
import pyarrow.parquet, zstandard

limit = 4 << 30  # of addresses: where a bound is missing, the machine that runs the tests goes on
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
gc.disable()  # as the worker makes it rare

def mib(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith(name))

for path in map(str.strip, sys.stdin):
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak begins anew
    before = mib("VmRSS")
    source, decoder = Files([path]), make_decoder(Settings())
    reader = Reader(labels=FieldLabels("label"), decoder=make_decoder(Settings(), any_size=True))
    records, fault = 0, ""
    try:
        for batch in reader.batches(source.blocks()):
            records += len(batch)
            decoder.decode(batch)
            del batch
    except DataError as error:
        fault = str(error)
    print(records, mib("VmHWM") - before, fault, sep="|", flush=True)
"""


@pytest.fixture(scope="module")
def reader() -> Iterator[Callable[[Path], list[str]]]:
    """Reads a file in another process: how many records, by how many MiB it grew, and the fault."""
    with subprocess.Popen(
        [sys.executable, "-c", READ], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        send, answer = process.stdin, process.stdout

        def read(path: Path) -> list[str]:
            send.write(f"{path}\n")
            send.flush()
            return answer.readline().rstrip("\n").split("|", 2)

        yield read
        send.close()


def packed_lines(path: Path, lines: Iterator[bytes]) -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        for line in lines:
            file.write(line + b"\n")


def large_records(path: Path) -> None:
    packed_lines(path, repeat(b'{"a":1,"pad":"' + PAD.encode()[:-40] + b'"}', 500))


def nested_arrays(path: Path) -> None:
    packed_lines(path, repeat(b'{"a":[' + b",".join([b"[]"] * 330_000) + b"]}", 30))


def one_line(path: Path) -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(500):
            file.write(b"[" * MIB)


def newlines(path: Path) -> None:
    packer = zstandard.ZstdCompressor(level=3).compressobj()
    path.write_bytes(b"".join(packer.compress(b"\n" * MIB) for _ in range(100)) + packer.flush())


def zstd_after_noise(path: Path) -> None:
    path.write_bytes(
        zstandard.ZstdCompressor().compress(os.urandom(MIB).hex().encode() + b"\n")
        + zstandard.ZstdCompressor().compress(b"\n" * (100 * MIB))
    )


def shared_value(path: Path) -> None:
    pad = pa.DictionaryArray.from_arrays(pa.array(np.zeros(500, np.int32)), pa.array([PAD[:-40]]))
    pq.write_table(pa.table({"a": range(500), "pad": pad}), path)


def shared_value_inside(path: Path) -> None:
    pad = pa.DictionaryArray.from_arrays(pa.array(np.zeros(500, np.int32)), pa.array([PAD[:-40]]))
    pq.write_table(pa.table({"outer": pa.StructArray.from_arrays([pad], ["pad"])}), path)


def large_pages(path: Path) -> None:
    pq.write_table(pa.table({"pad": [PAD] * 500}), path, use_dictionary=False, compression="zstd")


def large_lists(path: Path) -> None:
    values = pa.ListArray.from_arrays(np.arange(0, 501, dtype=np.int32) * 100_000, pa.array(np.zeros(50_000_000, "i1")))
    pq.write_table(pa.table({"n": values}), path, compression="zstd")


def shared_beginnings(path: Path) -> None:
    encoding = {"pad": "DELTA_BYTE_ARRAY"}
    pq.write_table(pa.table({"pad": [PAD[:-40]] * 500}), path, use_dictionary=False, column_encoding=encoding)


def wide_cells(path: Path) -> None:
    packed_lines(path, (line for part in ([b"a,pad"], repeat(b"1," + PAD.encode()[:-40], 500)) for line in part))


def unclosed_quote(path: Path) -> None:
    packed_lines(path, (line for part in ([b"a,b", b'1,"x'], repeat(b"1,2", 300_000)) for line in part))


@pytest.mark.parametrize(
    ("make", "name", "records", "said"),
    [
        (large_records, "r.jsonl.gz", 500, ""),
        (nested_arrays, "r.jsonl.gz", 30, ""),
        (one_line, "r.jsonl.gz", 0, "a line of more than 8,388,608 bytes"),
        (newlines, "r.jsonl.zst", 0, "no records"),
        (zstd_after_noise, "r.jsonl.zst", 1, ""),
        (shared_value, "r.parquet", 500, ""),
        (shared_value_inside, "r.parquet", 500, ""),
        (large_pages, "r.parquet", 0, "rows 0 to 499: a page of the column pad unpacks to"),
        (large_lists, "r.parquet", 500, ""),
        (shared_beginnings, "r.parquet", 500, ""),
        (wide_cells, "r.csv.gz", 500, ""),
        (unclosed_quote, "r.csv.gz", 300_000, ""),
    ],
)
def test_a_small_file_of_gigabytes_is_read_or_refused_within_half_a_gibibyte(
    tmp_path: Path,
    reader: Callable[[Path], list[str]],
    make: Callable[[Path], None],
    name: str,
    records: int,
    said: str,
) -> None:
    path = tmp_path / name
    make(path)

    read, grown_mib, fault = reader(path)

    assert int(read) == records
    assert said in fault
    assert int(grown_mib) < 450
