"""Small seeded traffic and a quickly fitted model, for tests that need any model rather than a good one."""

from functools import cache
from typing import Any

import numpy as np
import orjson

from worker.features.schema import Schema, parse_schema
from worker.formats.json_objects import JsonDecoder
from worker.model.learn import fit_bundle
from worker.model.network.fit import FitOptions
from worker.model.store.bundle import Bundle
from worker.pipeline import Model, Pipeline
from worker.records import Message
from worker.thresholds.factory import ThresholdFactory

SCHEMA_TEXT = """
[fields.id]
kind = "id"
[fields.amount]
kind = "numeric"
[fields."merchant.country"]
kind = "categorical"
[fields.channel]
kind = "categorical"
[fields.online]
kind = "boolean"
[fields.at]
kind = "timestamp"
"""
COUNTRIES = ("DE", "FR", "US", "JP")
CREATED = "2026-01-01T00:00:00.000Z"


def schema() -> Schema:
    return parse_schema(SCHEMA_TEXT)


def row(number: int, rng: np.random.Generator) -> dict[str, Any]:
    """Amount follows country, online follows channel."""
    country = int(rng.integers(len(COUNTRIES)))
    channel = ("shop", "web", "app")[int(rng.integers(3))]
    return {
        "id": f"r{number}",
        "amount": round(float(rng.lognormal(3 + country, 0.2)), 2),
        "merchant": {"country": COUNTRIES[country]},
        "channel": channel,
        "online": channel != "shop",
        "at": f"2026-01-{number % 28 + 1:02d}T{8 + int(rng.integers(10)):02d}:30:00Z",
    }


def rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [row(number, rng) for number in range(count)]


def messages(count: int, *, partitions: int = 1, seed: int = 1, topic: str = "in") -> list[Message]:
    """Traffic in which every 50th record has an amount that fits no country, spread over partitions in turn."""
    batch = []
    for number, record in enumerate(rows(count, seed)):
        if number % 50 == 49:
            record["amount"] = 5e6
        key = str(number % 7).encode()
        batch.append(
            Message(topic, number % partitions, number // partitions, 1_767_225_600_000, key, orjson.dumps(record))
        )
    return batch


@cache
def bundle(seed: int = 0) -> Bundle:
    """A model fitted for a second."""
    return fit_bundle(schema(), rows(800), FitOptions(hidden=(24, 12, 24), steps=250, seed=seed), created_at=CREATED)


def plain_threshold(quantile: float = 0.99, window: int = 500, stride: int = 64) -> ThresholdFactory:
    return ThresholdFactory("plain", quantile, window, stride)


def pipeline(seed: int = 0, max_record_bytes: int = 1 << 20) -> Pipeline:
    return Pipeline(
        Model(bundle(seed)),
        threshold_factory=plain_threshold(),
        decoder=JsonDecoder(max_record_bytes),
    )
