"""`python -m worker.demo.sample FILE`: a labelled sample of card payments, for `make replay` without a file."""

import argparse
from itertools import islice
from pathlib import Path

import orjson

from worker.demo.anomalies import Planter
from worker.demo.traffic import Traffic

RECORDS = 20_000
SPACING = 200
LABEL = "label"


def write_sample(path: Path, *, records: int = RECORDS, seed: int = 0) -> None:
    """Write payments as JSONL; `label` is the kind of anomaly, or "normal". The same seed gives the same bytes."""
    marked = Planter(seed=seed, spacing=SPACING, live=False).plant(Traffic(seed))
    lines = [
        orjson.dumps({**payment, LABEL: planted.kind if planted else "normal"})
        for payment, planted in islice(marked, records)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\n".join(lines) + b"\n")


def main() -> None:
    """Write the file that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m worker.demo.sample", description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE")
    write_sample(parser.parse_args().file)


if __name__ == "__main__":
    main()
