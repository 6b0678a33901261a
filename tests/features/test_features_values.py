"""Words in strings: what says that there is no value, what says true and false."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.features.common import STEADY, encode, field_of, one_field, rows_of
from worker.errors import ErrorCode
from worker.features.kinds import Boolean, Categorical
from worker.features.schema import Schema
from worker.features.values import without_missing
from worker.features.vectorize import conceal, fit_vectorizer
from worker.redaction import Redaction


@pytest.mark.parametrize("gap", ["", "-", "null", "N/A", " - ", "NaN", "None", "   ", "undefined"])
def test_what_says_that_there_is_no_number_is_missing(gap: str) -> None:
    schema, fitted = one_field("numeric", ["1", "2", None])

    missing, said = encode(schema, fitted, [None]), encode(schema, fitted, [gap])

    assert said.numeric.tobytes() == missing.numeric.tobytes()
    assert said.category_ids.tobytes() == missing.category_ids.tobytes()


@pytest.mark.parametrize("gap", ["", "N/A", " null "])
def test_what_says_that_there_is_no_number_is_a_missing_field_where_one_is_required(gap: str) -> None:
    schema, fitted = one_field("numeric", ["1", "2"], required=True)

    assert [r.error_code for r in encode(schema, fitted, [gap]).rejects] == [ErrorCode.MISSING_FIELD]


def test_listed_gaps_take_the_place_of_the_usual_ones() -> None:
    schema, fitted = one_field("numeric", ["1", "?"], missing=("?", "unknown"))

    vectors = encode(schema, fitted, ["?", " unknown", "-"])

    assert [reject.message.offset for reject in vectors.rejects] == [2]


@STEADY
@given(
    st.lists(st.sampled_from(["", "-", " - ", "          -", "null", "12345678901234567890", "x", 1, None]), min_size=1)
)
def test_whether_a_string_is_a_gap_does_not_depend_on_its_neighbours(values: list[Any]) -> None:
    gaps = ["", "-", "null"]

    together = without_missing(values, set(map(type, values)), gaps)

    assert list(together) == [without_missing([value], {type(value)}, gaps)[0] for value in values]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("boolean", ["true", "false", "true"]),
        ("boolean", ["True", "False", "FALSE", "", "N/A"]),
        ("boolean", ["yes", "no", "-"]),
        ("boolean", ["Y", "N", "n"]),
        ("boolean", [" on ", "off"]),
        ("boolean", [True, "false", True]),
        ("boolean", [True, "", False]),
        ("categorical", ["yes", "no", "unknown"]),
        ("categorical", ["yes", "false"]),
        ("categorical", ["true", "yes", "no"]),
        ("categorical", ["y", "x"]),
        ("numeric", ["0", "1"]),
        ("numeric", [0, 1]),
    ],
)
def test_the_kind_of_what_says_true_or_false(kind: str, values: list[Any]) -> None:
    assert field_of(values * 200).kind == kind


@pytest.mark.parametrize(
    ("yes", "no"), [("true", "false"), ("YES", "no"), (" y ", "N"), ("on", "OFF"), ("t", "f"), ("1", "0"), (1, 0)]
)
def test_words_for_true_and_false_have_the_vectors_of_booleans(yes: Any, no: Any) -> None:
    (schema, plain), (_, written) = one_field("boolean", [True, True, False]), one_field("boolean", [yes, yes, no])

    vectors = [encode(schema, plain, values).category_ids.tolist() for values in ([True, False, None], [yes, no, "-"])]

    assert plain == written
    assert vectors[0] == vectors[1]


@pytest.mark.parametrize("value", ["maybe", "truefalse", "2", 2, -1, 0.5, "y" * 100, [True]])
def test_what_is_neither_true_nor_false_costs_its_own_record(value: Any) -> None:
    schema, fitted = one_field("boolean", [True, False])

    rejects = encode(schema, fitted, [True, value, "no"]).rejects

    assert [(reject.message.offset, reject.error_code) for reject in rejects] == [(1, ErrorCode.WRONG_TYPE)]
    assert rejects[0].detail.startswith("x: expected a boolean, got a")


def test_redacted_words_for_true_and_false_are_kept_as_tokens_of_the_booleans() -> None:
    schema, hidden = Schema((Boolean("x"),)), Redaction(["x"])
    words, plain = rows_of(["yes", "No", "-", "yes"]), rows_of([True, False, None, True])
    fitted = fit_vectorizer(schema, words, redaction=hidden)

    kept = conceal(fitted, hidden, words)

    assert kept == conceal(fitted, hidden, plain)
    assert {len(str(row["x"])) for row in kept if row is not None and row["x"] is not None} == {len("redacted:") + 34}
    assert Boolean("x").drift(["yes", "no"] * 50, [True, False] * 50)[0] == 0


def test_an_empty_string_is_a_category_unless_it_is_listed() -> None:
    plain, listed = Categorical("x"), Categorical("x", missing=("", "n/a"))

    assert list(plain.read(["", "a", "n/a"])[0].values) == ["", "a", "n/a"]
    assert list(listed.read(["", "a", "n/a"])[0].values) == [None, "a", None]
