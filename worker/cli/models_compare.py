"""`worker models compare`: two versions on the same recorded traffic, side by side; a replay underneath."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.cli.printing import print_table
from worker.cli.replay import check_usage, input_arguments, label_arguments, replayed

if TYPE_CHECKING:
    from worker.cli import Actions
    from worker.settings import Settings

OUT = "out/compare"
ROWS = (
    ("alerts", "alerts"),
    ("alerts a day", "alerts_per_day"),
    ("median score", "score_median"),
    ("ROC-AUC", "roc_auc"),
    ("average precision", "average_precision"),
    ("precision at the threshold", "precision_at_threshold"),
    ("recall at the threshold", "recall_at_threshold"),
    ("false alert rate", "false_alert_rate"),
)


def add_actions(actions: "Actions") -> None:
    """The sub-command."""
    compare = actions.add_parser(
        "compare",
        help="a version and the current one on files or a topic range: alerts gained and lost, and with labels which "
        "one ranks better",
        epilog="worker models compare 3f9a0c51d2e4 --topic payments --from 2026-03-01 --to 2026-03-08",
    )
    compare.add_argument("version", metavar="VERSION", help="the one in question")
    compare.add_argument("--against", metavar="VERSION", help="the one to compare it with (default: the current one)")
    input_arguments(compare)
    label_arguments(compare)
    compare.add_argument("--out", default=OUT, metavar="DIR", help=f"folder for the results (default: {OUT})")
    compare.set_defaults(perform=_compare)


def _compare(args: argparse.Namespace, settings: "Settings") -> int:
    from worker.errors import UsageError
    from worker.processes.process import tune_process
    from worker.processes.wiring import model_store

    args.model = args.against or model_store(settings).current()
    if args.model is None:
        raise UsageError("no version is current: name the one to compare with, --against VERSION")
    if args.model == args.version:
        raise UsageError(f"{args.model} is the current version: name another one with --against")
    args.compare = args.version
    check_usage(args)
    tune_process(settings)
    result, _ = replayed(args, settings)
    folder, compared = Path(args.out), result.metrics["compare"]
    print_table(_rows(result.metrics, args.model, args.version))
    print(f"alerts: {compared['shared']:,} shared, {compared['gained']:,} gained, {compared['lost']:,} lost")
    print(compared["verdict"])
    print(f"report: {folder / 'report.html'}, alerts of each: {folder / 'alerts.jsonl'}, compare/alerts.jsonl")
    if result.fault is not None:
        raise result.fault
    return 0


def _rows(metrics: dict[str, Any], first: str, second: str) -> list[list[str]]:
    """What is known of both, and the difference with its interval where there are labels."""
    from worker.replay.what_if import difference_text

    other, differences = metrics["compare"]["metrics"], metrics["compare"]["differences"]
    rows = [["", first, second, "difference"]]
    for name, key in ROWS:
        if metrics[key] is not None and other[key] is not None:
            values = [
                f"{value:,}" if isinstance(value, int) else f"{value:.6g}" for value in (metrics[key], other[key])
            ]
            rows.append([name, *values, difference_text(differences.get(key))])
    return rows
