"""`worker train`: fit a model once, or keep fitting beside the worker."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.features.schema import Schema
    from worker.model.network.fit import Progress
    from worker.model.store.bundle import Bundle
    from worker.records import RawMessage
    from worker.settings import Settings

HELP = """Fit a model version on recent records of the input topic, or on a file, and put it into the model store.

With --once the new version becomes the current one: somebody asked for it. Without --once it runs beside the workers:
it fits the first version where there is none, then looks every WORKER_TRAIN__INTERVAL_S whether ordinary traffic has
moved. Only then it fits a candidate, and only one that is no worse anywhere and better somewhere takes over; the
verdict is in the log and in worker models show VERSION. SIGUSR1 asks for a look with a fit now."""
EXAMPLE = """worker train --once --from history.jsonl.gz --schema schema.toml
worker train"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--once", action="store_true", help="fit one version, promote it and exit")
    parser.add_argument("--from", dest="source", metavar="FILE", help="learn from JSONL (.gz, .zst), not from Kafka")
    parser.add_argument("--schema", metavar="FILE", help="schema file (default: WORKER_SCHEMA_FILE)")


def run(args: argparse.Namespace) -> int:
    """See HELP."""
    from worker.cli.hints import message_of
    from worker.errors import UsageError
    from worker.features.schema import load_schema
    from worker.processes.process import start_logs
    from worker.processes.wiring import tune_process
    from worker.settings import load_settings

    if args.source and not args.once:
        raise UsageError("--from needs --once: a file doesn't change")
    settings = load_settings()
    start_logs(settings, message_of)
    tune_process(settings)
    schema = load_schema(args.schema or settings.schema_file)
    if args.once:
        return _once(settings, schema, args.source)
    return _forever(settings, schema)


def _once(settings: "Settings", schema: "Schema", source: str | None) -> int:
    from worker.cli.progress import fit_progress
    from worker.processes.wiring import model_store

    store = model_store(settings)
    store.require_writable()
    with fit_progress() as progress:
        bundle = _fit(settings, schema, source, progress)
    store.save(bundle)
    store.promote(bundle.version)
    report = bundle.report
    print(
        f"model {bundle.version} is current in {settings.model_store}: {report['rows']} records learned, "
        f"{report['held_out_rows']} held out, error {report['held_out_loss']:.3g} "
        f"(always answering the average: {report['mean_predictor_loss']:.3g})"
    )
    for note in report["notes"]:
        print(f"note: {note}", file=sys.stderr)
    return 0


def _fit(settings: "Settings", schema: "Schema", source: str | None, progress: "Progress") -> "Bundle":
    from worker.processes.wiring import fit_options, make_decoder, utc_now
    from worker.trainer.refit import refit, usable_rows

    batches = _file_batches(source) if source else _topic_batches(settings)
    rows = usable_rows(batches, window=settings.train.window_records, decoder=make_decoder(settings))
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
    from worker.sources.lines import Meter, read_lines

    for first, lines in read_lines(path, Meter()):
        yield [Message(path, 0, first + i, -1, None, line) for i, line in enumerate(lines) if line.strip()]


def _topic_batches(settings: "Settings") -> "Iterator[Sequence[RawMessage]]":
    from worker.broker.ranges import TopicReader
    from worker.processes.wiring import connection

    reader = TopicReader(connection(settings), read_committed=True)
    try:
        yield reader.latest(settings.kafka.input_topic, settings.train.window_records)
    finally:
        reader.close(5.0)


def _forever(settings: "Settings", schema: "Schema") -> int:
    import signal

    from worker.processes.process import Stop
    from worker.processes.trainer_process import TrainerProcess

    stop, asked = Stop(), Asked()
    stop.install()
    signal.signal(signal.SIGUSR1, lambda number, frame: asked.ask())  # noqa: ARG005
    return TrainerProcess(
        settings,
        schema,
        should_stop=stop,
        wait=stop.wait,
        asked=asked,
        first_fit=lambda progress: _fit(settings, schema, None, progress),
    ).run()


class Asked:
    """A request that is answered once."""

    def __init__(self) -> None:
        self._waiting = False

    def ask(self) -> None:
        """From a signal handler."""
        self._waiting = True

    def __call__(self) -> bool:
        """Whether somebody asked since the last call."""
        waiting, self._waiting = self._waiting, False
        return waiting
