import math
import re
from base64 import b64decode
from dataclasses import replace
from datetime import datetime
from hashlib import blake2b
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.features.common import STEADY, decoded, encode, one_field
from worker.errors import BundleError, DataError, ErrorCode
from worker.features.fitted import Fitted
from worker.features.kinds import KINDS, Boolean, Categorical, Id, Numeric, Text, Timestamp
from worker.features.kinds.lexicon import coarse
from worker.features.kinds.masks import masked
from worker.features.learned import Lexicon
from worker.features.paths import value_of
from worker.features.schema import Schema
from worker.features.vectorize import Vectorizer, Vectors, fit_vectorizer
from worker.formats.base import Row

SCHEMA = Schema(
    (
        Id("id"),
        Timestamp("time"),
        Numeric("amount"),
        Categorical("customer", max_values=3, hash_buckets=4),
        Categorical("merchant.country"),
        Boolean("online"),
        Text("note", max_values=2),
    )
)


def row(n: int) -> Row:
    return {
        "id": n,
        "time": f"2026-03-{n % 28 + 1:02d}T{n % 24:02d}:{n % 60:02d}:00Z",
        "amount": float(n * n % 101),
        "customer": f"c{n % 5}",
        "merchant": {"country": ["DE", "FR", 7, True][n % 4]},
        "online": n % 3 == 0,
        "note": f"payment {n} of {n % 2 * 'many '}goods",
    }


ROWS = [row(n) for n in range(60)]
FITTED = fit_vectorizer(SCHEMA, ROWS)


def reference(schema: Schema, fitted: Fitted, record: Row) -> tuple[list[float], list[int]]:
    """The vector of one record, the plain way."""
    values = {field.name: value_of(record, field.name) for field in schema.encoded}
    texts = {lexicon.field: reference_text(lexicon, values[lexicon.field]) for lexicon in fitted.lexicons}
    numeric = [
        reference_number(column, texts[column.field][column.part] if column.field in texts else values[column.field])
        for column in fitted.numeric
    ]
    category_ids = [
        reference_id(column, texts[column.field]["template"] if column.field in texts else values[column.field])
        for column in fitted.categorical[:-1]
    ]
    absent = {name for name, value in values.items() if value is None}
    patterns = fitted.categorical[-1].values
    fits = [index for index, known in enumerate(patterns, 1) if absent - {*known.free} == {*known.absent}]
    category_ids.append(fits[0] if fits else 0)
    return numeric, category_ids


def reference_text(lexicon: Lexicon, text: str | None) -> dict[str, Any]:
    """What is seen of a text, the plain way: each template is tried, each trigram looked up by itself."""
    if text is None:
        return dict.fromkeys(("template", "length", "novelty", "rarity"))
    line, values = masked(text)
    tokens, placeholders = line.split(), re.compile("<[a-z]+>")
    matching = [
        (entry, at)
        for at, entry in enumerate(lexicon.templates)
        if len(entry.split()) == len(tokens)
        and all(own in ("<*>", token) for own, token in zip(entry.split(), tokens, strict=True))
    ]
    if not matching:
        octets, bits = line.encode(), np.unpackbits(np.frombuffer(b64decode(lexicon.grams), np.uint8))
        triples = [octets[at : at + 3] for at in range(len(octets) - 2)]
        grams = {(a * 40503 + b * 2654435 + c * 97) % 65536 for a, b, c in triples}
        novelty = sum(bits[gram] == 0 for gram in grams) / len(grams) if grams else 0.0
        return {"template": line, "length": len(text), "novelty": novelty, "rarity": lexicon.unseen}
    template, at = min(matching, key=lambda entry: [token == "<*>" for token in entry[0].split()])
    rarities, slot, left = [lexicon.rarities[at]], 0, iter(values)
    for own, token in zip(template.split(), tokens, strict=True):
        inside = [next(left) for _ in placeholders.findall(token)]
        for value in [token] if own == "<*>" else inside:
            known = next((entry for entry in lexicon.slots if (entry.template, entry.slot) == (at, slot)), None)
            if known is not None:
                rarities.append(known.values.get(coarse(value) if known.coarse else value[:64], known.unseen))
            slot += 1
    return {"template": template, "length": len(text), "novelty": 0.0, "rarity": max(rarities)}


def reference_number(column: Any, value: Any) -> float:
    if value is None:
        return 0.0
    if column.part in ("value", "length", "novelty", "rarity"):
        x = float(value)
    else:
        moment = datetime.fromisoformat(value)
        hours = moment.hour + moment.minute / 60 + (moment.second + moment.microsecond // 1000 / 1000) / 3600
        turn = hours / 24 if column.part.startswith("hour") else (moment.weekday() + hours / 24) / 7
        x = (math.sin if column.part.endswith("sin") else math.cos)(math.tau * turn)
    y = math.copysign(math.log1p(abs(x)), x) if column.transform == "log1p" else x
    z = (y - column.center) / column.scale
    return z if abs(z) <= 10 else math.copysign(10 + math.log1p(abs(z) - 10), z)


def reference_id(column: Any, value: Any) -> int:
    if value is None:
        return 1
    for index, known in enumerate(column.values):
        if type(known) is type(value) and known == value:
            return int(column.first + index)
    if column.spare < 2:
        return 2 if column.spare else 0
    digest = blake2b(f"{type(value).__name__}:{value}".encode(), digest_size=8).digest()
    return 2 + int.from_bytes(digest, "big") % int(column.spare)


WORDS = st.text(st.characters(codec="utf-8"))
RECORDS = st.fixed_dictionaries(
    {},
    optional={
        "time": st.none() | st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)).map(datetime.isoformat),
        "amount": st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70),
        "customer": st.none() | st.sampled_from(["c0", "c1", "c2", "new"]) | WORDS,
        "merchant": st.none()
        | st.fixed_dictionaries(
            {}, optional={"country": st.none() | st.booleans() | st.sampled_from(["DE", 7, 8, "1"])}
        ),
        "merchant.country": st.sampled_from(["DE", "FR"]),
        "online": st.none() | st.booleans(),
        "note": st.none() | WORDS | st.just("payment 4711 of goods"),
    },
)


@STEADY
@given(st.lists(RECORDS, max_size=20), st.booleans())
def test_every_record_is_encoded_as_the_plain_reference_does(records: list[Row], fit_on_them: bool) -> None:
    fitted = fit_vectorizer(SCHEMA, records) if fit_on_them and records else FITTED

    vectors = Vectorizer(fitted).transform(decoded(records))

    assert vectors.rejects == []
    assert vectors.numeric.dtype == np.float32
    assert vectors.category_ids.dtype == np.int32
    assert vectors.numeric.shape == (len(records), len(fitted.numeric))
    assert vectors.category_ids.shape == (len(records), len(fitted.widths))
    for index, record in enumerate(records):
        numeric, category_ids = reference(SCHEMA, fitted, record)
        np.testing.assert_allclose(vectors.numeric[index], numeric, rtol=1e-5, atol=1e-6)
        assert vectors.category_ids[index].tolist() == category_ids


@STEADY
@given(st.lists(RECORDS, min_size=1, max_size=20), st.data())
def test_a_records_vector_does_not_depend_on_its_batch(records: list[Row], data: st.DataObject) -> None:
    vectorizer = Vectorizer(FITTED)
    index = data.draw(st.integers(0, len(records) - 1))

    together = vectorizer.transform(decoded(records))
    alone = vectorizer.transform(decoded([records[index]]))

    assert together.numeric[index].tobytes() == alone.numeric[0].tobytes()
    assert together.category_ids[index].tobytes() == alone.category_ids[0].tobytes()


BROKEN: list[tuple[Row, ErrorCode, str]] = [
    ({"amount": "12 apples"}, ErrorCode.WRONG_TYPE, "amount: expected a number, got a string that is none"),
    ({"amount": True}, ErrorCode.WRONG_TYPE, "amount: expected a number, got a boolean"),
    ({"amount": [1]}, ErrorCode.WRONG_TYPE, "amount: expected a number, got an array"),
    ({"amount": {}}, ErrorCode.WRONG_TYPE, "amount: expected a number, got an object"),
    ({"amount": 10**400}, ErrorCode.NOT_FINITE, "amount"),
    ({"amount": math.nan}, ErrorCode.NOT_FINITE, "amount"),
    ({"amount": -math.inf}, ErrorCode.NOT_FINITE, "amount"),
    ({"online": 2}, ErrorCode.WRONG_TYPE, "online: expected a boolean, got a number"),
    ({"customer": 1.5}, ErrorCode.WRONG_TYPE, "customer: expected a string, a whole number or a boolean"),
    ({"merchant": "DE"}, ErrorCode.WRONG_TYPE, "merchant.country"),
    ({"merchant": [{"country": "DE"}]}, ErrorCode.WRONG_TYPE, "merchant.country"),
    ({"note": 7}, ErrorCode.WRONG_TYPE, "note: expected a string, got a number"),
    ({"time": True}, ErrorCode.WRONG_TYPE, "time: expected a time, got a boolean"),
    ({"time": "yesterday"}, ErrorCode.BAD_TIMESTAMP, "time"),
    ({"time": "2026-02-30T00:00:00Z"}, ErrorCode.BAD_TIMESTAMP, "time"),
    ({"time": 1e300}, ErrorCode.BAD_TIMESTAMP, "time"),
    ({"time": 10**40}, ErrorCode.BAD_TIMESTAMP, "time"),
]


@pytest.mark.parametrize(("change", "error_code", "detail"), BROKEN)
def test_where_the_schema_is_strict_an_unexpected_value_costs_its_own_record_and_nothing_else(
    change: Row, error_code: ErrorCode, detail: str
) -> None:
    vectorizer = Vectorizer(replace(FITTED, schema=replace(SCHEMA, strict=True)))
    clean = vectorizer.transform(decoded(ROWS))

    vectors = vectorizer.transform(decoded([*ROWS[:30], ROWS[0] | change, *ROWS[30:]]))

    assert [(reject.message.offset, reject.error_code) for reject in vectors.rejects] == [(30, error_code)]
    assert detail in vectors.rejects[0].detail
    assert vectors.rows == ROWS
    assert vectors.numeric.tobytes() == clean.numeric.tobytes()
    assert vectors.category_ids.tobytes() == clean.category_ids.tobytes()


@pytest.mark.parametrize(("change", "error_code", "detail"), BROKEN)
def test_an_unexpected_value_is_missing_and_its_record_is_scored(
    change: Row, error_code: ErrorCode, detail: str
) -> None:
    (name,) = change
    field = name if name != "merchant" else "merchant.country"
    vectorizer = Vectorizer(FITTED)
    without = {key: value for key, value in ROWS[0].items() if key != name}
    clean = vectorizer.transform(decoded([*ROWS, without]))

    vectors = vectorizer.transform(decoded([*ROWS, ROWS[0] | change]))

    assert vectors.rejects == []
    assert {key: np.flatnonzero(bits).tolist() for key, bits in vectors.unexpected.items()} == {field: [60]}
    assert vectors.numeric.tobytes() == clean.numeric.tobytes()
    assert vectors.category_ids[:60].tobytes() == clean.category_ids[:60].tobytes()
    unknown = [at for at, known in enumerate(FITTED.category_fields[:-1]) if known == field]
    assert not vectors.category_ids[60, [*unknown, -1]].any()
    others = [at for at in range(len(FITTED.category_fields) - 1) if at not in unknown]
    assert vectors.category_ids[60, others].tolist() == clean.category_ids[60, others].tolist()
    assert vectors.event_time_ms[60] == (1060 if name == "time" else clean.event_time_ms[0])


def test_the_first_wrong_field_in_schema_order_is_named() -> None:
    vectors = Vectorizer(FITTED).transform(decoded([{"note": 1, "amount": "x"}]))

    assert len(vectors.rejects) == 1
    assert "amount" in vectors.rejects[0].detail


@pytest.mark.parametrize("value", [..., None])
def test_a_required_field_that_is_absent_or_null_is_a_missing_field(value: Any) -> None:
    for kind in ("numeric", "categorical", "boolean", "timestamp", "text"):
        schema = Schema((KINDS[kind]("x", required=True), Numeric("y")))
        fitted = fit_vectorizer(Schema((KINDS[kind]("x"), Numeric("y"))), [{"y": 1}])
        fitted = replace(fitted, schema=schema)

        vectors = encode(schema, fitted, [value])

        assert [reject.error_code for reject in vectors.rejects] == [ErrorCode.MISSING_FIELD]
        assert vectors.rejects[0].detail.startswith("x: ")


def test_a_required_id_is_checked_too() -> None:
    schema = Schema((Id("x", required=True), Numeric("y")))
    fitted = fit_vectorizer(schema, [{"x": [1], "y": 1}])

    vectors = encode(schema, fitted, [7, None, "a", ...])

    assert [reject.message.offset for reject in vectors.rejects] == [1, 3]


def test_the_literal_key_wins_over_the_nested_path() -> None:
    schema = Schema((Categorical("a.b"),))
    fitted = fit_vectorizer(schema, [{"a.b": "literal"}, {"a": {"b": "nested"}}])

    rows: list[Row] = [{"a": {"b": "nested"}}, {"a.b": "literal", "a": {"b": "nested"}}, {"a": None}, {"a": {}}, {}]
    vectors = Vectorizer(fitted).transform(decoded(rows))

    assert [fitted.categorical[0].value(number) for number in vectors.category_ids[:, 0].tolist()] == [
        "nested",
        "literal",
        "missing",
        "missing",
        "missing",
    ]


def test_the_event_time_falls_back_to_the_messages_timestamp() -> None:
    schema, fitted = one_field("timestamp", ["2026-03-01T00:00:00Z"])

    assert encode(schema, fitted, ["1970-01-01T00:00:07Z", None, ...]).event_time_ms.tolist() == [7000, 1001, 1002]
    assert encode(schema, fitted, ["1970-01-01T00:00:07Z"]).event_time_ms.tolist() == [7000]


def test_without_a_timestamp_field_the_messages_timestamp_is_the_event_time() -> None:
    schema, fitted = one_field("numeric", [1, 2])

    assert encode(schema, fitted, [1, 2]).event_time_ms.tolist() == [1000, 1001]


def test_a_timestamp_without_cycles_gives_the_event_time_and_is_not_encoded() -> None:
    schema = Schema((Timestamp("t", cyclical=()), Numeric("x")))
    fitted = fit_vectorizer(schema, [{"t": 5, "x": 1}])

    vectors = Vectorizer(fitted).transform(decoded([{"t": 5, "x": 1}, {"x": 1}]))

    assert fitted.numeric_fields == ("x",)
    assert vectors.event_time_ms.tolist() == [5000, 1001]
    assert vectors.category_ids[:, -1].tolist() == [1, 1]


def test_one_timestamp_weighs_no_more_than_one_numeric_field() -> None:
    times = [f"2026-03-{1 + n // 24 % 28:02d}T{n % 24:02d}:00:00Z" for n in range(24 * 28)]
    schema, fitted = one_field("timestamp", times)

    numeric = encode(schema, fitted, times).numeric

    assert numeric.shape[1] == 4
    assert float(numeric.var(axis=0).sum()) == pytest.approx(1.0, abs=0.01)


def test_an_empty_batch_gives_empty_arrays() -> None:
    vectors: Vectors = Vectorizer(FITTED).transform(decoded([]))

    assert vectors.numeric.shape == (0, len(FITTED.numeric))
    assert vectors.category_ids.shape == (0, len(FITTED.categorical))
    assert vectors.event_time_ms.shape == (0,)


def test_another_schemas_fit_is_refused_with_both_fingerprints() -> None:
    other = Schema((Numeric("x"),))

    with pytest.raises(BundleError) as caught:
        Fitted.from_json(FITTED.to_json(), other)

    assert other.fingerprint in str(caught.value)
    assert SCHEMA.fingerprint in str(caught.value)


def test_no_rows_are_nothing_to_learn_from() -> None:
    with pytest.raises(DataError, match="no rows"):
        fit_vectorizer(SCHEMA, [])


def test_rows_that_do_not_fit_the_schema_are_left_out_of_the_fit() -> None:
    assert fit_vectorizer(SCHEMA, [{"amount": "x"}, *ROWS]) == FITTED
    with pytest.raises(DataError, match="amount: expected a number"):
        fit_vectorizer(SCHEMA, [{"amount": "x"}])


def test_the_order_of_the_rows_does_not_change_the_fit() -> None:
    assert fit_vectorizer(SCHEMA, ROWS[::-1]) == FITTED


@pytest.mark.parametrize("values", [[...], [None, None], [5], [5, 5, 5], [1e300, -1e300], [5e-324, 0], [1e308] * 3])
def test_odd_numeric_columns_give_finite_vectors(values: list[Any]) -> None:
    schema, fitted = one_field("numeric", values)

    numeric = encode(schema, fitted, [0, 1, -1e300, 1.7e308, -1.7e308, 5e-324, 10**300, None]).numeric

    assert np.isfinite(numeric).all()
    assert np.isfinite(encode(schema, fitted, values).numeric).all()
