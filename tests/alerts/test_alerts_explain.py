"""Severity follows the tail probability; explanations name fields that tell something, for one row or for many."""

import math
from typing import Any

import numpy as np
import orjson
import pytest

from devtools import traffic
from worker.alerts.explain import MIN_SHARE, in_words, shares
from worker.features.kinds import KINDS
from worker.features.learned import MissingPattern
from worker.features.patterns import Patterns
from worker.features.schema import Schema
from worker.features.vectorize import Vectors
from worker.formats.base import Row
from worker.formats.json_objects import JsonDecoder
from worker.model.learn import fit_bundle
from worker.model.network.options import FitOptions
from worker.pipeline import Model
from worker.records import Message, Reason
from worker.redaction import Redaction
from worker.thresholds.severity import SEVERITIES, level_of


def vectors(model: Model, count: int = 1500) -> Vectors:
    """Normal records, and some with a fault: an amount, a channel, a country, a missing field."""
    faults: tuple[dict[str, Any], ...] = (
        {"amount": 5e6},
        {"channel": "carrier pigeon"},
        {"merchant": {"country": "XX"}},
        {"online": None},
        {},
    )
    rows = [{**row, **faults[number % len(faults)]} for number, row in enumerate(traffic.rows(count, seed=5))]
    return model.vectorizer.transform(
        JsonDecoder(10_000).decode([Message("in", 0, i, 0, None, orjson.dumps(row)) for i, row in enumerate(rows)])
    )


def explained(model: Model) -> list[tuple[Reason, ...]]:
    batch = vectors(model)
    explainer = model.explainer
    return [explainer.masked(of) for of in explainer.explain(batch.numeric, batch.category_ids, batch.rows)]


def is_silent(reason: Reason) -> bool:
    expected = None if reason.expected == "missing" else reason.expected
    return bool(reason.observed == expected) and type(reason.observed) is type(expected)


def test_a_field_that_is_as_expected_is_named_only_where_no_other_is() -> None:
    explanations = explained(Model(traffic.bundle()))

    assert all(len(reasons) >= 1 for reasons in explanations)
    assert not any(is_silent(reason) for reasons in explanations if len(reasons) > 1 for reason in reasons)
    assert sum(is_silent(reasons[0]) for reasons in explanations) < 0.1 * len(explanations)


def test_reasons_are_ordered_by_their_share_of_all_fields() -> None:
    for reasons in explained(Model(traffic.bundle(), max_reasons=100)):
        listed = [reason.share for reason in reasons]

        assert listed == sorted(listed, reverse=True)
        assert sum(listed) <= 1.001
        assert all(share >= MIN_SHARE for share in listed[1:])


def test_redaction_hides_values_and_changes_nothing_else() -> None:
    plain = explained(Model(traffic.bundle()))
    hidden = explained(Model(traffic.bundle(), redaction=Redaction(["channel", "merchant.country"])))

    assert [[r.field for r in reasons] for reasons in hidden] == [[r.field for r in reasons] for reasons in plain]
    shown = [(r.observed, r.expected, r.typical) for reasons in hidden for r in reasons if r.field == "channel"]
    assert set(shown) == {("[redacted]", "[redacted]", None)}


def test_numbers_come_with_their_typical_range() -> None:
    ranges = {r.typical for reasons in explained(Model(traffic.bundle())) for r in reasons if r.field == "amount"}

    ((low, high),) = (typical for typical in ranges if typical is not None)
    assert 0 < low < high < 5e6


def test_a_row_is_explained_alike_alone_and_in_a_storm() -> None:
    model = Model(traffic.bundle())
    batch = vectors(model, 200)
    together = model.explainer.explain(batch.numeric, batch.category_ids, batch.rows)

    for i in range(0, 200, 7):
        alone = model.explainer.explain(batch.numeric[i : i + 1], batch.category_ids[i : i + 1], batch.rows[i : i + 1])
        assert alone == [together[i]]


@pytest.mark.parametrize(
    ("errors", "usual", "expected"),
    [
        ([4.0, 1.0, 1.0], [1.0, 1.0, 0.0], [0.75, 0.0, 0.25]),
        ([1.0, 3.0, 0.0], [5.0, 5.0, 5.0], [0.25, 0.75, 0.0]),
        ([0.0, 0.0, 0.0], [0.0, 1.0, 1.0], [1 / 3, 1 / 3, 1 / 3]),
    ],
)
def test_shares_are_parts_of_the_excess_and_add_up_to_one(
    errors: list[float], usual: list[float], expected: list[float]
) -> None:
    parts = shares(np.array([errors]), np.array(usual))

    assert parts[0].tolist() == pytest.approx(expected)
    assert parts.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("probability", "severity"),
    [(0.004, "info"), (0.001, "info"), (0.0009, "warning"), (1e-5, "warning"), (9e-6, "critical"), (math.nan, "info")],
)
def test_severity_follows_the_probability(probability: float, severity: str) -> None:
    assert SEVERITIES[level_of(probability)] == severity


PATTERNS = Patterns(
    ["a", "b", "c", *(f"d{n}" for n in range(9))],
    [MissingPattern(), MissingPattern(("a", "b")), MissingPattern(tuple(f"d{n}" for n in range(9)), ("c",))],
)


@pytest.mark.parametrize(
    ("missing", "pattern", "observed", "expected"),
    [
        ("", 0, "all fields present", "all fields present"),
        ("b", 0, "without b", "all fields present"),
        ("", 1, "with a, b", "without a, b"),
        ("ac", 1, "without c; with b", "with c; without b"),
        ("ab", 2, "without a, b; with d0, d1, d2 and 6 more", "with a, b; without d0, d1, d2 and 6 more"),
        ("c012345678", 2, "without d0, d1, d2 and 6 more", "without d0, d1, d2 and 6 more"),
    ],
)
def test_of_missing_fields_a_few_are_named_that_differ(
    missing: str, pattern: int, observed: str, expected: str
) -> None:
    bits = np.array([name.removeprefix("d") in missing for name in PATTERNS.names])

    assert in_words(PATTERNS, bits, pattern) == (observed, expected)


def test_a_record_that_fits_no_pattern_is_set_against_the_nearest_one() -> None:
    sorts = {"pay": [f"pay.p{n}" for n in range(20)], "login": [f"login.l{n}" for n in range(20)]}
    rows: list[Row] = [{"event": name, **dict.fromkeys(sorts[name], 1)} for _ in range(100) for name in sorts]
    kinds = {"event": "categorical", **dict.fromkeys([*sorts["pay"], *sorts["login"]], "numeric")}
    schema = Schema(tuple(KINDS[kind](name) for name, kind in kinds.items()))
    bundle = fit_bundle(schema, rows, FitOptions(hidden=(8, 4, 8), steps=200), created_at="2026-01-01T00:00:00.000Z")
    model = Model(bundle)
    odd: Row = {**rows[0], "login.l7": 1}
    del odd["pay.p3"]
    batch = model.vectorizer.transform(JsonDecoder(10_000).decode([Message("in", 0, 0, 0, None, orjson.dumps(odd))]))

    (reasons,) = model.explainer.explain(batch.numeric, batch.category_ids, batch.rows)

    said = next(reason for reason in reasons if reason.field == "(missing fields)")
    assert (said.observed, said.expected) == ("without pay.p3; with login.l7", "with pay.p3; without login.l7")
