"""Whether a replay judges a model by records that it was fitted on: its figures are too good then."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from worker.records import Outcome
from worker.replay.lines import Line
from worker.replay.loop import Observer
from worker.sources.history import History

MIN_SHARE = 0.01  # of the records in the time of the fit: fewer are late ones


class FitOverlap(Observer):
    """Counts the records that a model may know, by its report: what it was fitted on, and between which times.

    Says nothing of a model whose report doesn't tell, such as one that was fitted on the start of the input itself.
    Works badly where two sources have the same times and nothing else in common: they are taken for the same.

    report   the report of the model's fit
    """

    def __init__(self, report: Mapping[str, Any]) -> None:
        self._fitted = History.from_json(report.get("history"))
        self._times: tuple[int, int] | None = None
        match report.get("event_times_ms"):
            case [int(low), int(high)]:
                self._times = low, high
        self._ranges = {(part.topic, part.partition): (part.first, part.last) for part in self._fitted.offsets}
        self._records = self._within_times = self._within_offsets = 0

    @override
    def add(self, lines: list[Line], outcome: Outcome, groups: NDArray[np.int8]) -> None:
        self._records += len(lines)
        if self._times is not None:
            low, high = self._times
            times = outcome.scores.event_time_ms
            self._within_times += int(((times >= low) & (times <= high)).sum())
        if self._ranges:
            nowhere = (0, -1)
            for line in lines:
                first, last = self._ranges.get((line.topic, line.partition), nowhere)
                self._within_offsets += first <= line.offset <= last

    def finish(self, replayed: History) -> dict[str, Any]:
        """What metrics.json says: how many records, and by what they are known. replayed: what was read."""
        topics = {part.topic for part in self._fitted.offsets} & {part.topic for part in replayed.offsets}
        if set(self._fitted.files) & set(replayed.files):
            return {"by": "file", "records": self._records}
        if topics:
            return {"by": "offsets" if self._within_offsets else None, "records": self._within_offsets}
        if self._within_times > MIN_SHARE * self._records:
            return {"by": "time", "records": self._within_times}
        return {"by": None, "records": 0}


def overlap_text(overlap: Mapping[str, Any]) -> str:
    """One line for a person; empty where there is no overlap.

    >>> overlap_text({"by": "time", "records": 1200})
    'the model was fitted on records of the same time as 1,200 of these: its figures may be too good'
    """
    count = f"{overlap['records']:,}"
    return {
        None: "",
        "file": "the model was fitted on a file that is replayed here: its figures here are too good",
        "offsets": f"the model was fitted on {count} of these records: its figures here are too good",
        "time": f"the model was fitted on records of the same time as {count} of these: its figures may be too good",
    }[overlap["by"]]
