"""The replay loop: batches of lines through the live pipeline, everything counted and written as it goes."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from worker.errors import DataError
from worker.pipeline import Pipeline
from worker.records import Outcome
from worker.replay.evaluate.metrics import measure
from worker.replay.evaluate.tally import Tally
from worker.replay.run.labels import NORMAL, Label
from worker.replay.run.lines import Line
from worker.replay.run.outputs import AlertsFile, ScoresFile

Batches = Iterable[list[Line]]


class Observer(Protocol):
    """Sees every batch of a replay and what it led to, in input order."""

    def add(self, lines: list[Line], outcome: Outcome, groups: NDArray[np.int8]) -> None:
        """groups: UNKNOWN, NORMAL or ANOMALOUS for each scored record of the outcome, int8 (B,)."""


@dataclass(slots=True)
class Result:
    """What one replay led to.

    tally       counts
    metrics     as in metrics.json, see worker.replay.evaluate.metrics
    strongest   JSON and label of the 50 alerts with the highest scores
    fault       why the input broke off, where it did
    """

    tally: Tally
    metrics: dict[str, Any]
    strongest: list[tuple[bytes, Label]]
    fault: DataError | None


def replay(
    batches: Batches,
    pipeline: Pipeline,
    folder: Path,
    *,
    labelled: bool,
    latent: bool = False,
    observers: Iterable[Observer] = (),
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> Result:
    """Score every batch and write alerts.jsonl and scores.parquet into `folder`, which must exist.

    A DataError of the input ends the run where it happened; what came before is kept, and the error is in the result.
    DataError where nothing at all was read.

    labelled    scores.parquet has a column with labels
    latent      and one with latents, which the pipeline's model gives
    observers   see each batch after it was written
    seed        of the intervals in the metrics
    clock       seconds, for the rate
    """
    tally = Tally()
    observers = list(observers)
    started = clock()
    with ExitStack() as stack:
        alerts = stack.enter_context(closing(AlertsFile(folder)))
        scores = stack.enter_context(closing(ScoresFile(folder, labelled=labelled, latent=latent)))
        fault = None
        try:
            for lines in batches:
                outcome = pipeline.process(lines)
                groups = tally.add(outcome)
                alerts.add(outcome)
                scores.add(outcome, groups)
                for observer in observers:
                    observer.add(lines, outcome, groups)
        except DataError as error:
            fault = error
    elapsed = clock() - started
    metrics = measure(tally, seed=seed)
    if not metrics["records"]:
        raise fault or DataError("no records to replay: the input is empty")
    run = {
        "records_per_s": round(metrics["records"] / elapsed) if elapsed > 0 else None,
        "elapsed_s": round(elapsed, 3),
        "complete": fault is None,
        "error": None if fault is None else str(fault),
    }
    return Result(tally, {**metrics, **run}, alerts.strongest(), fault)


def split_for_fit(batches: Batches, count: int, *, normal_only: bool) -> tuple[list[Line], Iterator[list[Line]]]:
    """The first `count` records to fit on, and everything after them, in order.

    normal_only: those of them that are labelled anomalous are left out of the fit. They aren't replayed either, so that
    the replay has no gaps. DataError where the input has no more than `count` records.
    """
    source = iter(batches)
    chosen: list[Line] = []
    while len(chosen) <= count:
        batch = next(source, None)
        if batch is None:
            raise DataError(f"the input has {len(chosen)} records: nothing is left to replay after fitting on {count}")
        chosen += batch
    first, rest = chosen[:count], chosen[count:]
    usable = [line for line in first if not (normal_only and line.label not in (None, NORMAL))]
    return usable, chain([rest], source)
