"""One fit with the settings of this process: on a file, or on the newest records of the input topic."""

from collections.abc import Iterator, Sequence

from worker.broker.ranges import TopicReader
from worker.features.schema import Schema
from worker.model.network.fit import Progress
from worker.model.store.bundle import Bundle
from worker.processes.process import CLOSE_S
from worker.processes.wiring import connection, fit_options, make_decoder, utc_now
from worker.records import Message, RawMessage
from worker.settings import Settings
from worker.sources.lines import Meter, read_lines
from worker.trainer.refit import refit, usable_rows


def fit_version(settings: Settings, schema: Schema, progress: Progress, path: str | None = None) -> Bundle:
    """A version that is in no store yet.

    progress   called with step, steps and held-out error
    path       file to learn from; None: the newest records of the input topic

    Raises DataError where the records are too few, and what reading and fitting raise.
    """
    batches = _of_file(path) if path else _of_topic(settings)
    return refit(
        schema,
        usable_rows(batches, window=settings.train.window_records, decoder=make_decoder(settings)),
        fit_options(settings.model, settings.seed),
        source=path or f"topic {settings.kafka.input_topic}",
        minimum=settings.train.min_records,
        created_at=utc_now(),
        keep_rows=settings.train.rehearsal_records,
        progress=progress,
    )


def _of_file(path: str) -> Iterator[Sequence[RawMessage]]:
    for first, lines in read_lines(path, Meter()):
        yield [Message(path, 0, first + i, -1, None, line) for i, line in enumerate(lines) if line.strip()]


def _of_topic(settings: Settings) -> Iterator[Sequence[RawMessage]]:
    reader = TopicReader(connection(settings), read_committed=True)
    try:
        yield reader.latest(settings.kafka.input_topic, settings.train.window_records)
    finally:
        reader.close(CLOSE_S)
