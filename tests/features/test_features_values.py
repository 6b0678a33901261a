"""Values in strings: what is proposed for them, and what is read of them live, with the same code."""

from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.features.common import STEADY, encode, one_field, rows_of
from worker.errors import ErrorCode
from worker.features.infer import infer_schema
from worker.features.kinds import Field
from worker.features.kinds.numeric import Numeric
from worker.features.schema import Schema
from worker.features.values import read_number, read_numbers, without_missing
from worker.features.vectorize import conceal, fit_vectorizer
from worker.redaction import Redaction

N = 200
NO_NUMBERS = ["", "-", "x", "1,5", "1 2", "0x10", "1_000", "inf", "nan", "\u0663", "1e", "[1]", "1" * 65]
DRAW = Random(0)


def field_of(values: list[Any]) -> Field:
    """The field that is proposed for these values."""
    fields = infer_schema([row | {"other": n % 7} for n, row in enumerate(rows_of(values))]).schema.fields
    return next(field for field in fields if field.name == "x")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("12.50", 12.5),
        ("1", 1.0),
        ("-3e5", -300000.0),
        (" 7 ", 7.0),
        ("+4.25", 4.25),
        (".5", 0.5),
        ("5.", 5.0),
        ("007", 7.0),
        ("\u00a012\t", 12.0),
        ("1e999", np.inf),
        ("-1e999", -np.inf),
        *(
            (text, np.nan)
            for text in ["", "-", "x", "1,5", "1 2", "0x10", "1_000", "inf", "nan", "\u0663", "1e", "[1]"]
        ),
    ],
)
def test_a_string_is_read_as_the_number_that_it_is(text: str, number: float) -> None:
    assert np.array_equal([read_number(text)], [number], equal_nan=True)


NUMBER_TEXTS = st.one_of(
    st.integers(-(10**25), 10**25).map(str),
    st.floats(allow_nan=False).map(str),
    st.sampled_from(["1,2", "[1", "2]", "", " 1 ", "null", "true", '"1"', "1]", "[", "007", "+1", "\ud800"]),
    st.text("0123456789.,-+eE[] ", max_size=8),
)


@STEADY
@given(st.lists(NUMBER_TEXTS, max_size=6))
def test_many_strings_are_read_as_one_by_one(texts: list[str]) -> None:
    expected = np.array([read_number(text) for text in texts], np.float64)

    assert np.array_equal(read_numbers(texts), expected, equal_nan=True)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("numeric", [f"{DRAW.lognormvariate(3, 1):.2f}" for _ in range(N)]),
        ("numeric", [str(DRAW.randrange(1, 4)) for _ in range(N)]),
        ("numeric", [f"{DRAW.gauss(0, 1e5):.3e}" for _ in range(N)]),
        ("numeric", ["" if n % 3 else str(DRAW.randrange(9999)) for n in range(N)]),
        ("numeric", ["" if n % 3 else DRAW.randrange(9999) for n in range(N)]),
        ("numeric", [DRAW.choice(["N/A", "-", "null", " 3.5", "4.25 "]) for _ in range(N)]),
        ("numeric", [str(n / 7) if n % 2 else n / 7 for n in range(N)]),
        ("numeric", [str(DRAW.randrange(0, 101)) for n in range(3 * N)]),  # percentages
        ("categorical", [f"{DRAW.randrange(30) * 1009:05d}" for _ in range(N)]),  # zip codes
        ("categorical", [f"+4930{DRAW.randrange(9):06d}" for _ in range(N)]),
        ("categorical", [str(DRAW.randrange(1, 400)) for n in range(10 * N)]),  # customers
        ("categorical", [DRAW.choice(["1.2.3", "1.2.4", "1.3"]) for _ in range(N)]),
        ("categorical", [DRAW.choice(["3", "4", "unknown"]) for _ in range(N)]),
        ("id", [str(4500 + n) for n in range(N)]),
        ("id", [f"{DRAW.randrange(10**9):010d}" for n in range(N)]),
        ("id", [str(DRAW.randrange(10**14, 10**15)) for n in range(N)]),
    ],
)
def test_the_kind_of_strings_that_are_numbers(kind: str, values: list[Any]) -> None:
    assert field_of(values).kind == kind


@pytest.mark.parametrize(
    ("text", "error_code"),
    [
        ("apples", ErrorCode.WRONG_TYPE),
        ("1,000", ErrorCode.WRONG_TYPE),
        ("12 34", ErrorCode.WRONG_TYPE),
        ("--", ErrorCode.WRONG_TYPE),
        ("1e400", ErrorCode.NOT_FINITE),
    ],
)
def test_a_string_that_is_no_number_costs_its_own_record(text: str, error_code: ErrorCode) -> None:
    schema, fitted = one_field("numeric", ["1", "2", "3"])

    vectors = encode(schema, fitted, ["1", text, 2])

    assert [(reject.message.offset, reject.error_code) for reject in vectors.rejects] == [(1, error_code)]
    assert text not in vectors.rejects[0].detail


def test_numbers_in_strings_have_the_vectors_of_numbers() -> None:
    numbers = [round(DRAW.lognormvariate(3, 1), 2) for _ in range(N)]
    texts = [f" {number}" if n % 2 else number for n, number in enumerate(numbers)]

    (schema, plain), (_, written) = one_field("numeric", [None, *numbers]), one_field("numeric", ["-", *texts])

    assert plain == written
    vectors = [encode(schema, plain, values) for values in ([None, *numbers], ["N/A", *texts])]
    assert vectors[0].numeric.tobytes() == vectors[1].numeric.tobytes()
    assert vectors[0].category_ids.tobytes() == vectors[1].category_ids.tobytes()


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


def test_a_redacted_number_in_a_string_does_not_leak() -> None:
    numbers = [round(DRAW.lognormvariate(3, 1), 2) for _ in range(N)]
    schema, hidden = Schema((Numeric("x"),)), Redaction(["x"])
    rows, plain_rows = rows_of([*map(str, numbers), "-"]), rows_of([*numbers, None])
    fitted = fit_vectorizer(schema, rows, redaction=hidden)

    kept = conceal(fitted, hidden, rows)

    assert kept == conceal(fitted, hidden, plain_rows)
    assert conceal(fitted, hidden, [row or {} for row in kept]) == kept


def test_drift_reads_strings() -> None:
    small, large = ([f"{DRAW.gauss(mean, 1):.3f}" for _ in range(N)] for mean in (5, 9))

    assert Numeric("x").drift(small, large)[0] > 0.9
    assert Numeric("x").drift(small, [float(text) for text in small])[0] == 0


@pytest.mark.parametrize("value", ["12.50", " 3", "-0.25", "1e3", ".5"])
def test_a_planted_number_is_written_as_it_was(value: str) -> None:
    planted = Numeric("x").plant(value, Random(1))

    assert isinstance(planted, str)
    assert read_number(planted) in (100 * float(value), 1000 * float(value))


@pytest.mark.parametrize("value", ["0", "-", "apples", "0.00", None, ""])
def test_what_is_no_number_or_nothing_is_not_planted(value: str | None) -> None:
    assert not Numeric("x").can_plant(value)
