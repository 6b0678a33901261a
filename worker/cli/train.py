"""`worker train`: fit a model once, or keep fitting beside the worker."""

import argparse
import sys

from worker.cli.inputs import FILES, format_argument, source_request, topic_arguments

HELP = """Fit a model version on recent records of the input topic, on another topic or on files, and put it into the
model store.

With --once the new version becomes the current one: a person asked for it. Without --once it runs beside the workers:
it fits the first version where there is none, then checks every WORKER_TRAIN__INTERVAL_S whether normal traffic has
drifted. Only then it fits a candidate, and only one that is no worse anywhere and better somewhere takes over; the
verdict is in the log and in worker models show VERSION. SIGUSR1 asks for a check with a fit now."""
EXAMPLE = """worker train --once --from history.jsonl.gz --schema schema.toml
worker train"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--once", action="store_true", help="fit one version, promote it and exit")
    text = f"learn from files: {FILES}; with --topic, its first broker timestamp (ISO 8601)"
    parser.add_argument("--from", dest="file", nargs="+", action="extend", default=[], metavar="FILE|TIME", help=text)
    topic_arguments(parser, "to learn from (default: WORKER_KAFKA__INPUT_TOPIC): its newest records, or a range of it")
    format_argument(parser)
    parser.add_argument("--schema", metavar="FILE", help="schema file (default: WORKER_SCHEMA_FILE)")


def run(args: argparse.Namespace) -> int:
    """Fit once and say what came of it, or run the trainer until it is told to stop."""
    from worker.cli.hints import message_of
    from worker.cli.progress import fit_progress
    from worker.errors import UsageError
    from worker.features.schema import load_schema
    from worker.processes.inputs import open_source
    from worker.processes.process import Request, Stop, start_logs, tune_process
    from worker.processes.trainer_process import TrainerProcess
    from worker.processes.wiring import fit_version, model_store, unknown_redacted
    from worker.settings import load_settings
    from worker.texts import printable

    if (args.file or args.topic or args.end) and not args.once:
        raise UsageError("--from, --to and --topic need --once: the trainer follows WORKER_KAFKA__INPUT_TOPIC")
    args.start = None
    if args.topic and args.file:  # of a topic, --from is a time
        if len(args.file) > 1:
            raise UsageError("--topic and --from: either files, or a topic from one time on")
        args.start, args.file = args.file[0], []
    settings = load_settings()
    if not args.file and not args.topic:
        args.topic = settings.kafka.input_topic
    start_logs(settings, message_of)
    tune_process(settings)
    schema = load_schema(args.schema or settings.schema_file)
    if (unknown := unknown_redacted(settings, schema)) is not None:
        print(f"note: {message_of(unknown)}", file=sys.stderr)
    if not args.once:
        return TrainerProcess(settings, schema, stop=Stop(), asked=Request(), message_of=message_of).run()
    store = model_store(settings)
    store.require_writable()
    source = open_source(settings, source_request(args), schema, newest=settings.train.window_records)
    with fit_progress() as progress:
        bundle = fit_version(settings, schema, progress, source)
    store.save(bundle)
    store.promote(bundle.version)
    report = bundle.report
    print(
        f"model {bundle.version} is current in {settings.model_store}: {report['rows']} records learned, "
        f"{report['held_out_rows']} held out, error {report['held_out_loss']:.3g} "
        f"(always answering the average: {report['mean_predictor_loss']:.3g})"
    )
    for note in [*report["notes"], *(report[name] for name in ("left_out", "unreadable") if name in report)]:
        print(f"note: {printable(message_of(note))}", file=sys.stderr)
    return 0
