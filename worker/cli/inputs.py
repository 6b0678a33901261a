"""Where records come from, the same for every command that reads history: files, or a part of a topic."""

import argparse
from typing import TYPE_CHECKING

from worker.cli.arguments import whole_number

if TYPE_CHECKING:  # what it imports takes longer than --help may; so it is imported where arguments are used
    from worker.processes.inputs import SourceRequest

FILES = (
    "JSONL, a JSON array, CSV or Parquet (.gz and .zst too), several of them, 'patterns*' or folders; - is standard "
)
FILES += "input"


def topic_arguments(parser: argparse._ActionsContainer, instead: str = "instead of files") -> None:
    """A topic, and where its range ends; where it starts is for the command to add."""
    parser.add_argument("--topic", help=f"a topic (or several: a,b, or '^pattern') {instead}")
    parser.add_argument("--to", dest="end", metavar="TIME", help="broker timestamp of --topic to stop before")


def start_argument(parser: argparse._ActionsContainer) -> None:
    """Where the range of a topic starts."""
    text = "first broker timestamp of --topic (ISO 8601)"
    parser.add_argument("--from", dest="start", metavar="TIME", help=text)


def replay_arguments(parser: argparse.ArgumentParser) -> None:
    """Records to replay, with what a topic knows and files don't."""
    parser.add_argument("file", nargs="*", metavar="FILE", help=f"in time order: {FILES}")
    group = parser.add_argument_group("input")
    group.add_argument("--sample", action="store_true", help="card payments with planted anomalies, made up here")
    topic_arguments(group)
    start_argument(group)
    format_argument(group)
    group.add_argument("--key", metavar="FIELD", help="field that is the record's key in the topic")
    text = "spread the records by key (default: 1); with --topic: for a budget (default: those that it has)"
    group.add_argument("--partitions", type=whole_number(1), metavar="N", help=text)
    ignore_argument(group)


def format_argument(parser: argparse._ActionsContainer) -> None:
    """The format of files whose names don't tell it."""
    text = "jsonl, csv or parquet, whatever the files' names say"
    parser.add_argument("--format", type=_file_format, metavar="FORMAT", help=text)


def _file_format(name: str) -> str:
    """Looks a name up only when one is given: the readers import numpy, which --help has no time for."""
    from worker.sources.files import FORMATS

    if name not in FORMATS:
        raise argparse.ArgumentTypeError(FORMATS.unknown(name))
    return name


def ignore_argument(parser: argparse._ActionsContainer) -> None:
    """Fields that a model must not see."""
    text = "keep this field from the model (repeatable)"
    parser.add_argument("--ignore", action="append", default=[], metavar="FIELD", help=text)


def source_request(args: argparse.Namespace) -> "SourceRequest":
    """What these arguments ask for. UsageError for a range without a topic."""
    from worker.errors import UsageError
    from worker.processes.inputs import SourceRequest

    if (args.start or args.end) and not args.topic:
        raise UsageError("--from and --to need a --topic")
    return SourceRequest(args.file, args.format, args.topic, args.start, args.end)
