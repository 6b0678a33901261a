"""Orders from bytes to vectors: however they are written, the proposal reads them as the plain ones."""

from functools import cache
from itertools import islice

import pytest

from devtools.order_spellings import SPELLINGS
from devtools.order_streams import orders
from worker.features.infer import infer_schema
from worker.features.schema import parse_schema
from worker.features.vectorize import Vectorizer, Vectors, fit_vectorizer

LOSSY = {
    "unit signs": "a percentage has another scale",
    "booleans as true, Y, 1": "0 and 1 are numbers",
    "slashes, day first": "no seconds",
    "syslog without year": "no weekday",
    "a stray in 1,500": "an amount is missing",
    "array of objects": "an array is a set of categories",
    "array of tags": "an array is a set of categories",
}


@cache
def seen(name: str) -> Vectors:
    """What the model sees of 800 orders."""
    decoded = SPELLINGS[name].decoded([row for row, _ in islice(orders(0), 800)], seed=0)
    schema = parse_schema(infer_schema(decoded.rows).to_toml())
    return Vectorizer(fit_vectorizer(schema, decoded.rows)).transform(decoded)


def columns(vectors: Vectors) -> set[bytes]:
    """All columns but the last, which says what is missing; their order is that of the names in a record."""
    return {column.tobytes() for part in (vectors.numeric, vectors.category_ids[:, :-1]) for column in part.T}


@pytest.mark.parametrize("name", SPELLINGS)
def test_no_spelling_loses_a_record(name: str) -> None:
    assert len(seen(name).rows) == 800


@pytest.mark.parametrize("name", [name for name in SPELLINGS if name not in LOSSY])
def test_the_model_sees_of_each_spelling_what_it_sees_of_the_plain_one(name: str) -> None:
    assert columns(seen(name)) >= columns(seen("plain"))
