"""Progress on long work: a bar in a terminal, nothing when piped."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from typing_extensions import override

from worker.model.network.fit import Progress as FitProgress
from worker.processes.replay_job import Batches, Display
from worker.replay.lines import Line
from worker.sources.base import Meter


@contextmanager
def fit_progress() -> Iterator[FitProgress]:
    """A bar on standard error for one fit; early stopping can end it before it is full."""
    fields = "step {task.completed}/{task.total}, held-out error {task.fields[loss]:.4g}"
    with _bar(
        TextColumn("fitting"), BarColumn(), TextColumn(fields), TimeElapsedColumn(), TimeRemainingColumn()
    ) as bar:
        task = bar.add_task("fit", total=None, loss=float("nan"))

        def update(step: int, steps: int, loss: float) -> None:
            bar.update(task, completed=step, total=steps, loss=loss)

        yield update


class TerminalDisplay(Display):
    """What a replay shows on standard error."""

    fit = staticmethod(fit_progress)

    @override
    def note(self, text: str) -> None:
        sys.stderr.write(f"note: {text}\n")

    @override
    @contextmanager
    def track(self, batches: Batches, meter: Meter) -> Iterator[Batches]:
        fields = TextColumn("{task.fields[records]:,} records, {task.fields[rate]:,} a second")
        with _bar(TextColumn("replaying"), BarColumn(), TaskProgressColumn(), fields, TimeRemainingColumn()) as bar:
            task = bar.add_task("replay", total=meter.total or None, records=0, rate=0)

            def tracked() -> Iterator[list[Line]]:
                records, started = 0, time.monotonic()
                for batch in batches:
                    yield batch
                    records += len(batch)
                    rate = round(records / max(time.monotonic() - started, 1e-6))
                    bar.update(task, total=meter.total or None, completed=meter.done, records=records, rate=rate)

            yield tracked()


def _bar(*columns: TextColumn | BarColumn | TimeElapsedColumn | TimeRemainingColumn) -> Progress:
    console = Console(stderr=True)
    return Progress(*columns, console=console, disable=not console.is_terminal)
