"""The relative score against the mean squared error, by one network each: python -m benchmarks.scores [--seeds 3].

Streams: the sample of `make replay`, a seeded audit trail of ten event types, NSL-KDD and card payments where
WORKER_TEST_DATA names their folder. Fitted on the first part without labels, as each is replayed elsewhere. Recall is
that of planted or labelled records among the highest 1% of the normal ones.
"""

import argparse
import gzip
import os
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orjson
import torch

from devtools import audit_trail
from worker.demo import sample
from worker.features.infer import infer_schema
from worker.features.schema import Schema, load_schema
from worker.features.vectorize import Vectorizer
from worker.formats.base import Decoded, Row
from worker.model.learn import fit_bundle
from worker.model.network.options import FitOptions
from worker.ranking import average_precision, roc_auc
from worker.records import BoolArray, FloatArray

FOLDER = Path(os.environ.get("WORKER_TEST_DATA", ""))
RATE = 0.01


class Stream(NamedTuple):
    """What is fitted, what is scored, and which of these records are anomalous."""

    schema: Schema
    fit_on: list[Row]
    rest: list[Row]
    labels: list[bool]


Make = Callable[[int], Stream]
"""A seed to a stream."""


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--stream", action="append", choices=list(STREAMS), help="only this one (repeatable)")
    parser.add_argument("--score", action="append", help="kinds of scores (repeatable); by default mse and relative")
    args = parser.parse_args()
    torch.set_num_threads(1)
    kinds = args.score or ["mse", "relative"]
    print(f"| stream | {' | '.join(f'{kind}: ROC-AUC, AP, recall at {RATE:.0%}' for kind in kinds)} |")
    print(f"|---|{'---|' * len(kinds)}")
    for name in args.stream or STREAMS:
        results = [measures(STREAMS[name](seed), kinds, seed) for seed in range(args.seeds)]
        means = [
            [statistics.mean(values) for values in zip(*of_kind, strict=True)] for of_kind in zip(*results, strict=True)
        ]
        print(f"| {name} | {' | '.join(', '.join(f'{value:.3f}' for value in mean) for mean in means)} |", flush=True)


def measures(stream: Stream, kinds: list[str], seed: int) -> list[tuple[float, float, float]]:
    """ROC-AUC, average precision and recall at the false alert rate, of each kind of score."""
    bundle = fit_bundle(stream.schema, stream.fit_on, FitOptions(seed=seed), created_at="2026-01-01T00:00:00.000Z")
    vectors = Vectorizer(bundle.fitted).transform(Decoded.of_rows(stream.rest))
    labels = np.array(stream.labels)[[message.offset for message in vectors.messages]]
    results = []
    for kind in kinds:
        of_kind = replace(bundle, score=replace(bundle.score, kind=kind))
        results.append(ranked(of_kind.scorer().score(vectors.numeric, vectors.category_ids), labels))
    return results


def ranked(scores: FloatArray, labels: BoolArray) -> tuple[float, float, float]:
    _, places = np.unique(scores, return_inverse=True)
    normal, anomalous = (np.bincount(places[labels == side], minlength=places.max() + 1) for side in (False, True))
    above = scores[labels] > np.quantile(scores[~labels], 1 - RATE)
    return float(roc_auc(normal, anomalous)), float(average_precision(normal, anomalous)), float(above.mean())


def the_sample(seed: int) -> Stream:
    with tempfile.TemporaryDirectory(prefix="scores-bench-") as folder:
        sample.write_sample(Path(folder) / "sample.jsonl", seed=seed)
        rows = [orjson.loads(line) for line in (Path(folder) / "sample.jsonl").read_bytes().splitlines()]
    schema = load_schema(Path(sample.__file__).parent / "schema.toml").without(["label"])
    return Stream(schema, rows[:8000], rows[8000:], [row["label"] != "normal" for row in rows[8000:]])


def an_audit_trail(seed: int, schema_of: Callable[[list[Row]], Schema] = audit_trail.schema_of) -> Stream:
    fit_on, _ = audit_trail.trail(4000, seed=10 + seed)
    rest, kinds = audit_trail.trail(4000, seed=1010 + seed, share=0.02)
    return Stream(schema_of(fit_on), fit_on, rest, [kind != "" for kind in kinds])


def a_proposed_audit_trail(seed: int) -> Stream:
    return an_audit_trail(seed, lambda rows: infer_schema(rows).schema)


def of_file(name: str, label: str, other: str, fit_normal: int = 0, fit_first: int = 0, records: int = 150_000) -> Make:
    """A recorded stream, fitted on its first normal records, or on its first ones."""

    def make(_: int) -> Stream:
        rows = [orjson.loads(line) for line in gzip.decompress((FOLDER / name).read_bytes()).splitlines()][:records]
        schema = infer_schema(rows, (label, other)).schema.without((label, other))
        places = [place for place, row in enumerate(rows) if not row[label]][:fit_normal] or range(fit_first)
        chosen = set(places)
        rest = [row for place, row in enumerate(rows) if place not in chosen]
        return Stream(schema, [rows[place] for place in places], rest, [bool(row[label]) for row in rest])

    return make


STREAMS: dict[str, Make] = {
    "sample": the_sample,
    "audit trail": an_audit_trail,
    "audit trail, proposed schema": a_proposed_audit_trail,
}
if FOLDER.name and (FOLDER / "nsl_kdd_train20.jsonl.gz").is_file():
    STREAMS["NSL-KDD"] = of_file("nsl_kdd_train20.jsonl.gz", "label", "attack", fit_normal=2048)
    STREAMS["card payments"] = of_file("card_payments_6w.jsonl.gz", "fraud", "scenario", fit_first=19_000)


if __name__ == "__main__":
    main()
