"""One fit with the settings of this process: on a source of history, or on the newest records of the input topic."""

from worker.features.schema import Schema
from worker.model.network.fit import Progress
from worker.model.store.bundle import Bundle
from worker.processes.history import for_source, newest_records
from worker.processes.wiring import fit_options, make_decoder, utc_now
from worker.settings import Settings
from worker.sources.base import Source, messages_of
from worker.trainer.refit import refit, usable_rows


def fit_version(settings: Settings, schema: Schema, progress: Progress, source: Source | None = None) -> Bundle:
    """A version that is in no store yet.

    progress   called with step, steps and held-out error
    source     records to learn from; None: the newest ones of the input topic

    Raises DataError where the records are too few, and what reading and fitting raise.
    """
    window = settings.train.window_records
    source = source or newest_records(settings, settings.kafka.input_topic, window)
    return refit(
        schema,
        usable_rows(messages_of(source), window=window, decoder=make_decoder(for_source(settings, source))),
        fit_options(settings.model, settings.seed),
        source=source.name,
        minimum=settings.train.min_records,
        created_at=utc_now(),
        keep_rows=settings.train.rehearsal_records,
        progress=progress,
    )
