"""Small models of the seeded streams, fitted once for all tests of the trainer."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import orjson

from devtools.refit_streams import CATEGORIES, NUMBERS, SCHEMA, Traffic
from worker.features.learned import NumericColumn
from worker.formats.json_objects import JsonDecoder
from worker.model.learn import fit_bundle
from worker.model.network.fit import FitOptions
from worker.model.store.bundle import Bundle, with_report
from worker.pipeline import Model
from worker.records import Message
from worker.trainer.reservoir import Reservoir
from worker.trainer.sidecar import scored
from worker.trainer.trainer import Trainer

CREATED = "2026-01-01T00:00:00.000Z"
OPTIONS = FitOptions(hidden=(48, 24, 48), steps=350)
PARTIAL = [1.0, 1.0, 1.0, 1.0, 0.06, 0.06, 0.06, 0.06]


@cache
def bundle(seed: int = 0, *, partial: bool = False) -> Bundle:
    """Fitted on normal traffic; partial: on traffic in which half of the profiles are rare."""
    weights = [weight / sum(PARTIAL) for weight in PARTIAL] if partial else None
    return fit_bundle(SCHEMA, Traffic(seed).rows(3_000, weights=weights), OPTIONS, created_at=CREATED)


def noise_bundle(seed: int = 0) -> Bundle:
    """Fitted on rows whose fields have nothing to do with each other or with the traffic."""
    random = np.random.default_rng(seed)
    rows = [
        {
            "id": "n",
            **{name: float(random.normal(0, 50)) for name in NUMBERS},
            **{name: f"v{random.integers(8)}" for name in CATEGORIES},
        }
        for _ in range(2_000)
    ]
    return fit_bundle(SCHEMA, rows, OPTIONS, created_at=CREATED)


def broken_scale_bundle(good: Bundle, factor: float) -> Bundle:
    """The same network behind scales that are off by a factor."""
    numeric = tuple(
        replace(column, scale=column.scale * factor) if isinstance(column, NumericColumn) else column
        for column in good.fitted.numeric
    )
    return with_report(replace(good, fitted=replace(good.fitted, numeric=numeric)), broken=factor)


def messages(rows: list[dict[str, Any]], first: int = 0) -> list[Message]:
    """As a topic, one a second."""
    return [
        Message("in", 0, first + place, 1_767_225_600_000 + (first + place) * 1_000, None, orjson.dumps(row))
        for place, row in enumerate(rows)
    ]


def trainer(current: Bundle, *, drifted: int = 2, replaced: int = 2, size: int = 20_000) -> Trainer:
    """With little patience, for short streams."""
    return Trainer(
        Model(current),
        Model,
        options=OPTIONS,
        reservoir=Reservoir(size, half_life_s=86_400),
        decoder=JsonDecoder(),
        min_records=500,
        drifted_checks=drifted,
        replaced_checks=replaced,
    )


def observe(watching: Trainer, rows: list[dict[str, Any]]) -> None:
    """Let it see these rows next."""
    watching.observe(scored(watching.current, messages(rows, watching.reservoir.seen), JsonDecoder()))
