"""What the trainer keeps over its own restart, in one file of plain arrays; a damaged one is refused, not believed.

The file is the sha256 of what follows, and a NumPy archive without pickled objects.
"""

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from worker.model.store.volume import write_atomically
from worker.records import Partition
from worker.trainer.drift import DriftState, ScoreBuffer
from worker.trainer.reservoir import ReservoirRecords
from worker.trainer.trainer import Streak, Trainer

FORMAT = 1
COLUMNS = ("time_ms", "number", "split_draw", "key")


@dataclass(frozen=True, slots=True)
class SavedState:
    """What is kept beside the trainer's own state.

    next_offsets   where reading goes on
    held           the candidate that waits for a person
    """

    next_offsets: dict[Partition, int] = field(default_factory=dict)
    held: str | None = None


def save(path: Path, trainer: Trainer, state: SavedState) -> None:
    """Write it so that a crash leaves the old file or the new. OSError where the disk is full."""
    records = trainer.reservoir.records()
    head = {
        "format": FORMAT,
        "current": trainer.current.bundle.version,
        "next_offsets": [[*partition, offset] for partition, offset in state.next_offsets.items()],
        "held": state.held,
        "seen": trainer.reservoir.seen,
        "streak": list(trainer.streak),
        "checks": trainer.checks,
        "vetoed": trainer.vetoed,
        "holding": trainer.holding,
        "buffer": {"step": trainer.buffer.step, "seen": trainer.buffer.seen},
    }
    archive = io.BytesIO()
    np.savez_compressed(
        archive,
        head=np.frombuffer(orjson.dumps(head), np.uint8),
        values=np.frombuffer(b"".join(records.values), np.uint8),
        lengths=np.fromiter(map(len, records.values), np.int64, len(records)),
        scores=trainer.buffer.scores,
        **{name: getattr(records, name) for name in COLUMNS},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    content = archive.getvalue()
    write_atomically(path, hashlib.sha256(content).digest() + content)


def restore(path: Path, trainer: Trainer) -> SavedState:
    """Go on from a file. ValueError where it is damaged or of another format, FileNotFoundError where there is none.

    Records stay what they are under another current version; scores and checks of another are forgotten.
    """
    content = path.read_bytes()
    try:
        head, parts = _unpacked(content)
        trainer.reservoir.restore(_records(parts), head["seen"])
        trainer.checks = head["checks"]
        if head["current"] == trainer.current.bundle.version:
            state, checks, since = head["streak"]
            trainer.streak = Streak(DriftState(state), checks, since)
            trainer.holding = head["holding"]
            trainer.buffer = ScoreBuffer(parts["scores"], **head["buffer"])
        trainer.vetoed = head["vetoed"]
        offsets = {Partition(topic, number): offset for topic, number, offset in head["next_offsets"]}
        return SavedState(offsets, head["held"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _unpacked(content: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    digest, archive = content[:32], content[32:]
    if hashlib.sha256(archive).digest() != digest:
        raise ValueError("its checksum does not match")
    with np.load(io.BytesIO(archive), allow_pickle=False) as arrays:
        parts = {name: arrays[name] for name in arrays.files}
    head = orjson.loads(parts["head"].tobytes())
    if head["format"] != FORMAT:
        raise ValueError(f"format {head['format']}, this trainer reads format {FORMAT}")
    return head, parts


def _records(parts: dict[str, Any]) -> ReservoirRecords:
    ends = np.cumsum(parts["lengths"]).tolist()
    joined = parts["values"].tobytes()
    values = [joined[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=False)]
    columns = [parts[name] for name in COLUMNS]
    if {len(values)} != set(map(len, columns)) or (ends and ends[-1] != len(joined)):
        raise ValueError("its parts do not belong together")
    return ReservoirRecords(values, *columns)
