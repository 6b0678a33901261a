"""Traffic for two models at once, and candidates that are good, bad and broken."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import orjson

from devtools import traffic
from worker.formats.json_objects import JsonDecoder
from worker.model.learn import fit_bundle
from worker.model.network.fit import FitOptions
from worker.model.store.bundle import Bundle, named
from worker.pipeline import Model, Pipeline
from worker.records import Message
from worker.rollout.canary import CanaryVerdict
from worker.rollout.paired import Pairing
from worker.rollout.rollout import Promotion, Rollout
from worker.thresholds.factory import ThresholdFactory

QUANTILE = 0.99
RECORDS = 8_000
Row = dict[str, Any]


THRESHOLDS = ThresholdFactory(quantile=QUANTILE, window=4_000, stride=64)
PAIRING = Pairing(THRESHOLDS, JsonDecoder(), RECORDS)


def messages(rows: Sequence[Row], first: int = 0, partition: int = 0) -> list[Message]:
    return [
        Message("in", partition, first + place, 1_767_225_600_000, None, orjson.dumps(row))
        for place, row in enumerate(rows)
    ]


def with_anomalies(rows: Sequence[Row], share: float, seed: int) -> list[Row]:
    """Amounts that fit no country, in a share of the rows."""
    chance = np.random.default_rng(seed).random(len(rows)) < share
    return [{**row, "amount": row["amount"] * 200} if hit else row for row, hit in zip(rows, chance, strict=True)]


def shifted(rows: Sequence[Row]) -> list[Row]:
    """Amounts thirty times as high, another channel, half of the countries new."""
    new = {"DE": "BR", "FR": "IN"}
    return [
        {
            **row,
            "amount": row["amount"] * 30,
            "channel": "kiosk" if row["channel"] == "app" else row["channel"],
            "merchant": {"country": new.get(row["merchant"]["country"], row["merchant"]["country"])},
        }
        for row in rows
    ]


def noise(count: int, seed: int) -> list[Row]:
    """Every field by itself: nothing belongs to anything."""
    columns = traffic.rows(count, seed)
    rng = np.random.default_rng(seed)
    places = {name: rng.permutation(count) for name in columns[0]}
    return [{name: columns[place[number]][name] for name, place in places.items()} for number in range(count)]


def fit(rows: Sequence[Row], seed: int = 0) -> Bundle:
    options = FitOptions(hidden=(24, 12, 24), steps=400, seed=seed)
    return fit_bundle(traffic.schema(), rows, options, created_at=traffic.CREATED)


@cache
def current(seed: int) -> Bundle:
    return fit(traffic.rows(1_500, 100 + seed), seed)


@cache
def candidate(seed: int) -> Bundle:
    """As good as the current version, from other rows."""
    return fit(traffic.rows(1_500, 200 + seed), 1 + seed)


def repacked(bundle: Bundle, **changes: Any) -> Bundle:
    """The bundle with these parts in the place of its own, as a version of its own."""
    return named(replace(bundle, golden=None, rows_file=b"", **changes))


def broken_scale(bundle: Bundle, factor: float) -> Bundle:
    """All scales of numbers are off by a factor."""
    numeric = tuple(replace(column, scale=column.scale * factor) for column in bundle.fitted.numeric)
    return repacked(bundle, fitted=replace(bundle.fitted, numeric=numeric))


def verdict_of(
    previous: Bundle, candidate: Bundle, before: Sequence[Row], during: Sequence[Row], *, batch: int = 1_000
) -> CanaryVerdict | None:
    """What a canary of RECORDS comes to, after the previous version has scored `before`."""
    pipeline = Pipeline(Model(previous), threshold_factory=THRESHOLDS)
    pipeline.process(messages(before))
    rollout = Rollout(pipeline.model, PAIRING)
    rollout.promote(Promotion(Model(candidate)))
    rollout.swap(pipeline)
    stream = messages(during, len(before))
    for start in range(0, len(stream), batch):
        verdict = rollout.observe(pipeline.process(stream[start : start + batch]))
        if verdict is not None:
            return verdict
    return None
