"""Missing patterns: sets of missing fields where these are few, clusters of records where hardly any comes twice."""

import time
from collections import Counter
from random import Random

import numpy as np
import pytest

from tests.features.common import decoded
from worker.features.fitted import Fitted
from worker.features.kinds import KINDS
from worker.features.learned import MissingPattern
from worker.features.patterns import MAX_PATTERNS
from worker.features.schema import Schema
from worker.features.vectorize import Vectorizer, fit_vectorizer
from worker.formats.base import Row

EVENTS = {"login": 0, "pay": 8, "scan": 30, "audit": 40}  # and how many fields of its own come and go


def event(draw: Random, name: str = "") -> Row:
    """An event of one of the sorts: fields that all have, four that its sort has, and those that come and go."""
    name = name or draw.choices([*EVENTS], [50, 30, 12, 8])[0]
    own = {f"{name}.s{n}": 1 for n in range(4)} | {
        f"{name}.f{n}": 1 for n in range(EVENTS[name]) if draw.random() < 0.5
    }
    return {"event": name, "user": "a", **own}


def schema_of(rows: list[Row]) -> Schema:
    names = sorted({name for row in rows for name in row})
    return Schema(tuple(KINDS["categorical" if type(rows[0].get(name)) is str else "numeric"](name) for name in names))


def pattern_ids(fitted: Fitted, rows: list[Row]) -> list[int]:
    ids: list[int] = Vectorizer(fitted).transform(decoded(rows)).category_ids[:, -1].tolist()
    return ids


@pytest.fixture(scope="module")
def events() -> tuple[list[Row], Fitted]:
    draw = Random(1)
    rows = [event(draw) for _ in range(2000)]
    return rows, fit_vectorizer(schema_of(rows), rows)


def test_sets_of_missing_fields_are_patterns_of_their_own_where_they_are_few() -> None:
    rows: list[Row] = [{"a": 1, "b": 1}] * 5 + [{"a": 1}] * 7 + [{"b": 1}]

    fitted = fit_vectorizer(schema_of(rows), rows)

    assert fitted.categorical[-1].values == (MissingPattern(("b",)), MissingPattern(()), MissingPattern(("a",)))
    assert pattern_ids(fitted, [{"a": 1}, {"a": 1, "b": 1}, {"b": 1}, {}]) == [1, 2, 3, 0]


def test_sorts_of_records_are_patterns_though_hardly_two_records_lack_the_same_fields(
    events: tuple[list[Row], Fitted],
) -> None:
    rows, fitted = events

    ids = pattern_ids(fitted, rows)

    assert len({tuple(sorted(row)) for row in rows}) > 5 * MAX_PATTERNS
    pairs = Counter(zip(ids, (row["event"] for row in rows), strict=True))
    assert len(pairs) == len(fitted.categorical[-1].values) == len(EVENTS)
    assert not {0} & {*ids}


def test_a_later_record_has_the_pattern_of_its_sort_and_one_that_differs_has_none(
    events: tuple[list[Row], Fitted],
) -> None:
    _, fitted = events
    draw = Random(2)
    usual = {name: pattern_ids(fitted, [event(draw, name) for _ in range(300)]) for name in EVENTS}

    assert {name: max(Counter(ids).values()) >= 0.995 * len(ids) for name, ids in usual.items()} == dict.fromkeys(
        EVENTS, True
    )

    odd = [
        {**event(draw, "pay"), "login.s0": 1},  # a field of another sort
        {**event(draw, "login"), "audit.f7": 1},  # one that comes and goes there
        {name: value for name, value in event(draw, "scan").items() if name != "scan.s2"},  # one that is always there
        {name: value for name, value in event(draw, "audit").items() if name != "user"},
    ]

    assert pattern_ids(fitted, odd) == [0, 0, 0, 0]


def test_what_one_row_of_a_thousand_lacks_stays_strange() -> None:
    draw = Random(3)
    rows = [event(draw) for _ in range(3000)]
    for n in range(0, 3000, 1000):
        del rows[n]["user"]

    fitted = fit_vectorizer(schema_of(rows[1:]), rows)

    ids = np.array(pattern_ids(fitted, rows))
    assert {index for index, row in enumerate(rows) if "user" not in row} <= {*np.flatnonzero(ids == 0).tolist()}
    assert (ids == 0).mean() < 0.005


def test_fields_that_come_and_go_as_they_like_are_free_in_one_pattern() -> None:
    draw = Random(4)
    rows: list[Row] = [{"a": 1, **{f"f{n}": 1 for n in range(12) if draw.random() < 0.5}} for _ in range(600)]

    fitted = fit_vectorizer(schema_of(rows), rows)

    assert fitted.categorical[-1].values == (MissingPattern((), tuple(sorted(f"f{n}" for n in range(12)))),)


def test_patterns_come_back_from_json_and_odd_ones_are_refused(events: tuple[list[Row], Fitted]) -> None:
    _, fitted = events

    data = fitted.to_json()

    assert Fitted.from_json(data, fitted.schema) == fitted
    for broken in (
        {"absent": ["nobody"], "free": []},
        {"absent": [7]},
        ["user"],
        {"absent": ["user"], "free": ["user"]},
    ):
        data["categorical"][-1]["values"] = [broken]
        with pytest.raises(Exception, match="incomplete or of another version"):
            Fitted.from_json(data, fitted.schema)


def test_six_hundred_fields_and_ten_thousand_different_sets_cost_seconds() -> None:
    draw = Random(5)
    names = [f"f{n}" for n in range(600)]
    rows: list[Row] = [{"a": 1, **dict.fromkeys(draw.sample(names, 60), 1)} for _ in range(10_000)]
    schema = Schema(tuple(KINDS["numeric"](name) for name in ["a", *names]))
    plain = [{"a": 1, **dict.fromkeys(names[:60], 1)} for _ in rows]
    started = time.process_time()
    fit_vectorizer(schema, plain)
    without = time.process_time() - started

    started = time.process_time()
    fitted = fit_vectorizer(schema, rows)
    took = time.process_time() - started

    assert len(fitted.categorical[-1].values) == 1
    assert took < 3 * without + 2
