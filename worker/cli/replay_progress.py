"""The bar of a replay: how far, records a second, time left."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from worker.replay.run.lines import Line
from worker.sources.lines import Meter


@contextmanager
def tracked(batches: Iterable[list[Line]], meter: Meter) -> Iterator[Iterator[list[Line]]]:
    """The same batches, with a bar on standard error while they are taken; nothing when piped."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("replaying"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[records]:,} records, {task.fields[rate]:,} a second"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("replay", total=meter.total or None, records=0, rate=0)

        def watched() -> Iterator[list[Line]]:
            records, started = 0, time.monotonic()
            for batch in batches:
                yield batch
                records += len(batch)
                rate = round(records / max(time.monotonic() - started, 1e-6))
                bar.update(task, total=meter.total or None, completed=meter.done, records=records, rate=rate)

        yield watched()
