"""`worker infer-schema`: a proposal for the schema file, from records."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.records import RawMessage
    from worker.settings import Settings

HELP = """Look at the records of a file (JSONL, CSV, Parquet; .gz and .zst too; - is standard input) or of a topic and
print a schema as TOML: a kind for each field, and why. Read it before you use it: name labels, and other fields that
the model must not see, with --ignore."""
EXAMPLE = """worker infer-schema history.jsonl.gz --ignore is_fraud > schema.toml
worker infer-schema --topic payments --records 5000"""

RECORDS = 20_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("file", nargs="?", metavar="FILE", help="file with records")
    parser.add_argument("--topic", help="look at the newest records of this topic instead")
    parser.add_argument(
        "--ignore", action="append", default=[], metavar="FIELD", help="keep this field from the model (repeatable)"
    )
    parser.add_argument(
        "--records", type=_count, default=RECORDS, metavar="N", help=f"records to look at (default: {RECORDS})"
    )


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def run(args: argparse.Namespace) -> int:
    """See HELP."""
    from worker.errors import DataError, UsageError
    from worker.features.infer import infer_schema
    from worker.processes.wiring import for_tables, make_decoder
    from worker.settings import load_settings
    from worker.sources.files import reads_tables

    if (args.file is None) == (args.topic is None):
        raise UsageError("name either a FILE or a --topic (worker infer-schema --help)")
    settings = load_settings()
    source = args.file or f"topic {args.topic}"
    messages = _topic(settings, args.topic, args.records) if args.topic else _file(args.file, args.records)
    if args.file and reads_tables([args.file]):
        settings = for_tables(settings)
    decoded = make_decoder(settings).decode(messages)
    if not decoded.rows:
        why = f": {decoded.rejects[0].detail}" if decoded.rejects else ""
        raise DataError(f"{source}: none of {len(messages)} records has fields{why}")
    proposal = infer_schema(decoded.rows, args.ignore, limit=args.records)
    print(proposal.to_toml().rstrip())
    if decoded.rejects:
        left_out = f"{len(decoded.rejects)} of {len(messages)} records have no fields and were left out"
        print(f"note: {left_out}: {decoded.rejects[0].detail}", file=sys.stderr)
    return 0


def _file(path: str, count: int) -> "list[RawMessage]":
    from worker.records import Message

    values = islice((value for value in chain.from_iterable(_values(path)) if value.strip()), count)
    return [Message(path, 0, row, -1, None, value) for row, value in enumerate(values)]


def _values(path: str) -> Iterator[list[bytes]]:
    from worker.sources.lines import Meter, file_size, read_lines
    from worker.sources.tables import read_csv, read_parquet

    file_size(path)  # raises where there is no such file
    kind = path.lower().removesuffix(".gz").removesuffix(".zst").rpartition(".")[2]
    if kind == "parquet":
        return read_parquet(path, Meter())
    if kind in {"csv", "tsv"}:
        return read_csv(path, Meter(), numbers=None, booleans=frozenset(), header=[])
    return (lines for _, lines in read_lines(path, Meter()))


def _topic(settings: "Settings", topic: str, count: int) -> "Sequence[RawMessage]":
    from worker.broker.ranges import TopicReader
    from worker.processes.wiring import connection

    reader = TopicReader(connection(settings), read_committed=True)
    try:
        return reader.latest(topic, count)
    finally:
        reader.close(5.0)
