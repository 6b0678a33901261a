"""Labelled samples of card payments: a file for `make replay`, a source of history for `worker replay --sample`."""

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import orjson
from typing_extensions import override

from worker.demo.anomalies import Planter
from worker.demo.traffic import Traffic
from worker.sources.base import Block, Meter, Source, UnreadableItems

LABEL = "label"
RECORDS, SPACING = 20_000, 200
LONG_RECORDS, LONG_PER_DAY, LONG_SPACING = 60_000, 4_000, 100
BLOCK_RECORDS = 2048


class Sample(Source):
    """60,000 payments over 15 days; `label` is the kind of anomaly, or "normal". The same seed gives the same bytes."""

    def __init__(self, seed: int) -> None:
        self.name = f"a sample of {LONG_RECORDS:,} card payments, seed {seed}"
        self.meter, self.unreadable = Meter(total=LONG_RECORDS), UnreadableItems()
        self.record_format = "json"
        self._seed = seed

    @override
    def blocks(self) -> Iterator[Block]:
        traffic = Traffic(self._seed, per_day=LONG_PER_DAY)
        values = _labelled(Planter(seed=self._seed, spacing=LONG_SPACING), traffic, LONG_RECORDS)
        while block := list(islice(values, BLOCK_RECORDS)):
            self.meter.done += len(block)
            yield Block(block)


def _labelled(planter: Planter, payments: Traffic, records: int) -> Iterator[bytes]:
    for payment, planted in islice(planter.plant(payments), records):
        yield orjson.dumps({**payment, LABEL: planted.kind if planted else "normal"})


def write_sample(path: Path, *, records: int = RECORDS, seed: int = 0) -> None:
    """Write payments as JSONL; `label` is the kind of anomaly, or "normal". The same seed gives the same bytes."""
    lines = _labelled(Planter(seed=seed, spacing=SPACING, live=False), Traffic(seed), records)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\n".join(lines) + b"\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m worker.demo.sample", description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE")
    write_sample(parser.parse_args().file)
