"""Progress on long work: a bar on standard error where that is a terminal, nothing when piped."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich import progress
from rich.console import Console
from typing_extensions import override

from worker.cli.hints import message_of
from worker.model.network.fit import Progress
from worker.processes.replay_job import Display
from worker.replay.lines import Batches, Line
from worker.sources.base import Meter
from worker.texts import printable


def _bar(work: str, *columns: progress.ProgressColumn) -> progress.Progress:
    console = Console(stderr=True)
    columns = (progress.TextColumn(work), progress.BarColumn(), *columns, progress.TimeRemainingColumn())
    return progress.Progress(*columns, console=console, disable=not console.is_terminal)


@contextmanager
def fit_progress() -> Iterator[Progress]:
    """A bar for one fit; early stopping can end it before it is full."""
    fields = progress.TextColumn("step {task.completed}/{task.total}, held-out error {task.fields[loss]:.4g}")
    with _bar("fitting", fields, progress.TimeElapsedColumn()) as bar:
        task = bar.add_task("fit", total=None, loss=float("nan"))
        yield lambda step, steps, loss: bar.update(task, completed=step, total=steps, loss=loss)


class TerminalDisplay(Display):
    """What a replay shows on standard error."""

    fit = staticmethod(fit_progress)

    @override
    def note(self, text: str) -> None:
        sys.stderr.write(f"note: {printable(message_of(text))}\n")

    @override
    @contextmanager
    def track(self, batches: Batches, meter: Meter) -> Iterator[Batches]:
        fields = progress.TextColumn("{task.fields[records]:,} records, {task.fields[rate]:,} a second")
        with _bar("replaying", progress.TaskProgressColumn(), fields) as bar:
            task = bar.add_task("replay", total=meter.total or None, records=0, rate=0)

            def tracked() -> Iterator[list[Line]]:
                records, started = 0, time.monotonic()
                for batch in batches:
                    yield batch
                    records += len(batch)
                    rate = round(records / max(time.monotonic() - started, 1e-6))
                    bar.update(task, total=meter.total or None, completed=meter.done, records=records, rate=rate)

            yield tracked()
