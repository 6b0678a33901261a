"""What the trainer remembers over its own restart, in one file of plain arrays; a damaged one is refused, not believed.

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
from worker.trainer.drift import Condition
from worker.trainer.reservoir import Reservoir, Sample
from worker.trainer.trainer import Trainer

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered beside the trainer's own state. next_offsets: where reading goes on; held: the candidate that
    waits for a person."""

    next_offsets: dict[Partition, int] = field(default_factory=dict)
    held: str | None = None


def save(path: Path, trainer: Trainer, memory: Memory) -> None:
    """Write it so that a crash leaves the old file or the new. OSError where the disk is full."""
    sample, window = trainer.window.sample(), trainer.window
    condition, looks, since = trainer.streak
    head: dict[str, Any] = {
        "format": FORMAT,
        "champion": trainer.champion.bundle.version,
        "next_offsets": [[*partition, offset] for partition, offset in memory.next_offsets.items()],
        "held": memory.held,
        "seen": window.seen,
        "streak": [condition.value, looks, since],
        "looks": trainer.looks,
        "vetoed": trainer.vetoed,
        "holding": trainer.holding,
        "stretch": [trainer.stretch.step, trainer.stretch.seen],
    }
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        head=np.frombuffer(orjson.dumps(head), np.uint8),
        values=np.frombuffer(b"".join(sample.values), np.uint8),
        lengths=np.fromiter(map(len, sample.values), np.int64, len(sample)),
        time_ms=sample.time_ms,
        number=sample.number,
        fold=sample.fold,
        key=window.keys(),
        scores=trainer.stretch.scores(),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    content = buffer.getvalue()
    write_atomically(path, hashlib.sha256(content).digest() + content)


def restore(path: Path, trainer: Trainer) -> Memory:
    """Go on from a file. ValueError where it is damaged or of another format, FileNotFoundError where there is none.

    Records stay what they are under another champion; scores and looks of another champion are forgotten.
    """
    try:
        with np.load(io.BytesIO(_checked(path.read_bytes())), allow_pickle=False) as archive:
            parts = {name: archive[name] for name in archive.files}
        head = orjson.loads(parts["head"].tobytes())
        _require_format(head["format"])
        _restore_window(trainer.window, parts, head["seen"])
        trainer.looks = head["looks"]
        if head["champion"] == trainer.champion.bundle.version:
            condition, looks, since = head["streak"]
            trainer.streak = (Condition(condition), looks, since)
            trainer.holding = head["holding"]
            step, told = head["stretch"]
            trainer.stretch.restore(parts["scores"], step=step, seen=told)
        trainer.vetoed = head["vetoed"]
        offsets = {Partition(topic, number): offset for topic, number, offset in head["next_offsets"]}
        return Memory(offsets, head["held"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _checked(content: bytes) -> bytes:
    digest, archive = content[:32], content[32:]
    if hashlib.sha256(archive).digest() != digest:
        raise ValueError("its checksum does not match")
    return archive


def _require_format(found: object) -> None:
    if found != FORMAT:
        raise ValueError(f"format {found}, this trainer reads format {FORMAT}")


def _restore_window(window: Reservoir, parts: dict[str, Any], seen: int) -> None:
    ends = np.cumsum(parts["lengths"]).tolist()
    blob = parts["values"].tobytes()
    values = [blob[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=False)]
    rows = {len(values), *(len(parts[name]) for name in ("time_ms", "number", "fold", "key"))}
    if len(rows) != 1 or (ends and ends[-1] != len(blob)):
        raise ValueError("its parts do not belong together")
    window.restore(Sample(values, parts["time_ms"], parts["number"], parts["fold"]), parts["key"], seen)
