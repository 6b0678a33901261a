"""Every preset on real network connections (NSL-KDD, 20% training file): python -m benchmarks.presets [--seeds 5].

Each is fitted on the first 2,048 normal connections, with the schema that infer-schema proposes, and replayed over all
others. Numbers are means over the seeds; ± is half the range. Times are those of one core (CPU seconds), so that
neighbours on the machine count little. WORKER_TEST_DATA names the folder with the file.
"""

import argparse
import gzip
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import torch

from worker.features.infer import infer_schema
from worker.features.schema import Schema
from worker.model.learn import fit_bundle
from worker.model.presets import PRESETS, preset_options
from worker.processes.wiring import make_pipeline, model_builder
from worker.replay.lines import FieldLabels, Reader
from worker.replay.loop import replay
from worker.settings import load_settings
from worker.sources.base import Block

FILE = Path(os.environ.get("WORKER_TEST_DATA", "")) / "nsl_kdd_train20.jsonl.gz"
HIDDEN = ("label", "attack")
FIT_ROWS = 2048


class Result(NamedTuple):
    """What one fit and its replay came to. error: in multiples of always answering the mean."""

    roc_auc: float
    average_precision: float
    fit_s: float
    records_per_s: float
    error: float


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--preset", action="append", choices=list(PRESETS), help="only this one (repeatable)")
    args = parser.parse_args()
    if not FILE.is_file():
        print(f"skipped: no nsl_kdd_train20.jsonl.gz in WORKER_TEST_DATA ({FILE.parent})")
        return
    torch.set_num_threads(1)
    lines = gzip.decompress(FILE.read_bytes()).splitlines()
    rows = [orjson.loads(line) for line in lines]
    normal = [place for place, row in enumerate(rows) if not row["label"]][:FIT_ROWS]
    fit_on = [rows[place] for place in normal]
    rest = [line for place, line in enumerate(lines) if place not in set(normal)]
    schema = infer_schema(rows, HIDDEN).schema.without(HIDDEN)
    print(f"{len(fit_on):,} records to fit, {len(rest):,} to replay, {args.seeds} seeds")
    print("| preset | ROC-AUC | average precision | error / mean's | fit s | records/s | source |")
    print("|---|---|---|---|---|---|---|")
    for name in args.preset or PRESETS:
        results = [measure(name, seed, schema, fit_on, rest) for seed in range(args.seeds)]
        print(row_of(name, results), flush=True)


def measure(name: str, seed: int, schema: Schema, fit_on: list[dict[str, Any]], rest: list[bytes]) -> Result:
    settings = load_settings({"WORKER_DEVICE": "cpu"}, dotenv="")
    started = time.process_time()
    bundle = fit_bundle(schema, fit_on, preset_options(name, seed=seed), created_at="2026-01-01T00:00:00.000Z")
    took = time.process_time() - started
    batches = Reader(labels=FieldLabels("label"), batch_size=settings.batch.size).batches([Block(list(rest))])
    with tempfile.TemporaryDirectory(prefix="presets-bench-") as folder:
        pipeline = make_pipeline(settings, model_builder(settings)(bundle))
        metrics = replay(batches, pipeline, Path(folder), labelled=True, seed=seed, clock=time.process_time).metrics
    report = bundle.report
    error = report["held_out_loss"] / report["mean_predictor_loss"]
    if error >= 1:
        print(f"{name}, seed {seed}: FAILED to train, error {error:.3f} times that of always answering the mean")
    return Result(metrics["roc_auc"], metrics["average_precision"], took, metrics["records_per_s"], error)


def row_of(name: str, results: list[Result]) -> str:
    mean = Result(*map(statistics.mean, zip(*results, strict=True)))
    half = Result(*((max(values) - min(values)) / 2 for values in zip(*results, strict=True)))
    shown = [f"{mean[at]:.3f} ± {half[at]:.3f}".replace("0.", ".") for at in range(2)]
    return (
        f"| `{name}` | {' | '.join(shown)} | {mean.error:.2f} | {mean.fit_s:.1f} | {mean.records_per_s:,.0f} "
        f"| {PRESETS[name].source} |"
    )


if __name__ == "__main__":
    main()
