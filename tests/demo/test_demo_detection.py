"""The demo's own traffic, fitted and scored without a broker: each kind of planted anomaly stands out, at any seed."""

from itertools import islice

import numpy as np
import pytest

from worker.demo.anomalies import KINDS, MIN_RECALL, Planter
from worker.demo.traffic import SCHEMA_FILE, Traffic
from worker.features.schema import load_schema
from worker.features.vectorize import Vectorizer
from worker.formats.base import Decoded
from worker.model.learn import fit_bundle
from worker.model.network.options import FitOptions

FALSE_SHARE = 0.005


@pytest.mark.parametrize("seed", [0, 1])
def test_each_kind_of_planted_anomaly_is_among_the_highest_scores(seed: int) -> None:
    traffic = Traffic(seed, per_day=800)
    history = [row for row, _ in islice(Planter(seed=seed, spacing=400, live=False).plant(traffic), 6_000)]
    marked = list(islice(Planter(seed=seed).plant(traffic), 9_000))
    rows = [row for row, _ in marked]
    kinds = np.array([truth.kind if truth else "" for _, truth in marked])
    bundle = fit_bundle(
        load_schema(SCHEMA_FILE),
        history,
        FitOptions(seed=seed, steps=1000, learning_rate=0.002),
        created_at="2026-01-01T00:00:00.000Z",
    )
    vectors = Vectorizer(bundle.fitted).transform(Decoded.of_rows(rows))

    scores = bundle.scorer().score(vectors.numeric, vectors.category_ids)

    above = scores > np.quantile(scores[kinds == ""], 1 - FALSE_SHARE)
    assert {kind: bool(above[kinds == kind].mean() >= MIN_RECALL) for kind in KINDS} == dict.fromkeys(KINDS, True)
