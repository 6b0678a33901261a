"""The file that keeps the trainer's state over a restart: written whole, and read as if a stranger had written it.

The sha256 of what follows, and a NumPy archive without pickled objects: loading it executes nothing. An array is made
only of bytes that are there: what the archive claims is added up before it is unpacked, and what an array claims is
compared with what was unpacked.
"""

import hashlib
import io
import zipfile
import zlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import orjson
from numpy.lib import format as npy
from numpy.typing import NDArray

from worker.model.store.bundle import NAME
from worker.plain import read_json, read_plain
from worker.records import FloatArray
from worker.texts import quoted
from worker.trainer.drift import MAX_SCORES, DriftState
from worker.trainer.reservoir import Reservoir, ReservoirRecords

FORMAT = 2  # 1 had other keys
COLUMNS = ("time_ms", "number", "split_draw", "key")
TYPES = {
    "head": np.uint8,
    "values": np.uint8,
    "lengths": np.int64,
    "scores": np.float64,
    "time_ms": np.int64,
    "number": np.int64,
    "split_draw": np.float64,
    "key": np.float64,
}
MAX_HEAD_BYTES = 16 << 20
_OTHER_BYTES, _RECORD_BYTES = 32 << 20, 64  # of a state beside its records' values: head and scores; of each record
MAX_COUNT = 1 << 53


@dataclass(frozen=True, slots=True)
class BufferHead:
    """Of the scores since the last check: each step-th was kept of so many."""

    step: int
    seen: int


@dataclass(frozen=True, slots=True)
class Head:
    """All of the state that is no array. streak: state of traffic, checks, and records that had come before them."""

    format: int
    current: str
    next_offsets: tuple[tuple[str, int, int], ...]
    held: str | None
    seen: int
    streak: tuple[DriftState, int, int]
    checks: int
    vetoed: bool
    holding: bool
    buffer: BufferHead


def max_state_bytes(reservoir: Reservoir) -> int:
    """Of the state of a trainer with this reservoir, unpacked."""
    return reservoir.max_bytes + _RECORD_BYTES * reservoir.size + _OTHER_BYTES


def packed(head: Head, scores: FloatArray, records: ReservoirRecords) -> bytes:
    """The file's content."""
    archive = io.BytesIO()
    np.savez_compressed(
        archive,
        head=np.frombuffer(orjson.dumps(asdict(head)), np.uint8),
        values=np.frombuffer(b"".join(records.values), np.uint8),
        lengths=np.fromiter(map(len, records.values), np.int64, len(records)),
        scores=scores,
        **{name: getattr(records, name) for name in COLUMNS},
    )
    content = archive.getvalue()
    return hashlib.sha256(content).digest() + content


def unpacked(content: bytes, max_bytes: int) -> tuple[Head, FloatArray, ReservoirRecords]:
    """The inverse; ValueError where the content is damaged, of another format, or more than so many bytes unpacked."""
    if len(content) > max_bytes:
        raise ValueError(f"larger than {max_bytes:,} bytes")
    digest, archive = content[:32], content[32:]
    if hashlib.sha256(archive).digest() != digest:
        raise ValueError("its checksum does not match")
    arrays = _arrays(archive, max_bytes)
    document = read_json(arrays["head"].tobytes(), MAX_HEAD_BYTES)
    if isinstance(document, dict) and document.get("format") != FORMAT:
        raise ValueError(f"format {quoted(document.get('format'))}, this trainer reads format {FORMAT}")
    head = read_plain(Head, document)
    _require_head(head)
    scores = arrays["scores"]
    if len(scores) > 2 * MAX_SCORES or not np.isfinite(scores).all():
        raise ValueError("its scores are too many, or not finite")
    return head, scores, _records(arrays, head.seen)


def _arrays(archive: bytes, max_bytes: int) -> dict[str, NDArray[Any]]:
    """The arrays by name, each of one dimension; ValueError for any others."""
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as file:
            infos = {info.filename.removesuffix(".npy"): info for info in file.infolist()}
            if infos.keys() != TYPES.keys() or len(file.infolist()) != len(TYPES):
                raise ValueError("it holds other arrays")
            if sum(info.file_size for info in infos.values()) > max_bytes:
                raise ValueError(f"it unpacks to more than {max_bytes:,} bytes")
            return {name: _array(file.read(info), TYPES[name]) for name, info in infos.items()}
    except (zipfile.BadZipFile, zlib.error, EOFError, MemoryError, RuntimeError, OSError) as error:
        raise ValueError(str(error)) from error


def _array(content: bytes, kind: Any) -> NDArray[Any]:
    stream = io.BytesIO(content)
    if npy.read_magic(stream) != (1, 0):
        raise ValueError("an array of another version")
    shape, _, dtype = npy.read_array_header_1_0(stream)
    body = content[stream.tell() :]
    if dtype != np.dtype(kind) or shape != (len(body) // dtype.itemsize,) or len(body) % dtype.itemsize:
        raise ValueError(f"an array of {dtype} and shape {quoted(shape)}, with {len(body):,} bytes")
    return np.frombuffer(body, kind)


def _require_head(head: Head) -> None:
    numbers = [head.seen, head.checks, head.buffer.seen, *head.streak[1:]]
    numbers += [number for _, *place in head.next_offsets for number in place]
    if not all(0 <= number <= MAX_COUNT for number in numbers) or not 1 <= head.buffer.step <= MAX_COUNT:
        raise ValueError("a count in its head is out of range")
    if head.held is not None and not NAME.fullmatch(head.held):
        raise ValueError(f"held is {quoted(head.held)}, which is no name of a version")


def _records(arrays: dict[str, NDArray[Any]], seen: int) -> ReservoirRecords:
    lengths, joined = arrays["lengths"], arrays["values"].tobytes()
    columns = [arrays[name] for name in COLUMNS]
    if {len(lengths)} != set(map(len, columns)) or (lengths < 0).any() or lengths.astype(object).sum() != len(joined):
        raise ValueError("its parts do not belong together")
    _, number, split_draw, key = columns
    if not np.isfinite(key).all() or not ((split_draw > 0) & (split_draw < 1)).all():
        raise ValueError("a draw of a record is none")
    if ((number < 0) | (number >= seen)).any() or (np.diff(number) <= 0).any():
        raise ValueError("the places of its records are none")
    ends = np.cumsum(lengths).tolist()
    values = [joined[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=False)]
    return ReservoirRecords(values, *columns)
