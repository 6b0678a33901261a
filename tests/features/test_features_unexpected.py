"""Unexpected values: what a field can't read is missing there, and known as such; its record is scored."""

from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest

from tests.features.common import decoded
from worker.errors import ErrorCode, SchemaError
from worker.features.fitted import Fitted
from worker.features.kinds import KINDS, Categorical, Field, Id, Numeric
from worker.features.learned import MissingPattern, unexpected_text
from worker.features.paths import NotAnObject, read_field
from worker.features.schema import Schema, parse_schema, read_columns
from worker.features.vectorize import Vectorizer, conceal, fit_vectorizer
from worker.formats.base import Row
from worker.model.learn import fit_bundle
from worker.model.network.options import FitOptions
from worker.pipeline import Model
from worker.redaction import Redaction

VALUES: dict[str, Any] = {
    "boolean": True,
    "whole number": 7,
    "fraction": 1.5,
    "text": "soon and dear",
    "array": [[7]],
    "object": {"a": {"b": 1}},
}
USUAL: dict[str, tuple[Any, set[str]]] = {  # of a kind: a usual value, and which of VALUES it reads
    "numeric": (1.5, {"whole number", "fraction"}),
    "categorical": ("DE", {"boolean", "whole number", "text"}),
    "boolean": (True, {"boolean"}),
    "timestamp": (1_772_000_000, {"whole number", "fraction"}),
    "text": ("payment 7 of many goods", {"text"}),
    "address": ("10.1.2.3", set()),
    "url": ("https://shop.example/cart?id=7", {"text"}),
    "agent": ("curl/8.5.0", {"text"}),
    "domain": ("shop.example", {"text"}),
    "command": ("ls -l /tmp", {"text"}),
}
READ_ALL = {"set", "numbers", "id", "ignore"}
PAIRS = [(kind, sort) for kind in USUAL for sort in VALUES]


def test_every_kind_is_in_these_tables() -> None:
    assert {*KINDS} == {*USUAL} | READ_ALL


def fitted_on(kind: str, rows: list[Row], *, strict: bool = False, **options: Any) -> Fitted:
    return fit_vectorizer(Schema((KINDS[kind]("x", **options), Numeric("y")), strict=strict), rows)


def rows_with(value: Any, count: int = 20) -> list[Row]:
    return [{"x": value, "y": n} for n in range(count)]


@pytest.mark.parametrize(("kind", "sort"), PAIRS)
@pytest.mark.parametrize("strict", [False, True])
def test_a_value_of_each_type_is_read_or_unexpected_and_where_strict_a_dead_letter(
    kind: str, sort: str, strict: bool
) -> None:
    usual, reads = USUAL[kind]
    fitted = fitted_on(kind, rows_with(usual), strict=strict)

    vectors = Vectorizer(fitted).transform(decoded([{"x": usual, "y": 1}, {"x": VALUES[sort], "y": 1}, {"y": 1}]))

    is_read = sort in reads
    assert {name: bits.tolist() for name, bits in vectors.unexpected.items()} == (
        {} if is_read or strict else {"x": [False, True, False]}
    )
    assert [reject.message.offset for reject in vectors.rejects] == ([1] if strict and not is_read else [])
    if not is_read and not strict:
        assert vectors.numeric[1].tolist() == vectors.numeric[2].tolist()
        assert not vectors.category_ids[1].any()


@pytest.mark.parametrize(("kind", "sort"), [(kind, sort) for kind, sort in PAIRS if sort not in USUAL[kind][1]])
def test_a_fit_keeps_rows_with_unexpected_values_and_knows_them_from_usual_absence(kind: str, sort: str) -> None:
    usual, value = USUAL[kind][0], VALUES[sort]
    rows = [*rows_with(usual), *rows_with(value, 5)]

    fitted, strict = fitted_on(kind, rows), fitted_on(kind, rows, strict=True)

    assert (fitted.rows, strict.rows) == (25, 20)
    assert fitted.categorical[-1].values == (MissingPattern(), MissingPattern(unexpected=("x",)))
    vectors = Vectorizer(fitted).transform(decoded([{"x": usual, "y": 1}, {"x": value, "y": 1}, {"y": 1}]))
    assert vectors.category_ids[:, -1].tolist() == [1, 2, 0]
    assert Fitted.from_json(orjson.loads(orjson.dumps(fitted.to_json())), fitted.schema) == fitted


@pytest.mark.parametrize("kind", ["set", "numbers"])
def test_of_what_reads_any_type_only_a_path_that_leads_nowhere_is_unexpected(kind: str) -> None:
    schema = Schema((KINDS[kind]("a.b"), Numeric("y")))
    fitted = fit_vectorizer(schema, [{"a": {"b": [1, 2]}, "y": n} for n in range(20)])
    rows: list[Row] = [{"a": 5, "y": 1}, *({"a": {"b": value}, "y": 1} for value in VALUES.values())]

    vectors = Vectorizer(fitted).transform(decoded(rows))

    assert vectors.rejects == []
    assert vectors.unexpected["a.b"].tolist() == [True] + [False] * len(VALUES)
    assert type(read_field(rows[0], "a.b")) is NotAnObject


@pytest.mark.parametrize(
    ("row", "error_code"),
    [
        ({"i": 1, "x": [1]}, ErrorCode.WRONG_TYPE),
        ({"i": 1, "x": [1], "y": "much"}, ErrorCode.WRONG_TYPE),
        ({"i": 1, "t": "soon"}, ErrorCode.BAD_TIMESTAMP),
        ({"x": "DE", "y": 1, "z": "much"}, ErrorCode.WRONG_TYPE),
    ],
)
def test_where_nothing_can_be_scored_or_the_field_is_required_the_record_is_a_dead_letter(
    row: Row, error_code: ErrorCode
) -> None:
    fields: tuple[Field, ...] = (Id("i"), Categorical("x"), Numeric("y"), KINDS["timestamp"]("t"))
    fitted = fit_vectorizer(Schema(fields), [{"x": "DE", "y": 1, "t": 5}])
    if "z" in row:
        fields = (*fields, Numeric("z", required=True))
        fitted = fit_vectorizer(Schema(fields), [{"x": "DE", "y": 1, "t": 5, "z": 1}])

    vectors = Vectorizer(fitted).transform(decoded([{"x": "DE", "y": 1, "z": 1}, row, {"x": "FR", "z": 1}]))

    assert [(reject.message.offset, reject.error_code) for reject in vectors.rejects] == [(1, error_code)]
    assert vectors.unexpected == {}


def test_a_record_without_any_field_is_scored_as_before() -> None:
    fitted = fitted_on("numeric", rows_with(1.5))

    assert Vectorizer(fitted).transform(decoded([{}])).rejects == []


def test_an_unexpected_value_in_a_field_that_comes_and_goes_fits_no_pattern() -> None:
    names = [f"f{n}" for n in range(12)]
    rows: list[Row] = [{"a": 1, **{name: 1 for at, name in enumerate(names) if n >> at & 1}} for n in range(0, 4096, 7)]
    fitted = fit_vectorizer(Schema(tuple(Numeric(name) for name in ["a", *names])), rows)

    ids = Vectorizer(fitted).transform(decoded([{"a": 1}, {"a": 1, "f3": 1}, {"a": 1, "f3": [1]}])).category_ids

    assert fitted.categorical[-1].values == (MissingPattern((), tuple(sorted(names))),)
    assert ids[:, -1].tolist() == [1, 1, 0]


@pytest.mark.parametrize(("kind", "sort"), [(kind, sort) for kind, sort in PAIRS if sort not in USUAL[kind][1]])
def test_a_redacted_row_that_is_kept_is_as_unexpected_as_it_was_without_its_value(kind: str, sort: str) -> None:
    redaction = Redaction(["x"], secret="s")
    value = {"text": "Mallory Planted", "array": ["Mallory Planted"], "object": {"a": "Mallory Planted"}}.get(
        sort, VALUES[sort]
    )
    rows = [*rows_with(USUAL[kind][0]), {"x": value, "y": 3}]
    schema = Schema((KINDS[kind]("x"), Numeric("y")))
    fitted = fit_vectorizer(schema, rows, redaction=redaction)

    kept = conceal(fitted, redaction, rows)
    twice = conceal(fitted, redaction, [row for row in kept if row is not None])

    assert kept == twice
    assert b"Mallory" not in orjson.dumps([kept, fitted.to_json()])
    vectors = Vectorizer(fitted, redaction).transform(decoded([row for row in kept if row is not None]))
    assert np.flatnonzero(vectors.unexpected["x"]).tolist() == [20]


ROWS: list[Row] = [{"amount": float(n % 7), "code": "ABC"[n % 3], "y": n % 5} for n in range(200)]
SCHEMA = Schema((Numeric("amount"), Categorical("code"), Numeric("y")))
CREATED = "2026-01-01T00:00:00.000Z"


def test_an_alert_says_what_was_expected_and_of_a_redacted_field_only_that_it_cannot_be_read() -> None:
    bundle = fit_bundle(SCHEMA, ROWS, FitOptions(hidden=(8, 4, 8), steps=200), created_at=CREATED)
    odd: Row = {"amount": "Mallory Planted", "code": {"of": "Mallory Planted"}, "y": 1}

    def said(redaction: Redaction) -> tuple[dict[str, Any], str]:
        model = Model(bundle, redaction=redaction)
        vectors = model.vectorizer.transform(decoded([odd]))
        (reasons,) = model.explainer.explain(vectors.numeric, vectors.category_ids, vectors.rows, vectors.unexpected)
        shown = model.explainer.masked(reasons)
        return {reason.field: (reason.observed, reason.note) for reason in shown}, repr(shown)

    plain, _ = said(Redaction())
    hidden, text = said(Redaction(["amount", "code"]))

    expected = "expected a string, a whole number or a boolean, got an object"
    assert plain["code"] == ("an object", expected)
    assert plain["(missing fields)"][0] == (f"amount: expected a number, got a string that is none; code: {expected}")
    assert hidden["code"] == ("[redacted]", "a value that can't be read")
    assert hidden["(missing fields)"][0] == "amount: a value that can't be read; code: a value that can't be read"
    assert "Mallory" not in text


@pytest.mark.parametrize("redacted", [[], ["code"]])
def test_a_fit_reports_the_fields_with_unexpected_values_and_says_why_where_they_are_not_redacted(
    redacted: list[str],
) -> None:
    rows: list[Row] = [*ROWS, {**ROWS[0], "code": ["Mallory"]}, {"amount": "Mallory"}]

    options, redaction = FitOptions(hidden=(8, 4, 8), steps=5), Redaction(redacted)
    report = fit_bundle(SCHEMA, rows, options, created_at=CREATED, redaction=redaction).report

    assert (report["rejected_rows"], report["unexpected_values"]) == (1, {"code": 1})
    why = "" if redacted else " (code: expected a string, a whole number or a boolean, got an array)"
    assert report["notes"][0] == f"values that can't be read count as missing: code in 1 of 201 records{why}"
    assert "Mallory" not in str(report)


def test_strict_stands_on_top_of_the_schema_and_is_part_of_the_fingerprint() -> None:
    text = 'strict = true\n\n[fields.x]\nkind = "numeric"\n'
    schema = parse_schema(text)

    assert schema.strict
    assert schema.to_toml() == text
    assert not parse_schema(text.replace("true", "false")).strict
    assert schema.fingerprint != replace(schema, strict=False).fingerprint
    with pytest.raises(SchemaError, match="strict = 'yes' must be true or false"):
        parse_schema(text.replace("true", "'yes'"))


def test_of_many_fields_with_unexpected_values_a_few_are_named() -> None:
    text = unexpected_text({f"f{n}": n + 1 for n in range(600)}, 1_000)

    assert text.startswith("values that can't be read count as missing: f599 in 600, f598 in 599, f597 in 598 of 1,000")
    assert text.endswith("597 more fields have some")


@pytest.mark.parametrize("kind", USUAL)
@pytest.mark.parametrize("rest", [[], ["usual"], ["usual", "usual"], ["usual", "gap", "usual"]])
def test_beside_rows_that_can_not_be_used_a_column_is_that_of_the_others_alone(kind: str, rest: list[str]) -> None:
    schema = Schema((KINDS[kind]("x"), Numeric("n", required=True)))
    others: list[Row] = [{"x": USUAL[kind][0], "n": 1} if sort == "usual" else {"n": 1} for sort in rest]
    unusable: list[Row] = [{"x": USUAL[kind][0]}, {"x": VALUES["array"], "n": None}, {"n": "none"}]

    columns, failures = read_columns(schema, [*unusable[:1], *others, *unusable[1:]])

    assert len(failures) == 3
    for column, alone in zip(columns, read_columns(schema, others)[0], strict=True):
        assert (column.values, column.types) == (alone.values, alone.types)
        np.testing.assert_array_equal(column.numbers, alone.numbers)
        assert (column.missing is None) == (alone.missing is None)
        np.testing.assert_array_equal(column.missing, alone.missing)
        assert column.unexpected is None
