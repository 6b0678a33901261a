"""A small labelled recording for the tests of replay."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

from devtools import traffic
from worker.replay.lines import FieldLabels, Line, Reader
from worker.replay.loop import Result, replay
from worker.sources.base import Block

LABEL = "fraud"


def values(count: int = 3000) -> list[bytes]:
    """The tests' traffic with a label and times that go forward, 200 records a day."""
    recorded_values = []
    for number, message in enumerate(traffic.messages(count)):
        row = orjson.loads(message.value or b"")
        minute = number * 1440 // 200
        row["at"] = f"2026-01-{minute // 1440 + 1:02d}T{minute // 60 % 24:02d}:{minute % 60:02d}:00Z"
        row[LABEL] = int(number % 50 == 49)
        recorded_values.append(orjson.dumps(row))
    return recorded_values


def batches(
    recorded: Iterable[bytes], *, size: int = 512, partitions: int = 1, label: str | None = LABEL
) -> Iterator[list[Line]]:
    labels = FieldLabels(label) if label else None
    reader = Reader(
        batch_size=size, partitions=partitions, key_field="channel" if partitions > 1 else None, labels=labels
    )
    return reader.batches([Block(list(recorded))])


def run(
    recorded: Iterable[bytes], folder: Path, *, labelled: bool = True, observers: Iterable[Any] = (), **options: Any
) -> Result:
    """Replay values with the tests' small model."""
    folder.mkdir(exist_ok=True)
    lines = batches(recorded, label=LABEL if labelled else None, **options)
    return replay(lines, traffic.pipeline(), folder, labelled=labelled, observers=observers)
