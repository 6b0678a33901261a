"""python -m tests.fuzz --records 300000: exit 1 where a record was lost, repeated or changed."""

import argparse
import sys
import tempfile
from pathlib import Path

from devtools.brokers import start_broker
from tests.fuzz.fuzz import fuzz

MAX_SHOWN = 20


def main() -> int:
    """One run on a broker of its own."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--records", type=int, default=30_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    broker = start_broker()
    try:
        with tempfile.TemporaryDirectory() as folder:
            report = fuzz(broker, Path(folder), "fuzz", args.records, args.seed, timeout_s=args.records / 100 + 120)
    finally:
        broker.close()
    sys.stdout.write("\n".join([str(report), *report.wrong[:MAX_SHOWN], ""]))
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
