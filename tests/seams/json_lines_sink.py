"""A sink of a stranger: alerts as lines of a file. `python -m tests.seams.json_lines_sink run` is a worker that has it.

It says that it is busy once, before it writes for the first time.
"""

import os
import sys
from collections.abc import Collection
from pathlib import Path

from typing_extensions import override

from worker.alerts.encode import encode_alert
from worker.cli import main
from worker.errors import TransientError
from worker.records import Outcome, Partition
from worker.stream.sinks.base import SINKS, Sink


class JsonLinesSink(Sink):
    """Appends each alert to the file that ALERTS_FILE names."""

    def __init__(self) -> None:
        self._path = Path(os.environ["ALERTS_FILE"])
        self._lines: list[tuple[Partition, bytes]] = []
        self._refusals = 1

    @override
    def add(self, outcome: Outcome) -> None:
        for alert in outcome.alerts:
            self._lines.append((Partition(alert.message.topic, alert.message.partition), encode_alert(alert)))

    @override
    def flush(self, timeout_s: float) -> None:
        if self._lines and self._refusals:
            self._refusals -= 1
            raise TransientError("the file is busy")
        with self._path.open("ab") as file:
            file.writelines(line + b"\n" for _, line in self._lines)
        self._lines.clear()

    @override
    def discard(self, partitions: Collection[Partition]) -> None:
        self._lines = [entry for entry in self._lines if entry[0] not in partitions]


SINKS.register("json-lines", JsonLinesSink)

if __name__ == "__main__":
    sys.exit(main())
