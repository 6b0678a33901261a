"""Progress on long work: a bar in a terminal, nothing when piped."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from worker.model.network.fit import Progress as FitProgress


@contextmanager
def fit_progress() -> Iterator[FitProgress]:
    """A bar on standard error for one fit; early stopping can end it before it is full."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("fitting"),
        BarColumn(),
        TextColumn("step {task.completed}/{task.total}, held-out error {task.fields[loss]:.4g}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("fit", total=None, loss=float("nan"))

        def update(step: int, steps: int, loss: float) -> None:
            bar.update(task, completed=step, total=steps, loss=loss)

        yield update
