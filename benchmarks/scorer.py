"""Scoring does not depend on the width of the vocabulary: python -m benchmarks.scorer [--device cuda]."""

import argparse
import statistics
import time

import numpy as np
import torch

from worker.model.network.autoencoder import Architecture, Autoencoder, Layout
from worker.model.scoring.scorer import Scorer

ROWS = 8192
NARROW, WIDE = Layout(8, (25,) * 4), Layout(8, (8_000,) * 4)


def seconds(layout: Layout, device: str) -> float:
    """Time of one batch of 8,192 rows."""
    torch.manual_seed(0)
    draw = np.random.default_rng(0)
    numeric = draw.normal(size=(ROWS, layout.numeric)).astype(np.float32)
    category_ids = np.stack([draw.integers(0, width, ROWS) for width in layout.widths], 1).astype(np.int32)
    scorer = Scorer(Autoencoder(layout, Architecture()).eval(), 12, device)
    scorer.score(numeric, category_ids)
    started = time.perf_counter()
    for _ in range(5):
        scorer.score(numeric, category_ids)
    return (time.perf_counter() - started) / 5


def main() -> None:
    """Print µs a record for 100 and 32,000 one-hot columns, in turn, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    pairs = [(seconds(NARROW, args.device), seconds(WIDE, args.device)) for _ in range(args.rounds)]
    narrow, wide = (statistics.median(column) / ROWS * 1e6 for column in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    print(f"score: {narrow:.2f} µs a record at 100 one-hot columns, {wide:.2f} at 32,000, ratio {ratio:.2f} (goal 1.5)")


if __name__ == "__main__":
    main()
