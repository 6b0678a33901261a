from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.features.common import STEADY, encode, one_field
from worker.errors import BundleError
from worker.features.fitted import Fitted
from worker.features.kinds import Numeric
from worker.features.learned import FieldStats, Special
from worker.features.schema import Schema

SCHEMA = Schema((Numeric("x"),))
FINGERPRINT = SCHEMA.fingerprint
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "numeric": st.none() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False),
    "categorical": st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8")),
    "boolean": st.none() | st.booleans(),
    "text": st.none() | st.text(st.characters(codec="utf-8")),
}


@pytest.mark.parametrize("kind", VALUES)
@STEADY
@given(data=st.data())
def test_a_fit_survives_json(kind: str, data: st.DataObject) -> None:
    schema, fitted = one_field(kind, data.draw(st.lists(VALUES[kind], min_size=1)))

    again = Fitted.from_json(orjson.loads(orjson.dumps(fitted.to_json())), schema)

    assert again == fitted
    assert list(map(type, again.categorical[0].values)) == list(map(type, fitted.categorical[0].values))


@pytest.mark.parametrize(
    "data", [{}, {"schema_fingerprint": FINGERPRINT, "rows": 1, "categorical": [], "numeric": [{"a": 1}]}]
)
def test_incomplete_data_are_a_bundle_error(data: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match="incomplete"):
        Fitted.from_json(data, SCHEMA)


def test_numbers_come_back_in_the_records_own_units() -> None:
    values = [1.5 * 2**n for n in range(20)]
    schema, fitted = one_field("numeric", values)

    numeric = encode(schema, fitted, [48.0, 1e9]).numeric

    assert fitted.numeric[0].transform == "log1p"
    assert fitted.expected("x", numeric[0].tolist()) == 48.0
    assert fitted.expected("x", numeric[1].tolist()) == pytest.approx(1e9, rel=0.01)


def test_whole_numbers_come_back_whole() -> None:
    _, fitted = one_field("numeric", [1, 2, 3, 40])

    assert repr(fitted.expected("x", [0.05])) == "3"


def test_statistics_are_values_that_did_occur() -> None:
    _, fitted = one_field("numeric", [*range(1, 100), None])
    _, prices = one_field("numeric", [n + 0.25 for n in range(100)])

    assert fitted.stats_of["x"] == FieldStats("x", low=1, high=99, median=50)
    assert prices.stats_of["x"] == FieldStats("x", low=0.25, high=98.25, median=49.25)


def test_the_most_frequent_category_is_kept() -> None:
    _, fitted = one_field("categorical", ["a", "b", "b", None, None, None])

    assert fitted.stats_of["x"].top == "b"


def test_every_id_has_words() -> None:
    _, fitted = one_field("categorical", ["a", "a", "b", None], max_values=1)

    assert [fitted.categorical[0].value(number) for number in range(4)] == [
        Special.UNKNOWN,
        Special.MISSING,
        Special.OTHER,
        "a",
    ]
    words = [fitted.categorical[1].value(number) for number in range(3)]
    assert words == [Special.UNKNOWN, "all fields present", "without x"]


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        ("numeric", [1, 2, 3], "1 to 3, median 2"),
        ("numeric", [None], ""),
        ("categorical", list("aabbcdefgh"), "a, b, c, d, e, f and 2 more"),
        ("boolean", [True], "True"),
        ("text", ["retry 3"] * 2, "length 7 to 7, median 7; retry <num>"),
        ("timestamp", [0], "its cycles through day and week"),
    ],
)
def test_what_is_usual_for_a_field_is_described_by_its_kind(kind: str, values: list[Any], words: str) -> None:
    _, fitted = one_field(kind, values)

    assert fitted.describe("x") == words


def test_the_expectation_of_a_category_is_its_value() -> None:
    _, fitted = one_field("categorical", ["a"])

    assert fitted.expected("x", [], 2) == "a"


def test_the_expectation_of_a_text_is_its_template() -> None:
    _, fitted = one_field("text", ["login of 17 from 10.0.0.1"] * 3)

    assert fitted.expected("x", [0.0], 2) == "login of <num> from <ip>"
    assert fitted.stats_of["x"] == FieldStats("x", 25, 25, 25, "login of <num> from <ip>")


def test_an_unknown_field_has_no_expectation() -> None:
    _, fitted = one_field("numeric", [1])

    with pytest.raises(ValueError, match="'y' has 0 numeric columns"):
        fitted.expected("y", [0.0])
