"""`worker models compare`: two versions on the same recorded traffic, side by side; a replay underneath."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from worker.cli.inputs import replay_arguments
from worker.cli.printing import print_table
from worker.cli.replay import SUMMARY, check_usage, label_arguments, replayed

if TYPE_CHECKING:
    from worker.cli import Actions
    from worker.settings import Settings

OUT = "out/compare"
NAMES = {**SUMMARY, "score_median": "median score"}
HELP = "a version and the current one on files or a topic range: alerts gained and lost, and with labels which one "
HELP += "ranks better"
EXAMPLE = "worker models compare 3f9a0c51d2e4 --topic payments --from 2026-03-01 --to 2026-03-08"


def add_actions(actions: "Actions") -> None:
    """The sub-command."""
    compare = actions.add_parser("compare", help=HELP, epilog=EXAMPLE)
    compare.add_argument("version", metavar="VERSION", help="the one in question")
    compare.add_argument("--against", metavar="VERSION", help="the one to compare it with (default: the current one)")
    replay_arguments(compare)
    label_arguments(compare)
    compare.add_argument("--out", default=OUT, metavar="DIR", help=f"folder for the results (default: {OUT})")
    compare.set_defaults(perform=_compare)


def _compare(args: argparse.Namespace, settings: "Settings") -> int:
    from worker.errors import UsageError
    from worker.processes.wiring import model_store
    from worker.replay.what_if import difference_text

    args.model = args.against or model_store(settings).current()
    if args.model is None:
        raise UsageError("no version is current: name the one to compare with, --against VERSION")
    if args.model == args.version:
        raise UsageError(f"{args.model} is the current version: name another one with --against")
    args.compare = args.version
    check_usage(args)
    result, _ = replayed(args, settings)
    folder, compared = Path(args.out), result.metrics["compare"]
    rows = [["", args.model, args.version, "difference"]]
    for key, other in compared["metrics"].items():
        if (value := result.metrics[key]) is not None and other is not None:
            numbers = [f"{number:,}" if isinstance(number, int) else f"{number:.6g}" for number in (value, other)]
            rows.append([NAMES[key], *numbers, difference_text(compared["differences"].get(key))])
    print_table(rows)
    print(f"alerts: {compared['shared']:,} shared, {compared['gained']:,} gained, {compared['lost']:,} lost")
    print(compared["verdict"])
    print(f"report: {folder / 'report.html'}, alerts of each: {folder / 'alerts.jsonl'}, compare/alerts.jsonl")
    if result.fault is not None:
        raise result.fault
    return 0
