"""One fit with the settings of this process: on a source of history, or on the newest records of the input topic."""

from collections import deque

from worker.errors import DataError
from worker.features.schema import Schema
from worker.formats.base import Row
from worker.model.learn import fit_bundle
from worker.model.network.fit import Progress
from worker.model.store.bundle import Bundle
from worker.processes.history import for_source, newest_records
from worker.processes.wiring import fit_options, make_decoder, utc_now
from worker.settings import Settings
from worker.sources.base import Source, messages_of


def fit_version(settings: Settings, schema: Schema, progress: Progress, source: Source | None = None) -> Bundle:
    """A version that is in no store yet.

    progress   called with step, steps and held-out error
    source     records to learn from; None: the newest ones of the input topic

    Raises DataError where the records are too few, and what reading and fitting raise.
    """
    train = settings.train
    source = source or newest_records(settings, settings.kafka.input_topic, train.window_records)
    decoder = make_decoder(for_source(settings, source))
    rows: deque[Row] = deque(maxlen=train.window_records)
    for messages in messages_of(source):
        rows.extend(decoder.decode(messages).rows)
    if len(rows) < train.min_records:
        raise DataError(
            f"{source.name} holds {len(rows)} usable records, fewer than [train.min_records] = {train.min_records}"
        )
    return fit_bundle(
        schema,
        list(rows),
        fit_options(settings.model, settings.seed),
        created_at=utc_now(),
        progress=progress,
        facts={"source": source.name},
        keep_rows=train.rehearsal_records,
    )
