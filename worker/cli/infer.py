"""`worker infer-schema`: a proposal for the schema file, from records."""

import argparse
import sys
from itertools import chain, islice

from worker.cli.replay import format_argument, ignore_argument, positive

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
    format_argument(parser)
    ignore_argument(parser)
    text = f"records to look at (default: {RECORDS})"
    parser.add_argument("--records", type=positive, default=RECORDS, metavar="N", help=text)


def run(args: argparse.Namespace) -> int:
    """Print a schema for the first records of a file, or the newest ones of a topic."""
    from worker.errors import DataError, UsageError
    from worker.features.infer import infer_schema
    from worker.processes.wiring import for_source, make_decoder, newest_records
    from worker.settings import load_settings
    from worker.sources.base import messages_of
    from worker.sources.files import Files
    from worker.texts import printable

    if (args.file is None) == (args.topic is None):
        raise UsageError("name either a FILE or a --topic (worker infer-schema --help)")
    settings = load_settings()
    topic, records = args.topic, args.records
    source = newest_records(settings, topic, records) if topic else Files([args.file], format=args.format)
    messages = list(islice(chain.from_iterable(messages_of(source)), records))
    decoded = make_decoder(for_source(settings, source)).decode(messages)
    if not decoded.rows:
        why = f": {decoded.rejects[0].detail}" if decoded.rejects else ""
        raise DataError(f"{source.name}: none of {len(messages)} records has fields{why}")
    proposal = infer_schema(decoded.rows, args.ignore, limit=records)
    print(proposal.to_toml().rstrip())
    for passed_over in source.unreadable:
        print(f"note: {passed_over}", file=sys.stderr)
    if decoded.rejects:
        left_out = f"{len(decoded.rejects)} of {len(messages)} records have no fields and were left out"
        print(f"note: {left_out}: {printable(decoded.rejects[0].detail)}", file=sys.stderr)
    return 0
