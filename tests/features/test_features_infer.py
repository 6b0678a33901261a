import gzip
import os
import random
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.features.common import STEADY, decoded, rows_of, through_json
from worker.errors import DataError
from worker.features.infer import infer_schema
from worker.features.schema import parse_schema
from worker.features.vectorize import Vectorizer, fit_vectorizer
from worker.formats.base import Row

DATA = os.environ.get("WORKER_TEST_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="WORKER_TEST_DATA names no folder with the sample data")
DRAW = random.Random(0)
START = datetime(2026, 3, 1, tzinfo=UTC)
N = 200


def records(name: str) -> Iterator[Row]:
    with gzip.open(Path(DATA or "") / name) as lines:
        yield from map(orjson.loads, lines)


def kind_of(values: list[Any]) -> str:
    rows = [row | {"other": n % 7} for n, row in enumerate(rows_of(values))]
    fields = infer_schema(rows).schema.fields
    return next(field.kind for field in fields if field.name == "x")


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("id", [str(uuid.UUID(int=DRAW.getrandbits(128))) for _ in range(N)]),
        ("id", [f"order-{n}" for n in range(N)]),
        ("id", list(range(1000, 1000 + N))),
        ("id", [n ^ 1 if n % 20 < 2 else n for n in range(N)]),
        ("id", [DRAW.randrange(10**15, 2**63) for _ in range(N)]),
        ("timestamp", [(START + timedelta(seconds=n)).isoformat() for n in range(N)]),
        ("timestamp", [1_780_000_000 + n for n in range(N)]),
        ("timestamp", [1_780_000_000_000 + 977 * n for n in range(N)]),
        ("timestamp", [1_780_000_000.25 + n for n in range(N)]),
        ("boolean", [n % 3 == 0 for n in range(N)]),
        ("categorical", [DRAW.choice(["DE", "FR", "US"]) for _ in range(N)]),
        ("numeric", [str(DRAW.randrange(90)) for _ in range(N)]),
        ("categorical", [str(DRAW.randrange(120)) for _ in range(5 * N)]),
        ("categorical", [f"{n % 50:08d}" for n in range(N)]),
        ("categorical", ["late delivery to the customer", "paid in full by the customer"] * (N // 2)),
        ("text", [f"user {n} logged in from host {DRAW.random()}" for n in range(N)]),
        ("numeric", [DRAW.lognormvariate(3, 1) for _ in range(N)]),
        ("numeric", [n % 2 for n in range(N)]),
        ("numeric", [DRAW.randrange(10**6) for _ in range(N)]),
        ("numeric", [n % 2 / 2 if n % 3 else None for n in range(N)]),
        ("numeric", [0] * N),
        ("numeric", ["0.5"] * N),
        ("categorical", ["EUR"] * N),
        ("timestamp", ["2026-03-01"] * N),
        ("categorical", ["123456789012"] * N),
        ("ignore", ["081109"] * N),
        ("boolean", [True] * N),
        ("ignore", ["N/A"] * N),
        ("ignore", [None] * N),
        ("set", [[DRAW.choice(["dev", "ops"])] * (n % 3) for n in range(N)]),
        ("set", [[f"k{n % 4}", True] if n % 2 else "k0" for n in range(N)]),
        ("set", [[] for _ in range(N)]),
        ("numbers", [[DRAW.lognormvariate(3, 1)] * (n % 3) for n in range(N)]),
        ("numbers", [[str(DRAW.lognormvariate(3, 1))] for n in range(N)]),
        ("ignore", [[[n]] for n in range(N)]),
        ("ignore", [[n, {"a": n}] for n in range(N)]),
        ("numeric", [n % 9 if n % 2 else str(n % 7) for n in range(N)]),
        ("categorical", [n % 9 if n % 2 else "none" for n in range(N)]),
        ("ignore", [n if n % 2 else n % 4 == 0 for n in range(N)]),
        ("ignore", [n % 9 / 2 if n % 2 else "none" for n in range(N)]),
        ("ignore", [{"a": 1} if n % 2 else n for n in range(N)]),
        ("ignore", [{} for _ in range(N)]),
    ],
)
def test_kinds(kind: str, values: list[Any]) -> None:
    assert kind_of(values) == kind


def test_few_rows_prove_neither_a_constant_nor_an_id() -> None:
    assert kind_of([5, 5, 5]) == "numeric"
    assert kind_of(["a", "b"]) == "categorical"


def test_nested_objects_become_dotted_names() -> None:
    rows: list[Row] = [{"merchant": {"country": "DE", "geo": {"lat": n % 9 / 7}}, "a.b": n % 5} for n in range(N)]

    schema = infer_schema(rows).schema

    assert [(field.name, field.kind) for field in schema.fields] == [
        ("merchant.country", "categorical"),
        ("merchant.geo.lat", "numeric"),
        ("a.b", "numeric"),
    ]


def test_ignored_fields_stay_in_the_file_with_what_is_nested_in_them() -> None:
    rows: list[Row] = [{"x": n % 9 / 3, "label": n % 2, "truth": {"kind": n % 3}} for n in range(N)]

    schema = infer_schema(rows, ["label", "truth"]).schema

    assert {field.name: field.kind for field in schema.fields} == {
        "x": "numeric",
        "label": "ignore",
        "truth.kind": "ignore",
    }


def test_a_misspelt_ignored_field_is_an_error_for_it_would_leak() -> None:
    with pytest.raises(DataError, match=r"'labl' \(did you mean 'label'\?\)"):
        infer_schema([{"label": 1, "x": 2}], ["labl"])


def test_nothing_to_learn_from_is_an_error() -> None:
    with pytest.raises(DataError, match="no rows"):
        infer_schema([])
    with pytest.raises(DataError, match="x: always null"):
        infer_schema([{"x": None}] * 50)
    with pytest.raises(DataError, match="rows are empty"):
        infer_schema([{}])


def test_an_endless_source_is_read_up_to_the_limit() -> None:
    schema = infer_schema(({"x": n % 9} for n in count()), limit=100).schema

    assert schema.fields[0].kind == "numeric"


def test_the_file_says_why_and_reads_back() -> None:
    rows: list[Row] = [{"x": n * 7 % N / 3, "note\n": f"no {n % 5}\u2028\n"} if n % 4 else {"x": 1} for n in range(N)]

    proposal = infer_schema(rows)

    assert parse_schema(proposal.to_toml()) == proposal.schema
    assert "# numbers; 0% missing; 151 distinct; e.g. 1\n[fields.x]\n" in proposal.to_toml()
    assert "# strings that repeat; 25% missing; 5 distinct; e.g. " in proposal.to_toml()


@pytest.mark.parametrize(
    ("facts", "values"),
    [
        ("numbers; 25% missing; 151 distinct; e.g. 2.3", ["" if n % 4 == 0 else n * 7 % N / 3 for n in range(N)]),
        ("numbers in strings; 25% missing", ["N/A" if n % 4 == 0 else f"{n * 7 % N / 3}" for n in range(N)]),
        ("numbers, some in strings; 0% missing", [f"{n * 7}.5" if n == 9 else n * 7 % N / 3 for n in range(N)]),
        (
            "ISO 8601 times; 50% missing",
            ["-" if n % 2 else (START + timedelta(n * 7 % N)).isoformat() for n in range(N)],
        ),
    ],
)
def test_what_is_read_as_missing_counts_as_missing(facts: str, values: list[Any]) -> None:
    assert infer_schema(rows_of(values)).comments["x"].startswith(facts)


NAMES = st.sampled_from(["a", "b", "a.b", "", "b.a", "a.b.a"])
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    # These are times, or look like times.
    | st.sampled_from(["2026-03-01", "20260301", "1-2-3", 1780000000, 1780000000000])
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=3),
)


@STEADY
@given(st.lists(st.dictionaries(NAMES, JSON, max_size=4), max_size=25))
def test_a_proposal_fits_the_rows_that_it_was_made_from(drawn: list[Row]) -> None:
    rows = through_json(drawn)
    try:
        proposal = infer_schema(rows)
    except DataError:
        return

    assert parse_schema(proposal.to_toml()) == proposal.schema
    fitted = fit_vectorizer(proposal.schema, rows)
    rejects = Vectorizer(fitted).transform(decoded(rows)).rejects
    assert rejects == [] or any("something else" in note or "are no objects" in note for note in proposal.notes)


@needs_data
def test_network_connections() -> None:
    schema = infer_schema(records("nsl_kdd_train20.jsonl.gz"), ["label", "attack"]).schema

    kinds = {field.name: field.kind for field in schema.fields}
    assert {name for name, kind in kinds.items() if kind == "categorical"} == {"protocol_type", "service", "flag"}
    assert {name for name, kind in kinds.items() if kind == "ignore"} == {"label", "attack"}
    assert set(kinds.values()) == {"categorical", "numeric", "ignore"}


@needs_data
def test_card_payments() -> None:
    schema = infer_schema(records("card_payments_6w.jsonl.gz"), ["fraud", "scenario"]).schema

    assert {field.name: field.kind for field in schema.fields} == {
        "transaction_id": "id",
        "time": "timestamp",
        "customer": "categorical",
        "terminal": "categorical",
        "amount": "numeric",
        "fraud": "ignore",
        "scenario": "ignore",
    }


@needs_data
@pytest.mark.parametrize("name", ["nsl_kdd_train20.jsonl.gz", "card_payments_6w.jsonl.gz"])
def test_a_proposal_for_real_data_rejects_none_of_it(name: str) -> None:
    rows = list(records(name))
    schema = infer_schema(rows).schema

    vectors = Vectorizer(fit_vectorizer(schema, rows[:5000])).transform(decoded(rows))

    assert vectors.rejects == []
