"""`worker demo`: everything at once on this machine, with nothing to set up."""

import argparse
import logging
import signal
from types import FrameType

from worker.cli.arguments import number, whole_number

HELP = """Start an embedded broker, make card payments with anomalies planted in them, learn from a history of them, run
the worker on live ones and show its alerts as they come. Ends with what was planted, found and falsely alerted; exit 0
only if at least 80% of the planted payments and less than 1% of the normal ones were alerted."""
EXAMPLE = "worker demo --seconds 60"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument(
        "--seconds", type=number(20), default=60, metavar="N", help="about how long, from 20 (default 60)"
    )
    parser.add_argument(
        "--seed", type=whole_number(0), default=0, metavar="S", help="another seed is another world (default 0)"
    )
    parser.add_argument(
        "--rate", type=number(0, above=True), default=400, metavar="R", help="live payments a second (default 400)"
    )
    parser.add_argument("--keep", action="store_true", help="leave the folder with history, schema, model and logs")


def run(args: argparse.Namespace) -> int:
    """Run the demo; 0 where it found what was planted."""
    from worker.demo.screen import Screen
    from worker.demo.tour import Tour

    logging.getLogger("kafka").setLevel(logging.ERROR)  # what matters is raised; the rest would tear the picture
    for signum in (signal.SIGTERM, signal.SIGINT):  # a shell's background job inherits an ignored SIGINT
        signal.signal(signum, _interrupt)
    return 0 if Tour(Screen(), seconds=args.seconds, seed=args.seed, rate=args.rate, keep=args.keep).run() else 1


def _interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM leaves the way Ctrl-C does: through every clean-up."""
    del number, frame
    raise KeyboardInterrupt
