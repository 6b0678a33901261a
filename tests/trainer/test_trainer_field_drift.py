"""The fields that have drifted are named, and no others."""

import numpy as np
import pytest

from devtools.refit_streams import SCHEMA, Traffic
from worker.features.schema import parse_schema
from worker.trainer.drift import drifted_fields

TRAFFIC = Traffic(0)
LEARNED = TRAFFIC.rows(2_000)


def test_more_of_the_same_has_not_drifted_fields() -> None:
    assert drifted_fields(LEARNED, TRAFFIC.rows(2_000), SCHEMA) == []


@pytest.mark.parametrize("name", ["amount", "delay"])
def test_a_number_that_drifted_is_named(name: str) -> None:
    recent = [{**row, name: row[name] * 1.3} for row in TRAFFIC.rows(2_000)]

    assert [drift.field for drift in drifted_fields(LEARNED, recent, SCHEMA)] == [name]


def test_a_new_value_of_a_category_is_named_with_its_share() -> None:
    recent = [{**row, "country": "XX"} if i % 4 == 0 else row for i, row in enumerate(TRAFFIC.rows(2_000))]

    (drift,) = drifted_fields(LEARNED, recent, SCHEMA)

    assert drift.field == "country"
    assert drift.distance == pytest.approx(0.25, abs=0.02)
    assert drift.p_value < 1e-6


def test_a_field_that_vanished_has_drifted_fields() -> None:
    recent = [{name: value for name, value in row.items() if name != "weight"} for row in TRAFFIC.rows(500)]

    assert [drift.field for drift in drifted_fields(LEARNED, recent, SCHEMA)] == ["weight"]


def test_too_few_rows_say_nothing() -> None:
    assert drifted_fields(LEARNED, [{**row, "amount": 1e9} for row in TRAFFIC.rows(20)], SCHEMA) == []


def test_time_is_not_a_field_that_drifts() -> None:
    schema = parse_schema('[fields.at]\nkind = "timestamp"\n[fields.x]\nkind = "numeric"')
    rows = [{"at": f"2026-01-{day:02d}T00:00:00Z", "x": float(np.sin(day))} for day in range(1, 29)] * 5

    assert drifted_fields(rows, [{**row, "at": "2027-06-01T00:00:00Z"} for row in rows], schema) == []


def test_the_furthest_comes_first() -> None:
    recent = [{**row, "amount": row["amount"] + 2, "age": row["age"] + 20} for row in TRAFFIC.rows(2_000)]

    assert [drift.field for drift in drifted_fields(LEARNED, recent, SCHEMA)] == ["age", "amount"]
