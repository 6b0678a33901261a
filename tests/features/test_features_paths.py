import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.features.common import STEADY
from worker.features.infer import infer_schema
from worker.features.inject import with_values, without_fields
from worker.features.paths import MAX_NAME, NotAnObject, column_of, holder_of, read_field, value_of, walk
from worker.features.schema import parse_schema, read_columns
from worker.formats.base import Row

KEYS = st.sampled_from(["a", "b", "a.b", "", ".", "b.a", "a.b.a", "a."])
VALUES = st.recursive(st.none() | st.integers(0, 9), lambda inner: st.dictionaries(KEYS, inner, max_size=3))


def slow_read(row: Any, name: str) -> list[Any]:
    """All values that a name can mean, the one with the longest key first."""
    if type(row) is not dict:
        return []
    exact = [row[name]] if name in row else []
    dots = [at for at in reversed(range(len(name))) if name[at] == "."]
    return exact + [value for at in dots for value in slow_read(row.get(name[:at]), name[at + 1 :])]


@pytest.mark.parametrize(
    ("row", "name", "value"),
    [
        ({"a": 1}, "a", 1),
        ({"a": {"b": 1}}, "a.b", 1),
        ({"a.b": 2, "a": {"b": 1}}, "a.b", 2),
        ({"a.b": None, "a": {"b": 1}}, "a.b", None),
        ({"labels": {"app.kubernetes.io/name": "web"}}, "labels.app.kubernetes.io/name", "web"),
        ({"labels": {"app": "x", "app.kubernetes.io/name": "web"}}, "labels.app.kubernetes.io/name", "web"),
        ({"resource.attributes": {"service.name": "cart"}}, "resource.attributes.service.name", "cart"),
        ({"a.b": {"c": 1}, "a": {"b.c": 2, "b": {"c": 3}}}, "a.b.c", 1),
        ({"a": {"b.c": 2, "b": {"c": 3}}}, "a.b.c", 2),
        ({"a.b": {"x": 1}, "a": {"b": {"c": 3}}}, "a.b.c", 3),
        ({"a.b": 7, "a": {"b": {"c": 3}}}, "a.b.c", 3),
        ({"a": None}, "a.b", None),
        ({}, "a.b", None),
    ],
)
def test_the_longest_key_comes_first_and_what_leads_nowhere_is_taken_back(row: Row, name: str, value: object) -> None:
    assert read_field(row, name) == value
    assert column_of([row, {}], name) == [value, None]


def test_a_path_through_a_value_that_holds_no_fields_is_told_apart() -> None:
    assert isinstance(read_field({"a": 5}, "a.b"), NotAnObject)
    assert value_of({"a": 5}, "a.b") is None


@STEADY
@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_what_the_walk_names_the_look_up_returns(row: Row) -> None:
    values, too_long = walk(row)

    assert too_long == 0
    for name, value in values.items():
        assert value_of(row, name) is value
        assert value is slow_read(row, name)[0]


@STEADY
@given(st.dictionaries(KEYS, VALUES, max_size=4), st.sampled_from(["a", "a.b", "a.b.a", "b.a.b", ".", "a..b"]))
def test_a_field_that_is_set_is_read_and_one_that_is_taken_out_is_gone(row: Row, name: str) -> None:
    if (holder := holder_of(row, name)) is not None:
        assert value_of(row, name) is holder[0][holder[1]]
    assert value_of(with_values(row, {name: 77}), name) == 77
    assert value_of(without_fields(row, [name]), name) in [*slow_read(row, name)[1:], None]


@STEADY
@given(st.lists(st.dictionaries(KEYS, VALUES, max_size=4), max_size=4), st.sampled_from(["a", "a.b", "a.b.a", "b.a.b"]))
def test_a_column_holds_what_the_look_up_of_each_row_returns(rows: list[Row], name: str) -> None:
    assert column_of(rows, name) == [read_field(row, name) for row in rows]


def test_a_proposal_has_keys_with_dots_inside_objects_and_reads_them() -> None:
    rows: list[Row] = [
        {"n": at, "labels": {"app": "ab"[at % 2], "app.kubernetes.io/name": "xyz"[at % 3]}} for at in range(60)
    ]

    schema = infer_schema(rows).schema

    assert "labels.app.kubernetes.io/name" in [field.name for field in schema.encoded]
    columns = {column.field.name: column for column in read_columns(schema, rows)[0]}
    assert list(columns["labels.app.kubernetes.io/name"].values) == ["xyz"[at % 3] for at in range(60)]
    assert parse_schema(schema.to_toml()) == schema


def test_a_record_with_a_key_that_another_name_begins_with_is_read() -> None:
    rows: list[Row] = [
        {"n": at, "labels": {"app": "ab"[at % 2]} | ({"app.name": "xyz"[at % 3]} if at % 4 else {})} for at in range(60)
    ]

    columns, failures = read_columns(infer_schema(rows).schema, rows)

    assert failures == {}
    assert [column.values[4:6] for column in columns if column.field.name == "labels.app.name"] == [[None, "z"]]


def test_a_key_of_a_megabyte_is_no_name_and_costs_no_time() -> None:
    row: Row = {"a": {"." * 1_000_000: {"b": 1}, "c": 2}, "x" * (MAX_NAME + 1): 1}
    started = time.monotonic()

    values, too_long = walk(row)

    assert set(values) == {"a", "a.c"}
    assert too_long == 2
    assert time.monotonic() - started < 30
