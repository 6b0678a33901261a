"""Synthetic anomalies can be planted in any records that have a schema."""

from collections import Counter
from copy import deepcopy
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import DataError, UsageError
from worker.features.inject import anomalies, inject, plant, with_values, without_fields
from worker.features.kinds.numeric import scaled
from worker.features.paths import value_of
from worker.features.schema import Schema, parse_schema, read_columns

SCHEMA = parse_schema("""
[fields.id]
kind = "id"
[fields.at]
kind = "timestamp"
[fields.amount]
kind = "numeric"
[fields.count]
kind = "numeric"
required = true
[fields."shop.country"]
kind = "categorical"
[fields.channel]
kind = "categorical"
[fields.code]
kind = "categorical"
[fields.gone]
kind = "ignore"
""")


def make_rows(count: int) -> list[dict[str, Any]]:
    rng = Random(1)
    return [
        {
            "id": f"r{i}",
            "at": 1_700_000_000_000 + i * 60_000,
            "amount": round(rng.lognormvariate(3, 1), 2),
            "count": rng.randint(1, 9),
            "shop": {"country": rng.choice("ABC")},
            "channel": rng.choice(("web", "till")),
            "code": rng.randint(1, 5),
            "gone": 1,
        }
        for i in range(count)
    ]


def test_the_given_rows_are_never_changed_and_untouched_ones_are_passed_on() -> None:
    rows = make_rows(500)
    before = deepcopy(rows)

    changed, truth = inject(rows, SCHEMA, share=0.1, seed=4)

    touched = {planted.index for planted in truth}
    assert rows == before
    assert all(changed[i] is rows[i] for i in range(500) if i not in touched)
    assert all(changed[i] != rows[i] for i in touched)


def test_the_share_is_reached_with_every_kind() -> None:
    _, truth = inject(make_rows(1000), SCHEMA, share=0.05)

    assert len(truth) == len({planted.index for planted in truth}) == 50
    assert set(Counter(planted.kind for planted in truth)) == set(anomalies())


def test_the_same_seed_plants_the_same() -> None:
    rows = make_rows(300)

    assert inject(rows, SCHEMA, seed=1) == inject(rows, SCHEMA, seed=1)
    assert inject(rows, SCHEMA, seed=1) != inject(rows, SCHEMA, seed=2)


def test_planted_rows_still_fit_the_schema_and_differ_in_the_named_fields_only() -> None:
    rows = make_rows(1000)

    changed, truth = inject(rows, SCHEMA, share=0.2)

    assert read_columns(SCHEMA, changed)[1] == {}
    for planted in truth:
        assert planted.fields
        for field in SCHEMA.fields:
            same = value_of(rows[planted.index], field.name) == value_of(changed[planted.index], field.name)
            assert same != (field.name in planted.fields), (planted, field.name)


def test_a_missing_burst_takes_the_same_fields_from_neighbours_and_leaves_required_ones() -> None:
    rows = make_rows(200)

    changed, truth = inject(rows, SCHEMA, share=0.02, kinds=["missing_burst"])

    assert [planted.index for planted in truth] == list(range(truth[0].index, truth[0].index + 4))
    assert len({planted.fields for planted in truth}) == 1
    assert all(value_of(changed[p.index], name) is None for p in truth for name in p.fields)
    assert not {"count", "at", "id"} & set(truth[0].fields)


@pytest.mark.parametrize("kind", anomalies())
def test_a_kind_that_is_impossible_in_a_record_gives_none(kind: str) -> None:
    schema = parse_schema('[fields.ok]\nkind = "boolean"\nrequired = true\n')

    assert plant({"ok": True}, kind, Random(0), schema=schema, donor={"ok": False}) is None


def test_records_in_which_nothing_can_be_planted_are_an_error() -> None:
    schema = parse_schema('[fields.ok]\nkind = "boolean"\nrequired = true\n')

    with pytest.raises(DataError, match="none of field_swap"):
        inject([{"ok": True}] * 10, schema)


def test_unknown_kinds_and_shares_out_of_range_are_refused() -> None:
    rows = make_rows(10)

    with pytest.raises(UsageError, match="unknown kind of anomaly 'swap'; kinds are field_swap"):
        inject(rows, SCHEMA, kinds=["swap"])
    with pytest.raises(UsageError, match=r"more than 0, at most 0\.5"):
        inject(rows, SCHEMA, share=0.6)


def test_a_literal_dotted_key_wins_over_the_nested_path() -> None:
    assert with_values({"a.b": 1, "a": {"b": 2}}, {"a.b": 3}) == {"a.b": 3, "a": {"b": 2}}
    assert with_values({"a": {"b": 2}, "c": 1}, {"a.b": 3, "x.y": 4}) == {"a": {"b": 3}, "c": 1, "x": {"y": 4}}
    assert without_fields({"a": {"b": 2, "c": 1}}, ["a.b", "x.y"]) == {"a": {"c": 1}}


@given(st.integers(-(10**12), 10**12), st.sampled_from([100, 1000, 0.5]))
def test_scaling_keeps_whole_numbers_whole_where_it_can(value: int, factor: float) -> None:
    product = scaled(value, factor)

    assert product == value * factor
    assert isinstance(product, int) == (value * factor == int(value * factor))


def test_a_swap_needs_two_differences() -> None:
    schema: Schema = parse_schema('[fields.a]\nkind = "categorical"\n[fields.b]\nkind = "categorical"\n')

    one_difference = plant({"a": "x", "b": "y"}, "field_swap", Random(0), schema=schema, donor={"a": "z", "b": "y"})
    two_differences = plant({"a": "x", "b": "y"}, "field_swap", Random(0), schema=schema, donor={"a": "z", "b": "w"})

    assert one_difference is None
    assert two_differences is not None
    assert two_differences[0] in ({"a": "z", "b": "y"}, {"a": "x", "b": "w"})
