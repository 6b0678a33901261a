"""One stream of orders in many spellings, each fitted and scored by its own proposal: python -m benchmarks.spellings.

8,000 records are fitted without labels and 8,000 others scored, 3% of them planted: broken relations between numbers,
an amount 2 to 3 times off, odd hours, rare pairs. Each spelling goes from bytes through the decoder of its settings, a
proposed schema, a fit with the same seed, and scores. Dead letters are records that were decoded or encoded to none.
"""

import argparse
import hashlib
import statistics
from collections import Counter
from typing import NamedTuple

import numpy as np
import torch

from devtools.order_spellings import SPELLINGS, Spelling
from devtools.order_streams import FIT_ON, orders
from worker.features.fitted import Fitted
from worker.features.infer import infer_schema
from worker.features.schema import parse_schema
from worker.features.vectorize import Vectorizer, Vectors, fit_vectorizer
from worker.formats.base import Row
from worker.model.learn import fit_bundle
from worker.model.network.options import FitOptions
from worker.ranking import average_precision, roc_auc


class Measured(NamedTuple):
    """What became of one spelling."""

    auc: float
    ap: float
    dead: int
    kinds: str


Known = dict[bytes, tuple[float, float]]
"""ROC-AUC and average precision by what they depend on: equal vectors need one fit."""


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=FitOptions().steps, help="of each fit")
    parser.add_argument("--spelling", action="append", choices=list(SPELLINGS), help="only this one (repeatable)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| spelling | ROC-AUC | to plain | AP | dead letters | kinds proposed |\n|---|---|---|---|---|---|")
    streams = [list(orders(seed)) for seed in range(args.seeds)]
    known: list[Known] = [{} for _ in streams]
    plain: list[Measured] = []
    for name in dict.fromkeys(("plain", *(args.spelling or SPELLINGS))):
        results = [
            measured(SPELLINGS[name], stream, seed, args.steps, known[seed]) for seed, stream in enumerate(streams)
        ]
        plain = plain or results
        auc, ap = (statistics.mean(values) for values in list(zip(*results, strict=True))[:2])
        distance = statistics.mean(one.auc - other.auc for one, other in zip(results, plain, strict=True))
        dead = sum(result.dead for result in results)
        print(f"| {name} | {auc:.3f} | {distance:+.3f} | {ap:.3f} | {dead} | {results[0].kinds} |", flush=True)


def measured(spelling: Spelling, stream: list[tuple[Row, bool]], seed: int, steps: int, known: Known) -> Measured:
    """From bytes to ranks, as a newcomer goes: nothing of the proposal is changed."""
    rows, labels = [row for row, _ in stream], np.array([label for _, label in stream])
    fit_on, scored = (spelling.decoded(part, seed) for part in (rows[:FIT_ON], rows[FIT_ON:]))
    schema = parse_schema(infer_schema(fit_on.rows).to_toml())
    vectorizer = Vectorizer(fit_vectorizer(schema, fit_on.rows))
    learned, vectors = vectorizer.transform(fit_on), vectorizer.transform(scored)
    dead = sum(len(part.rejects) for part in (fit_on, scored, learned, vectors))
    key = digest(vectorizer.fitted, learned, vectors)
    if key not in known:
        options = FitOptions(seed=seed, steps=steps)
        bundle = fit_bundle(schema, fit_on.rows, options, created_at="2026-01-01T00:00:00.000Z")
        scores = bundle.scorer().score(vectors.numeric, vectors.category_ids)
        labels = labels[FIT_ON:][[message.offset for message in vectors.messages]]
        _, places = np.unique(scores, return_inverse=True)
        normal, planted = (np.bincount(places[labels == side], minlength=places.max() + 1) for side in (False, True))
        known[key] = float(roc_auc(normal, planted)), float(average_precision(normal, planted))
    kinds = Counter(field.kind for field in schema.fields)
    shown = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return Measured(*known[key], dead, shown)


def digest(fitted: Fitted, *parts: Vectors) -> bytes:
    """What a fit and its scores depend on, whatever the fields are called."""
    places = {name: place for place, name in enumerate(dict.fromkeys(fitted.numeric_fields + fitted.category_fields))}
    columns = [places[name] for name in fitted.numeric_fields + fitted.category_fields]
    content = hashlib.sha256(repr((columns, fitted.widths)).encode())
    for part in parts:
        content.update(part.numeric.tobytes() + part.category_ids.tobytes())
        content.update(repr([message.offset for message in part.messages]).encode())
    return content.digest()


if __name__ == "__main__":
    main()
