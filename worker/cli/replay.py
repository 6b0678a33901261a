"""`worker replay`: the live pipeline on recorded traffic, and a report."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from worker.cli.arguments import number, whole_number
from worker.cli.inputs import replay_arguments, source_request

if TYPE_CHECKING:
    from worker.processes.replay_job import Job
    from worker.replay.loop import Result
    from worker.settings import Settings

HELP = """Score recorded traffic exactly as `worker run` would, and write alerts.jsonl, scores.parquet, metrics.json and
report.html. Input: files, - for standard input, a range of a topic, or a sample. The model is the store's current one
or --model; --fit-first fits one on the start of the input instead, which also happens where the store has none. A label
never reaches the model."""
EXAMPLE = """worker replay march.jsonl.gz --schema schema.toml --label is_fraud
worker replay march.jsonl.gz --sweep threshold.quantile=0.99,0.995,0.999
worker replay --topic payments --from 2026-03-01 --to 2026-03-08 --compare 3f9a1c20b7de
worker replay march.jsonl.gz --fit-first 20000 --refit-every 5000 --label is_fraud
worker replay march.jsonl.gz --label is_fraud --fail-under roc_auc=0.95 --fail-over alerts_per_day=500"""

OUT = "out/replay"
SAMPLE_FIT = 20_000
SUMMARY = {
    "records": "records",
    "records_per_s": "records a second",
    "alerts": "alerts",
    "alerts_per_day": "alerts a day",
    "dead_letters": "dead letters",
    "roc_auc": "ROC-AUC",
    "average_precision": "average precision",
    "precision_at_threshold": "precision at the threshold",
    "recall_at_threshold": "recall at the threshold",
    "false_alert_rate": "false alert rate",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    replay_arguments(parser)
    model = parser.add_argument_group("model")
    model.add_argument("--schema", metavar="FILE", help="schema file (default: the model's own, else proposed)")
    model.add_argument("--model", metavar="VERSION", help="model version (default: the store's current one)")
    model.add_argument(
        "--fit-first", type=whole_number(1), metavar="N", help="fit on the first N records, replay the rest"
    )
    text = "with labels: fit on records that are not labelled anomalous (default), or on all"
    model.add_argument("--fit-on", choices=("normal", "all"), default="normal", help=text)
    model.add_argument("--refit-every", type=whole_number(1), metavar="N", help="let the trainer check every N records")
    label_arguments(parser)
    ask = parser.add_argument_group("what if")
    ask.add_argument("--sweep", metavar="NAME=A,B,C", help="other values of a threshold setting, scored once")
    ask.add_argument("--compare", metavar="VERSION", help="a second model version on the same records")
    ask.add_argument("--fail-under", action="append", default=[], metavar="KEY=X", help="exit 1 if a metric is lower")
    ask.add_argument("--fail-over", action="append", default=[], metavar="KEY=X", help="exit 1 if a metric is higher")
    text = "add each record's latent to scores.parquet, and a chart to the report"
    parser.add_argument("--latent", action="store_true", help=text)
    parser.add_argument("--out", default=OUT, metavar="DIR", help=f"folder for the results (default: {OUT})")


def label_arguments(parser: argparse.ArgumentParser) -> None:
    """What is known of the records."""
    labels = parser.add_argument_group("labels")
    labels.add_argument("--label", metavar="FIELD", help="field with the label: 0, false, normal, or a kind of anomaly")
    labels.add_argument("--labels", metavar="FILE", help="ids of the anomalies, one a line, or id,kind")
    labels.add_argument("--label-id", metavar="FIELD", help="field that --labels are of (default: the first id)")
    labels.add_argument(
        "--inject",
        type=number(0, 0.5, above=True),
        metavar="RATE",
        help="plant anomalies into this share of the records",
    )


def run(args: argparse.Namespace) -> int:
    """Replay, print the summary, and fail where a gate does."""
    from rich.console import Console
    from rich.table import Table

    from worker.replay.metrics import failed_gates, parse_gate
    from worker.settings import load_settings
    from worker.texts import printable

    check_usage(args)
    under, over = [list(map(parse_gate, gates)) for gates in (args.fail_under, args.fail_over)]
    result, job = replayed(args, load_settings())
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for key, name in SUMMARY.items():
        if (value := result.metrics[key]) is not None:
            interval = result.metrics.get(f"{key}_interval")
            note = f"  [dim]({interval[0]} to {interval[1]})[/]" if interval else ""
            table.add_row(name, f"{f'{value:,}' if isinstance(value, int) else value}{note}")
    console = Console()
    console.print(table)
    for line in job.findings:
        console.print(printable(line), highlight=False, markup=False)  # it may name fields
    console.print(f"report: {Path(args.out) / 'report.html'}", highlight=False, soft_wrap=True)
    if result.fault is not None:
        raise result.fault
    failures = failed_gates(result.metrics, under=under, over=over)
    for failure in failures:
        sys.stderr.write(f"gate failed: {failure}\n")
    return 1 if failures else 0


def check_usage(args: argparse.Namespace) -> None:
    """UsageError where options don't go together."""
    from worker.errors import UsageError

    if sum((bool(args.file), bool(args.topic), args.sample)) != 1:
        raise UsageError("name FILEs, a --topic or --sample, and only one of them (worker replay --help)")
    if args.label and args.labels:
        raise UsageError("--label and --labels: only one of them")
    if vars(args).get("fit_first") and args.model:
        raise UsageError("--model and --fit-first: only one of them")


def replayed(args: argparse.Namespace, settings: "Settings") -> "tuple[Result, Job]":
    """Replay into the folder of the arguments, which is made."""
    from worker.cli.progress import TerminalDisplay
    from worker.processes.inputs import open_source
    from worker.processes.process import tune_process
    from worker.processes.replay_job import Job, ReplayRequest

    tune_process(settings)
    options = {name: value for name, value in vars(args).items() if name in ReplayRequest.__slots__}
    request = source_request(args)
    options["open_source"] = lambda schema: open_source(settings, request, schema)
    if args.sample:
        from worker.demo.sample import LABEL, Sample
        from worker.demo.traffic import SCHEMA_FILE

        options["open_source"] = lambda _: Sample(settings.seed)
        if not args.labels:
            options["label"] = args.label or LABEL
        if not args.model:
            options["schema"] = options.get("schema") or str(SCHEMA_FILE)
            options["fit_first"] = options.get("fit_first") or SAMPLE_FIT
    job = Job(settings, ReplayRequest(**options), TerminalDisplay())
    folder = Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    return job.run(folder), job
