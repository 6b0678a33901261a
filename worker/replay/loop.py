"""The replay loop: batches of lines through the live pipeline, everything counted and written as it goes."""

import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from worker.errors import DataError
from worker.pipeline import Pipeline
from worker.records import Outcome
from worker.replay.lines import Batches, Label, Line
from worker.replay.metrics import measure
from worker.replay.outputs import AlertsFile, ScoresFile
from worker.replay.tally import Tally


class Observer(Protocol):
    """Sees every batch of a replay and what it led to, in input order."""

    def add(self, lines: list[Line], outcome: Outcome, groups: NDArray[np.int8]) -> None:
        """groups: UNKNOWN, NORMAL or ANOMALOUS for each scored record of the outcome, int8 (B,)."""


@dataclass(slots=True)
class Result:
    """What one replay led to.

    tally       counts
    metrics     as in metrics.json, see worker.replay.metrics
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
    tally, observers, fault = Tally(), list(observers), None
    started = clock()
    with ExitStack() as stack:
        alerts = stack.enter_context(closing(AlertsFile(folder)))
        scores = stack.enter_context(closing(ScoresFile(folder, labelled=labelled, latent=latent)))
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
    metrics |= {
        "records_per_s": round(metrics["records"] / elapsed) if elapsed > 0 else None,
        "elapsed_s": round(elapsed, 3),
        "complete": fault is None,
        "error": None if fault is None else str(fault),
    }
    return Result(tally, metrics, [(value, label) for _, _, value, label in alerts.strongest], fault)
