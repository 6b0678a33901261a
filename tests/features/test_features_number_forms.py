"""Numbers in strings: what is proposed for them, and what is read of them live, with the same code."""

from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.features.common import STEADY, encode, field_of, one_field, rows_of
from worker.errors import ErrorCode, SchemaError
from worker.features.kinds import Categorical, Timestamp
from worker.features.kinds.evidence import Sample
from worker.features.kinds.numeric import Numeric
from worker.features.number_forms import PLAIN, NumberForm
from worker.features.schema import Schema, parse_schema
from worker.features.values import MISSING
from worker.features.vectorize import conceal, fit_vectorizer
from worker.redaction import Redaction
from worker.sources.csv_files import Columns

N = 200
NO_NUMBERS = ["", "-", "x", "1,5", "1 2", "0x10", "1_000", "inf", "nan", "\u0663", "1e", "[1]", "1" * 65]
DRAW = Random(0)


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
    assert np.array_equal([PLAIN.read(text)], [number], equal_nan=True)


FORMS: list[tuple[dict[str, str], list[str], list[float]]] = [
    ({}, ["1.5", "2", "-3.25"], [1.5, 2, -3.25]),
    ({"decimal": ","}, ["12,50", "7", "-0,25"], [12.5, 7, -0.25]),
    ({"decimal": ","}, ["1234,5", "99,125", ",5"], [1234.5, 99.125, 0.5]),
    ({"decimal": ","}, ["1,5e3", "2,25E-2"], [1500, 0.0225]),
    ({"decimal": ","}, ["\u22125,2", "3,1"], [-5.2, 3.1]),
    ({"thousands": ","}, ["1,234.50", "999.99", "-12,345,678.00"], [1234.5, 999.99, -12345678]),
    ({"thousands": ","}, ["1,23,456.00", "12,34,56,789.50"], [123456, 123456789.5]),  # lakh and crore
    ({"decimal": ",", "thousands": "."}, ["1.234,50", "0,99", "12.345.678,00"], [1234.5, 0.99, 12345678]),
    ({"decimal": ",", "thousands": " "}, ["1 234,50", "7,25", "12\u00a0345\u202f678,0"], [1234.5, 7.25, 12345678]),
    ({"thousands": "'"}, ["1'234.50", "7.25", "12\u2019345'678.0"], [1234.5, 7.25, 12345678]),
    ({"thousands": "_"}, ["1_000", "2_000_000", "7"], [1000, 2000000, 7]),
    ({"unit": "$"}, ["$12.50", "-$7.25", "$-1.00", "$ 3"], [12.5, -7.25, -1, 3]),
    ({"unit": "EUR"}, ["12.50 EUR", "7 EUR", "-0.5EUR"], [12.5, 7, -0.5]),
    ({"unit": "EUR"}, ["EUR 12.50", "EUR 7"], [12.5, 7]),
    ({"unit": "ms"}, ["5ms", "1.5ms", "12 ms"], [5, 1.5, 12]),
    ({"unit": "MB"}, ["5 MB", "1.5 MB", "1e3 MB"], [5, 1.5, 1000]),
    ({"unit": "%"}, ["12%", "7.5 %", "-3%", "+1%"], [12, 7.5, -3, 1]),
    ({"unit": "°C"}, ["12.1 °C", "-7.5°C"], [12.1, -7.5]),
    ({"unit": "km/h"}, ["120 km/h", "99.5 km/h"], [120, 99.5]),
    ({"decimal": ",", "thousands": ".", "unit": "€"}, ["1.234,50 €", "0,99 €", "12 €"], [1234.5, 0.99, 12]),
    ({"thousands": ",", "unit": "$"}, ["$1,234.50", "$0.99"], [1234.5, 0.99]),
]


NUMBER_TEXTS = st.one_of(
    st.integers(-(10**25), 10**25).map(str),
    st.floats(allow_nan=False).map(str),
    st.sampled_from(["1,2", "[1", "2]", "", " 1 ", "null", "true", '"1"', "1]", "[", "007", "+1", "\ud800"]),
    st.text("0123456789.,-+eE[] €'_\n$", max_size=8),
)


FORM = st.sampled_from([PLAIN, *(Numeric("x", **options).form for options, _, _ in FORMS)])  # type: ignore[arg-type]


@STEADY
@given(FORM, st.lists(NUMBER_TEXTS | st.sampled_from([text for _, texts, _ in FORMS for text in texts]), max_size=6))
def test_many_strings_are_read_as_one_by_one(form: NumberForm, texts: list[str]) -> None:
    expected = np.array([form.read(text) for text in texts], np.float64)

    assert np.array_equal(form.read_all(texts), expected, equal_nan=True)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("numeric", [f"{DRAW.lognormvariate(3, 1):.2f}" for _ in range(N)]),
        ("numeric", [str(DRAW.randrange(1, 4)) for _ in range(N)]),
        ("numeric", [f"{DRAW.gauss(0, 1e5):.3e}" for _ in range(N)]),
        ("numeric", ["" if n % 3 else str(DRAW.randrange(9999)) for n in range(N)]),
        ("numeric", ["" if n % 3 else DRAW.randrange(9999) for n in range(N)]),
        ("numeric", [DRAW.choice(["N/A", "-", "null", " 3.5", "4.25 "]) for _ in range(N)]),
        ("numeric", [str(n % 90 / 7) if n % 2 else n % 90 / 7 for n in range(N)]),
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


@pytest.mark.parametrize(("options", "texts", "numbers"), FORMS)
def test_a_form_that_reads_all_strings_is_proposed_and_reads_them(
    options: dict[str, str], texts: list[str], numbers: list[float]
) -> None:
    evidence = Numeric.infer(Sample(texts * 10, {str}, len(texts)))
    assert evidence is not None

    column, failures = Numeric("x", **evidence.options).read([*texts, " ", 4])

    assert (evidence.options, evidence.doubt, failures) == (options, "", {})
    assert column.numbers.tolist() == [*numbers, 0, 4]
    assert column.values[-2] is None


@pytest.mark.parametrize(
    "texts",
    [
        ["v1.2", "v1.3"],
        ["node3", "node4"],
        ["1.2.3", "1.2.4"],
        ["12:30", "13:10"],
        ["2024-03-01", "2024-03-02"],
        ["10.0.0.1", "10.0.0.2"],
        ["5 ms", "1.5 s"],
        ["$5", "€6"],
        ["$5", "6"],
        ["10 AM", "11 AM"],
        ["5-3", "2-1"],
        ["1/2", "3/4"],
        ["1,2,3", "4,5,6"],
        ["1,234", "12,34,5"],
        ["0x1f", "0x2a"],
        ["12e", "13e"],
        ["EUR", "USD"],
        ["01067", "99501"],
        ["00 EUR", "01 EUR"],
        ["+4930123456", "+4989123456"],
        ["5 five-hundreds", "6 five-hundreds"],
    ],
)
def test_what_only_resembles_numbers_is_none(texts: list[str]) -> None:
    assert Numeric.infer(Sample(texts * 10, {str}, len(texts))) is None


@pytest.mark.parametrize(
    ("texts", "options", "first"),
    [
        (["1,234", "5,678", "999"], {"thousands": ","}, 1234),
        (["1,234", "5,678"], {"thousands": ","}, 1234),
        (["1.234", "5.678", "85"], {"decimal": ",", "thousands": "."}, 1234),
        (["1.234", "5.678", "12.000"], {}, 1.234),
        (["1.234 €", "12.345 €"], {"unit": "€"}, 1.234),
    ],
)
def test_a_text_that_could_mean_two_numbers_is_a_doubt(texts: list[str], options: dict[str, str], first: float) -> None:
    evidence = Numeric.infer(Sample(texts * 10, {str}, len(texts)))

    assert evidence is not None
    assert evidence.options == options
    assert "could be thousands or a fraction" in evidence.doubt
    assert Numeric("x", **evidence.options).read(texts)[0].numbers[0] == first


@pytest.mark.parametrize(
    "texts", [["0.123", "5.678"], ["1.234", "5.67"], ["1.234.567", "1.234"], ["1234.567", "1.234"]]
)
def test_another_value_decides_what_a_text_means(texts: list[str]) -> None:
    evidence = Numeric.infer(Sample(texts * 10, {str}, len(texts)))

    assert evidence is not None
    assert evidence.doubt == ""


@pytest.mark.parametrize(
    ("often", "once", "number"),
    [("12.50", "1,234.50", 1234.5), ("9,50 €", "1.234,50 €", 1234.5), ("12", "12,5", 12.5)],
)
def test_a_separator_that_is_rare_is_part_of_the_form(often: str, once: str, number: float) -> None:
    evidence = Numeric.infer(Sample([often] * 400 + [once], {str}, 2))

    assert evidence is not None
    assert Numeric("x", **evidence.options).read([once])[0].numbers.tolist() == [number]


def test_a_few_words_among_numbers_are_proposed_as_missing() -> None:
    texts = [str(n / 8) for n in range(95)] + ["unknown"] * 3 + ["?"] * 2

    evidence = Numeric.infer(Sample(texts, {str}, 97))

    assert evidence is not None
    assert evidence.options == {"missing": (*MISSING, "unknown", "?")}
    assert evidence.doubt == "5% are words, listed and read as missing"
    assert Numeric("x", **evidence.options).read(["unknown", "", "7"])[0].values == [None, None, "7"]


@pytest.mark.parametrize("values", [["4.711", "8.150"], [*map(str, range(30)), "Smith"], ["01/02/2026", "03/02/2026"]])
def test_nothing_that_is_said_of_a_field_quotes_its_values(values: list[str]) -> None:
    sample = Sample(values * 10, {str}, len(values))

    said = [kind.infer(sample) for kind in (Numeric, Categorical, Timestamp)]

    assert any(evidence.doubt for evidence in said if evidence is not None)
    assert not any(
        value in f"{one.why} {one.doubt}" for one in said if one is not None for value in values if len(value) > 2
    )


@pytest.mark.parametrize("words", [["a", "b"] * 15, ["a", "b", "c", "d"]])
def test_many_words_among_numbers_are_more_than_missing_ones(words: list[str]) -> None:
    texts = [str(n / 8) for n in range(95)] + words

    assert Numeric.infer(Sample(texts, {str}, 99)) is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("decimal = ';'", r"decimal = ';' must be \".\" or \",\""),
        ("thousands = '-'", "thousands = '-' must be one of"),
        ("unit = '5'", "unit = '5' must be 1 to 8 characters"),
        ("unit = ''", "unit = '' must be 1 to 8 characters"),
        ("missing = 'x'", "missing = 'x' must be a list of strings"),
        ("decimal = ','\nthousands = ','", "decimal and thousands are both ','"),
    ],
)
def test_an_option_that_no_number_has_is_refused(options: str, said: str) -> None:
    with pytest.raises(SchemaError, match=said):
        parse_schema(f"[fields.x]\nkind = 'numeric'\n{options}")


def test_a_schema_without_these_options_keeps_its_fingerprint() -> None:
    assert parse_schema("[fields.x]\nkind = 'numeric'").fields[0].options().keys() == {
        "required",
        "redact",
        "transform",
    }


def test_a_cell_with_separators_is_read_by_its_form() -> None:
    schema = parse_schema("[fields.x]\nkind = 'numeric'\nthousands = '.'\n[fields.y]\nkind = 'numeric'")
    columns = Columns.of(schema)

    assert (columns.cell_reader("x")("1.234"), columns.cell_reader("y")("1.234")) == ("1.234", 1.234)


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


@pytest.mark.parametrize(("options", "texts", "numbers"), FORMS)
def test_a_planted_number_is_written_as_it_was(options: dict[str, str], texts: list[str], numbers: list[float]) -> None:
    field = Numeric("x", **options)  # type: ignore[arg-type]  # checked by the schema file

    planted = [field.plant(text, Random(1)) for text in texts]

    assert set(map(type, planted)) == {str}
    assert field.read(planted)[0].numbers.tolist() == pytest.approx([100 * number for number in numbers])


@pytest.mark.parametrize("value", ["0", "-", "apples", "0.00", None, ""])
def test_what_is_no_number_or_nothing_is_not_planted(value: str | None) -> None:
    assert not Numeric("x").can_plant(value)
