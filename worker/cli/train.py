"""`worker train`: fit a model once, or keep fitting beside the worker."""

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.features.schema import Schema
    from worker.model.bundle import Bundle
    from worker.records import RawMessage
    from worker.settings import Settings

HELP = """Fit a model version on recent records of the input topic, or on a file, and put it into the model store.

The first version becomes the current one at once. With --once the new version is promoted too: somebody asked for it.
Without --once it waits for records, fits the first version, then a candidate every WORKER_TRAIN__INTERVAL_S; candidates
are kept in the store and promoted by hand (worker models promote VERSION)."""
EXAMPLE = """worker train --once --from history.jsonl.gz --schema schema.toml
worker train"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--once", action="store_true", help="fit one version, promote it and exit")
    parser.add_argument("--from", dest="source", metavar="FILE", help="learn from JSONL (.gz, .zst), not from Kafka")
    parser.add_argument("--schema", metavar="FILE", help="schema file (default: WORKER_SCHEMA_FILE)")


def run(args: argparse.Namespace) -> int:
    """See HELP."""
    from worker.cli.wiring import tune_process
    from worker.errors import UsageError
    from worker.features.schema import load_schema
    from worker.ops.logs import configure_logs
    from worker.settings import load_settings

    if args.source and not args.once:
        raise UsageError("--from needs --once: a file doesn't change")
    settings = load_settings()
    configure_logs(settings.log.format, settings.log.level, secrets=settings.secrets())
    tune_process(settings)
    schema = load_schema(args.schema or settings.schema_file)
    if args.once:
        return _once(settings, schema, args.source)
    return _forever(settings, schema)


def _once(settings: "Settings", schema: "Schema", source: str | None) -> int:
    from worker.cli.wiring import model_store

    store = model_store(settings)
    store.require_writable()
    bundle = _fit(settings, schema, source)
    store.save(bundle)
    store.promote(bundle.version)
    report = bundle.report
    print(
        f"model {bundle.version} is current in {settings.model_store}: {report['rows']} records learned, "
        f"{report['held_out_rows']} held out, error {report['held_out_loss']:.3g} "
        f"(always answering the average: {report['mean_predictor_loss']:.3g})"
    )
    return 0


def _fit(settings: "Settings", schema: "Schema", source: str | None) -> "Bundle":
    from worker.cli.progress import fit_progress
    from worker.cli.wiring import fit_options, utc_now
    from worker.trainer.refit import refit, usable_rows

    batches = _file_batches(source) if source else _topic_batches(settings)
    rows = usable_rows(batches, window=settings.train.window_records, max_record_bytes=settings.batch.max_record_bytes)
    with fit_progress() as progress:
        return refit(
            schema,
            rows,
            fit_options(settings.model, settings.seed),
            source=source or f"topic {settings.kafka.input_topic}",
            minimum=settings.train.min_records,
            created_at=utc_now(),
            keep_rows=settings.train.rehearsal_records,
            progress=progress,
        )


def _file_batches(path: str) -> "Iterator[Sequence[RawMessage]]":
    from worker.records import Message
    from worker.replay.source import Meter, read_lines

    for first, lines in read_lines(path, Meter()):
        yield [Message(path, 0, first + i, -1, None, line) for i, line in enumerate(lines) if line.strip()]


def _topic_batches(settings: "Settings") -> "Iterator[Sequence[RawMessage]]":
    from worker.broker.ranges import TopicReader
    from worker.cli.wiring import connection

    reader = TopicReader(connection(settings), read_committed=True)
    try:
        yield reader.latest(settings.kafka.input_topic, settings.train.window_records)
    finally:
        reader.close(5.0)


def _forever(settings: "Settings", schema: "Schema") -> int:
    import structlog

    from worker.cli.run import Stop
    from worker.cli.wiring import model_store
    from worker.errors import DataError, TransientError

    stop, store, log = Stop(), model_store(settings), structlog.get_logger()
    stop.install()
    store.require_writable()
    wait_s = 0.0
    while not stop.wait(wait_s):
        try:
            bundle = _fit(settings, schema, None)
        except (DataError, TransientError) as error:
            log.warning("nothing to fit yet", reason=str(error))
            wait_s = min(10.0, settings.train.interval_s)
            continue
        store.save(bundle)
        first = store.current() is None
        if first:
            store.promote(bundle.version)
        store.prune(settings.train.keep_versions)
        log.info("fitted", version=bundle.version, promoted=first, held_out_loss=bundle.report["held_out_loss"])
        wait_s = settings.train.interval_s
    return 0
