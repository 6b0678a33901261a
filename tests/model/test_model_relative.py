"""The relative score: a field is judged against what is usual of it, where a record has it."""

from dataclasses import replace
from functools import cache
from random import Random
from typing import Any

import numpy as np
import pytest

from devtools import audit_trail
from tests.model import reference
from worker.features.kinds import KINDS
from worker.features.schema import Schema
from worker.features.vectorize import Vectorizer
from worker.formats.base import Decoded, Row
from worker.model.learn import fit_bundle, rescaled
from worker.model.network.options import FitOptions
from worker.model.scoring.usual import measure_usual
from worker.model.store.bundle import Bundle, to_files
from worker.model.store.bundle_reader import read_bundle
from worker.records import FloatArray

NOW = "2026-01-01T00:00:00.000Z"
KINDS_OF = {
    "event": "categorical",
    "amount": "numeric",
    "shop": "categorical",
    "note": "text",
    "at": "timestamp",
    "free": "numeric",
    "odd": "categorical",
}


def order(draw: Random) -> Row:
    """Of two sorts; the second has most fields, one of them with more values than the last hidden layer has units."""
    if draw.random() < 0.6:
        return {"event": "ping", **({"free": draw.gauss(0, 1)} if draw.random() < 0.5 else {})}
    row: Row = {"event": "order", "amount": draw.choice([10.0, 20.0]), "shop": f"shop{draw.randrange(150)}"}
    row |= {"note": f"goods {draw.randrange(9)} {'x' * draw.randrange(5)}", "at": 1_767_000_000 + draw.randrange(10**6)}
    return row | ({"odd": draw.choice("xyz")} if draw.random() < 0.9 else {"free": 1.0})


def fitted(rows: list[Row], schema: Schema, **options: Any) -> Bundle:
    return fit_bundle(schema, rows, FitOptions(**{"steps": 200, "hidden": (32, 16, 32), **options}), created_at=NOW)


@cache
def orders() -> Bundle:
    draw = Random(1)
    schema = Schema(tuple(KINDS[kind](name) for name, kind in KINDS_OF.items()))
    return fitted([order(draw) for _ in range(900)], schema, field_weights=(("amount", 2.0), ("odd", 0.0)))


def encoded(bundle: Bundle, rows: list[Row]) -> tuple[Any, Any]:
    vectors = Vectorizer(bundle.fitted).transform(Decoded.of_rows(rows))
    return vectors.numeric, vectors.category_ids


def scores(bundle: Bundle, rows: list[Row]) -> FloatArray:
    return bundle.scorer().score(*encoded(bundle, rows))


def strange() -> list[Row]:
    draw = Random(2)
    faults: list[Row] = [{}, {"amount": 1e4}, {"shop": "new"}, {"event": "never"}, {"odd": "?"}, {"free": None}]
    rows = [{**order(draw), **faults[number % len(faults)]} for number in range(300)]
    return [*rows, {}, {"event": "order"}, dict.fromkeys(KINDS_OF)]


def test_scores_equal_the_definition_field_by_field_where_fields_come_and_go() -> None:
    bundle, rows = orders(), strange()
    numeric, category_ids = encoded(bundle, rows)
    assert max(bundle.fitted.widths) > bundle.network.architecture.hidden[-1] + 1

    expected = reference.relative_score(bundle, numeric, category_ids, dict(bundle.score.weights))

    np.testing.assert_allclose(bundle.scorer().score(numeric, category_ids), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1, 7, 100])
def test_a_score_is_the_same_to_the_bit_in_a_batch_of_any_size(size: int) -> None:
    bundle, rows = orders(), strange()
    numeric, category_ids = encoded(bundle, rows)
    scorer = bundle.scorer()
    whole = scorer.score(numeric, category_ids)

    parts = [scorer.score(numeric[i : i + size], category_ids[i : i + size]) for i in range(0, len(rows), size)]

    assert np.concatenate(parts).tolist() == whole.tolist()


def test_a_version_comes_back_from_its_files_with_its_scores_and_in_another_unit() -> None:
    bundle, rows = orders(), strange()
    files = to_files(bundle)

    loaded = read_bundle(lambda name, _: files.get(name), "store")

    assert scores(loaded, rows).tolist() == scores(bundle, rows).tolist()
    np.testing.assert_allclose(scores(rescaled(loaded, 2.5), rows), 2.5 * scores(bundle, rows), rtol=1e-5)


@pytest.mark.parametrize(
    ("what", "errors", "new_error", "low", "high"),
    [
        ("nobody can predict it: an error as usual", [0.9, 1.1] * 200, 1.0, -0.1, 0.1),
        ("nobody can predict it: the largest so far", [0.9, 1.1] * 200, 1.2, 0.0, 0.3),
        ("always right until now", [0.0] * 400, 1.0, 5.0, 10.0),
        ("always right in many more", [0.0] * 40_000, 1.0, 50.0, 100.0),
        ("wrong in one of a hundred", ([0.0] * 99 + [1.5]) * 10, 1.5, 5.0, 10.0),
        ("seen in three: always right", [0.0] * 3, 1.0, 0.5, 1.0),
        ("seen in three: far out", [0.1, 0.2, 0.1], 100.0, 20.0, 100.0),
        ("seen in none", [], 4.0, 0.5, 1.5),
    ],
)
def test_an_error_counts_as_much_as_it_is_unusual(
    what: str, errors: list[float], new_error: float, low: float, high: float
) -> None:
    del what
    present = np.array([[True]] * len(errors) + [[False]])

    usual = measure_usual(np.array([*errors, 99.0])[:, None], present, np.ones(1))

    assert low <= (new_error - usual.mean[0]) / usual.spread[0] <= high


@pytest.mark.parametrize(("count", "weight"), [(10, 0.133), (400, 0.72), (4_000, 0.97), (10_000, 1.0)])
def test_a_field_that_few_records_have_weighs_little_until_more_have_it(count: int, weight: float) -> None:
    errors = np.tile([0.5, 1.5], 5_000)[:, None].repeat(2, axis=1)
    present = np.stack([np.arange(10_000) < 10_000, np.arange(10_000) < count], 1)

    every, rare = (measure_usual(errors[:, [at]], present[:, [at]], np.ones(1)).spread[0] for at in (0, 1))

    assert every / rare == pytest.approx(weight, abs=0.03)


def test_fields_that_err_together_count_as_the_root_of_their_number() -> None:
    errors = np.random.default_rng(0).exponential(1.0, (2_000, 4))
    errors[:, 1] = errors[:, 2] = errors[:, 0]

    together = measure_usual(errors, np.ones(errors.shape, bool), np.ones(4)).spread
    alone = [measure_usual(errors[:, [at]], np.ones((2_000, 1), bool), np.ones(1)).spread[0] for at in range(4)]

    np.testing.assert_allclose(together / alone, [3**0.5] * 3 + [1.0], rtol=0.02)


@pytest.fixture(scope="module")
def narrow_trail() -> Bundle:
    rows, _ = audit_trail.trail(1200, seed=3, width=0.1)
    return fitted(rows, audit_trail.schema_of(rows), steps=300)


def test_in_a_topic_of_many_sorts_of_events_what_matters_scores_highest(narrow_trail: Bundle) -> None:
    rows, kinds = audit_trail.trail(1500, seed=4, share=0.03, width=0.1)
    squared = replace(narrow_trail, score=replace(narrow_trail.score, kind="mse"))
    planted = np.array([kind not in ("", "new pair") for kind in kinds])
    normal = np.array([kind == "" for kind in kinds])

    def recall(bundle: Bundle) -> float:
        of_rows = scores(bundle, rows)
        return float((of_rows[planted] > np.quantile(of_rows[normal], 0.99)).mean())

    assert recall(narrow_trail) > 0.95
    assert recall(squared) < 0.3


def test_wide_records_of_what_nobody_can_predict_are_no_stranger_than_narrow_ones(narrow_trail: Bundle) -> None:
    rows, _ = audit_trail.trail(1500, seed=5, width=0.1)
    is_wide = np.array([audit_trail.EVENTS[row["event"]][2] > 0 for row in rows])

    of_rows = scores(narrow_trail, rows)

    assert 0.5 < np.median(of_rows[is_wide]) / np.median(of_rows[~is_wide]) < 2
    assert (of_rows[is_wide] > np.quantile(of_rows, 0.98)).mean() < 0.1
