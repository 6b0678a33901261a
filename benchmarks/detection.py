"""Twenty public tables beside seven other detectors in the same run: python -m benchmarks.detection [--seeds 5].

Two protocols of Livernoche et al. 2024. `clean`: half of the normal rows are fitted, in file order, and the other half
and all anomalies scored; a table of under 1,000 rows is drawn with replacement to 1,000. `unlabelled`: a bootstrap of
all rows is fitted, anomalies included, and all rows scored. Of a table of over 50,000 rows 50,000 are drawn.

The worker's default fits rows as records by the proposed schema; the others are PyOD's with their defaults (k = 5
neighbours) on standardised columns. WORKER_TEST_DATA names the folder that holds adbench/*.npz.

Livernoche, V., Jain, V., Hezaveh, Y., Ravanbakhsh, S. (2024): On diffusion modeling for anomaly detection. ICLR.
Han, S. et al. (2022): ADBench: anomaly detection benchmark. NeurIPS 35. (The tables.)
"""

import argparse
import importlib
import os
import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.scores import ranked
from worker.features.infer import infer_schema
from worker.features.vectorize import Vectorizer
from worker.formats.base import Decoded, Row
from worker.model.learn import fit_bundle
from worker.model.network.options import FitOptions
from worker.records import BoolArray, FloatArray

FOLDER = Path(os.environ.get("WORKER_TEST_DATA", "")) / "adbench"
OURS = "worker"
MIN_ROWS, MAX_ROWS = 1_000, 50_000


class Split(NamedTuple):
    """Rows to fit, rows to score, and which of these are anomalous."""

    fit_on: FloatArray
    rest: FloatArray
    labels: BoolArray


class Result(NamedTuple):
    """One detector on one table, or a mean over seeds; seconds of the fit, microseconds of a scored row."""

    roc_auc: float
    average_precision: float
    fit_s: float
    score_us: float


Detector = Callable[[FloatArray, int], Callable[[FloatArray], FloatArray]]
"""(rows to fit, seed) to (rows to their scores); a row that can't be scored is not left out."""


def clean(rows: FloatArray, anomalous: BoolArray) -> Split:
    if len(rows) < MIN_ROWS:
        chosen = np.random.choice(len(rows), MIN_ROWS, replace=True)  # noqa: NPY002 - the protocol's own draws
        rows, anomalous = rows[chosen], anomalous[chosen]
    rows, anomalous = thinned(rows, anomalous)
    normal = np.flatnonzero(~anomalous)
    half = normal[: len(normal) // 2]
    rest = np.setdiff1d(np.arange(len(rows)), half)
    return Split(rows[half], rows[rest], anomalous[rest])


def unlabelled(rows: FloatArray, anomalous: BoolArray) -> Split:
    rows, anomalous = thinned(rows, anomalous)
    return Split(rows[np.random.choice(len(rows), len(rows))], rows, anomalous)  # noqa: NPY002


def thinned(rows: FloatArray, anomalous: BoolArray) -> tuple[FloatArray, BoolArray]:
    if len(rows) <= MAX_ROWS:
        return rows, anomalous
    chosen = np.random.choice(len(rows), MAX_ROWS, replace=False)  # noqa: NPY002
    return rows[chosen], anomalous[chosen]


PROTOCOLS: Mapping[str, Callable[[FloatArray, BoolArray], Split]] = {"clean": clean, "unlabelled": unlabelled}


def ours(fit_on: FloatArray, seed: int) -> Callable[[FloatArray], FloatArray]:
    rows = records(fit_on)
    bundle = fit_bundle(infer_schema(rows).schema, rows, FitOptions(seed=seed), created_at="2026-01-01T00:00:00.000Z")
    scorer, vectorizer = bundle.scorer(), Vectorizer(bundle.fitted)

    def score(rest: FloatArray) -> FloatArray:
        vectors = vectorizer.transform(Decoded.of_rows(records(rest)))
        scores = np.full(len(rest), np.inf)  # what is no record stands out
        scores[[message.offset for message in vectors.messages]] = scorer.score(vectors.numeric, vectors.category_ids)
        return scores

    return score


def records(rows: FloatArray) -> list[Row]:
    names = [f"n{column}" for column in range(rows.shape[1])]
    return [dict(zip(names, row, strict=True)) for row in rows.tolist()]


def of_pyod(path: str, **options: Any) -> Detector:
    def fit(fit_on: FloatArray, seed: int) -> Callable[[FloatArray], FloatArray]:
        module, _, name = path.rpartition(".")
        kind = getattr(importlib.import_module(f"pyod.models.{module}"), name)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - what PyOD draws from
        torch.manual_seed(seed)
        center, scale = fit_on.mean(0), fit_on.std(0)
        scale = np.where(scale > 0, scale, 1.0)
        detector = kind(**options)
        detector.fit((fit_on - center) / scale)
        return lambda rest: np.asarray(detector.decision_function((rest - center) / scale), np.float64)

    return fit


DETECTORS: Mapping[str, Detector] = {
    OURS: ours,
    "kNN": of_pyod("knn.KNN", n_neighbors=5),
    "isolation forest": of_pyod("iforest.IForest"),
    "ECOD": of_pyod("ecod.ECOD"),
    "PCA": of_pyod("pca.PCA"),
    "LODA": of_pyod("loda.LODA"),
    "LUNAR": of_pyod("lunar.LUNAR"),
    "PyOD's autoencoder": of_pyod("auto_encoder.AutoEncoder", verbose=0),
}


def measured(detector: Detector, split: Split, seed: int) -> Result:
    """Seconds are those of one core."""
    started = time.process_time()
    score = detector(split.fit_on, seed)
    fitted = time.process_time()
    scores = score(split.rest)
    done = time.process_time()
    auc, precision, _ = ranked(np.nan_to_num(scores, nan=0.0), split.labels)
    return Result(auc, precision, fitted - started, (done - fitted) / len(split.rest) * 1e6)


def mean(results: Iterable[Result]) -> Result:
    return Result(*map(statistics.fmean, zip(*results, strict=True)))


def ranks(values: list[float]) -> list[float]:
    """1 for the highest; equal ones share the mean of their places."""
    return [
        1 + sum(other > value for other in values) + (sum(other == value for other in values) - 1) / 2
        for value in values
    ]


def summary(table: Mapping[str, list[Result]], names: list[str]) -> Iterable[str]:
    """Lines of two Markdown tables: each set's figures, and what they come to for each detector."""
    yield f"| table | {' | '.join(names)} |\n|---|{'---|' * len(names)}"
    for of_set, results in table.items():
        cells = (f"{100 * one.roc_auc:.1f} / {100 * one.average_precision:.1f}" for one in results)
        yield f"| {of_set} | {' | '.join(cells)} |"
    yield "\n| | ROC-AUC | mean rank | first | average precision | mean rank | ahead by ± error | µs a row | fit s |"
    yield f"|---|{'---|' * 8}"
    places = {
        measure: np.array([ranks([getattr(one, measure) for one in results]) for results in table.values()])
        for measure in ("roc_auc", "average_precision")
    }
    for at, name in enumerate(names):
        of_all = mean(results[at] for results in table.values())
        gaps = [100 * (results[0].roc_auc - results[at].roc_auc) for results in table.values()]
        error = statistics.stdev(gaps) / len(gaps) ** 0.5 if len(gaps) > 1 else 0.0
        yield (
            f"| {name} | {100 * of_all.roc_auc:.1f} | {places['roc_auc'][:, at].mean():.1f} "
            f"| {(places['roc_auc'][:, at] == 1).sum()} | {100 * of_all.average_precision:.1f} "
            f"| {places['average_precision'][:, at].mean():.1f} | {statistics.fmean(gaps):+.1f} ± {error:.1f} "
            f"| {of_all.score_us:.1f} | {of_all.fit_s:.1f} |"
        )


def main() -> None:
    """Print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--protocol", action="append", choices=list(PROTOCOLS), help="only this one (repeatable)")
    parser.add_argument("--detector", action="append", choices=list(DETECTORS), help="only this one (repeatable)")
    parser.add_argument("--table", action="append", help="only this one (repeatable), as 2_annthyroid")
    args = parser.parse_args()
    files = sorted(FOLDER.glob("*.npz"), key=lambda path: path.stem.partition("_")[2].lower())
    files = [path for path in files if not args.table or path.stem in args.table]
    if not files:
        print(f"skipped: no tables in WORKER_TEST_DATA ({FOLDER})")
        return
    torch.set_num_threads(1)
    names = args.detector or list(DETECTORS)
    for protocol in args.protocol or PROTOCOLS:
        table = {}
        for path in files:
            data = np.load(path)
            results: dict[str, list[Result]] = {name: [] for name in names}
            for seed in range(args.seeds):
                np.random.seed(seed)  # noqa: NPY002 - the protocol's own draws
                split = PROTOCOLS[protocol](data["X"].astype(np.float64), data["y"] == 1)
                for name in names:
                    results[name].append(measured(DETECTORS[name], split, seed))
            table[path.stem.partition("_")[2]] = [mean(results[name]) for name in names]
        print(f"\n{protocol}, {args.seeds} seeds: ROC-AUC / average precision in percent\n", flush=True)
        for line in summary(table, names):
            print(line, flush=True)


if __name__ == "__main__":
    main()
