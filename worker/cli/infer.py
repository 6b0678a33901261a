"""`worker infer-schema`: a proposal for the schema file, from records."""

import argparse
import gc
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from worker.cli.arguments import whole_number
from worker.cli.hints import message_of
from worker.cli.inputs import FILES, format_argument, ignore_argument, source_request, start_argument, topic_arguments
from worker.texts import parse_number, printable

if TYPE_CHECKING:
    from worker.features.infer import Proposal

HELP = """Look at the records of files (- is standard input) or of a topic and print a schema as TOML: a kind for each
field, and why. Read it before you use it: name labels, and other fields that the model must not see, with --ignore."""
EXAMPLE = """worker infer-schema history.jsonl.gz --ignore is_fraud > schema.toml
worker infer-schema --topic payments --records 5000"""

RECORDS = 20_000
LABELS = "leave a label out with --ignore NAME; worker replay --label NAME judges the alerts by it"

UNDECODED = (
    "looks like decimals in base64, and no schema beside them tells their scale: in the connector set "
    "decimal.handling.mode=string (or double), in Connect's JSON converter decimal.format=NUMERIC"
)
NO_HEADER = "where the first line is a record, [input.columns] has the names"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("file", nargs="*", metavar="FILE", help=FILES)
    topic_arguments(parser, "instead of files: all that it keeps, or a range of it")
    start_argument(parser)
    format_argument(parser)
    ignore_argument(parser)
    text = f"records to look at, spread over all of them (default: {RECORDS})"
    parser.add_argument("--records", type=whole_number(1), default=RECORDS, metavar="N", help=text)


@contextmanager
def without_collector() -> Iterator[None]:
    """Millions of values, none of which is in a cycle: the cyclic garbage collector takes a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def run(args: argparse.Namespace) -> int:
    """Print a schema for records that are spread over files or a topic."""
    from worker.errors import DataError, UsageError
    from worker.features.infer import infer_schema
    from worker.features.schema import load_schema
    from worker.formats.envelopes import undecoded_decimals
    from worker.processes.inputs import open_source
    from worker.processes.wiring import (
        for_source,
        make_decoder,
        make_redaction,
        sample_rows,
    )
    from worker.settings import load_settings

    if bool(args.file) == bool(args.topic):
        raise UsageError("name either FILEs or a --topic (worker infer-schema --help)")
    settings, records = load_settings(), args.records
    source = open_source(settings, source_request(args), spread=records)
    decoder = make_decoder(for_source(settings, source))
    with without_collector():
        sample = sample_rows(decoder, source, records)
    for text in source.unreadable.notes():
        print(f"note: {printable(text)}", file=sys.stderr)
    if sample.fault is not None:
        print(f"note: not read to its end: {printable(message_of(sample.fault))}", file=sys.stderr)
    sample.rejects.check(source.name)
    if not sample.rows:
        raise DataError(f"{source.name}: none of {sample.records} records has fields")
    redaction = make_redaction(settings)
    path = Path(settings.schema_file)
    if path.is_file() and path.stat().st_size:  # `> schema.toml` has emptied it
        redaction = redaction.also(load_schema(settings.schema_file).redacted)
    with without_collector():
        proposal = infer_schema(sample.rows, args.ignore, limit=records, redaction=redaction)
    print(proposal.to_toml().rstrip())
    if sample.rejects.count:
        print(f"note: {printable(message_of(sample.rejects.text))}", file=sys.stderr)
    if sample.full:
        looked_at = f"looked at {sample.records:,} of {sample.total:,} records"
        print(f"note: {looked_at}: more would fill the memory", file=sys.stderr)
    _say(proposal, undecoded_decimals(sample.rows))
    fractions = (name for name in map(attrgetter("name"), proposal.schema.fields) if type(parse_number(name)) is float)
    if source.record_format and (name := next(fractions, None)) is not None:
        print(f"note: a column is named {name}: {message_of(NO_HEADER)}", file=sys.stderr)
    return 0


def _say(proposal: "Proposal", undecoded: Iterable[str]) -> None:
    """What a person should know of a proposal, on standard error; undecoded: fields that look like packed decimals."""
    notes = [*proposal.lines(), *([LABELS] if proposal.labels else []), *(f"{name} {UNDECODED}" for name in undecoded)]
    for text in notes:
        print(f"note: {printable(message_of(text))}", file=sys.stderr)
