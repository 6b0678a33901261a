"""The same orders in many spellings: the proposal reads each of them as the plain one, and the model sees the same."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import numpy as np
import pytest

from tests.features.common import decoded
from worker.features.infer import infer_schema
from worker.features.vectorize import Vectorizer, Vectors, fit_vectorizer
from worker.formats.base import Row

DRAW = Random(7)
START = datetime(2026, 3, 1, tzinfo=UTC)
ORDERS: list[Row] = [
    {
        "at": (START + timedelta(minutes=31 * n)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "price": round(DRAW.lognormvariate(4, 1.5), 2),
        "pieces": DRAW.choice([1, 1, 1, 2, 3, 5]),
        "status": DRAW.choice([200, 200, 200, 404, 500]),
        "rebate": None if n % 3 else round(DRAW.random(), 3),
        "is_gift": DRAW.random() < 0.2,
        "shop": DRAW.choice(["web", "till", "app"]),
        "client": f"10.{DRAW.randrange(4)}.{DRAW.randrange(99)}.{DRAW.randrange(250)}",
    }
    for n in range(900)
]


def time_as(pattern: str) -> Callable[[Any], Any]:
    return lambda value: datetime.fromisoformat(value).strftime(pattern)


def ticks(unit: int) -> Callable[[Any], Any]:
    return lambda value: str(int(datetime.fromisoformat(value).timestamp()) * unit)


def german(value: Any) -> str:
    return f"{value:,.2f} €".translate(str.maketrans(",.", ".,"))


SPELLINGS: dict[str, dict[str, Callable[[Any], Any]]] = {
    "strings": dict.fromkeys(("price", "pieces", "status", "is_gift"), str),
    "strings with spaces": dict.fromkeys(("price", "pieces", "status"), lambda value: f" {value} "),
    "an empty string for none": {"rebate": lambda value: "" if value is None else value},
    "N/A for none": {"rebate": lambda value: "N/A" if value is None else str(value)},
    "a word for none": {"rebate": lambda value: "unset" if value is None else str(value)},
    "dollars": {"price": lambda value: f"${value:,.2f}", "rebate": lambda v: "-" if v is None else f"{100 * v:.1f}%"},
    "euros": {"price": german, "is_gift": lambda value: "ja" if value else "nein"},
    "grouped by spaces": {"price": lambda value: f"{value:,.2f}".replace(",", "\u202f").replace(".", ",")},
    "exponents": {"price": lambda value: f"{value:.8e}"},
    "yes and no": {"is_gift": lambda value: "Yes" if value else "no"},
    "Y and N": {"is_gift": lambda value: "Y" if value else "N"},
    "seconds": {"at": ticks(1)},
    "milliseconds": {"at": ticks(1000)},
    "nanoseconds": {"at": ticks(10**9)},
    "access log": {"at": time_as("[%d/%b/%Y:%H:%M:%S %z]")},
    "mail": {"at": time_as("%a, %d %b %Y %H:%M:%S %z")},
    "header": {"at": time_as("%a, %d %b %Y %H:%M:%S GMT")},
    "slashes": {"at": time_as("%Y/%m/%d %H:%M:%S")},
    "a zone word": {"at": time_as("%d.%m.%Y %H:%M:%S UTC")},
    "twelve hours": {"at": time_as("%m/%d/%Y %I:%M:%S %p")},
    "a port": {"client": lambda value: f"{value}:443"},
    "version 6": {"client": lambda value: f"::ffff:{value}"},
}


def seen(rows: list[Row]) -> tuple[dict[str, str], Vectors]:
    """The kinds that are proposed, and what the model sees."""
    schema = infer_schema(rows).schema
    return {field.name: field.kind for field in schema.fields}, Vectorizer(fit_vectorizer(schema, rows)).transform(
        decoded(rows)
    )


PLAIN = seen(ORDERS)


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_each_spelling_is_seen_as_the_plain_one(spelling: dict[str, Callable[[Any], Any]]) -> None:
    rows = [{name: spelling.get(name, lambda same: same)(value) for name, value in row.items()} for row in ORDERS]

    kinds, vectors = seen(rows)

    words = {"is_gift": "categorical"} if "ja" in rows[0].values() or "nein" in rows[0].values() else {}
    assert kinds == PLAIN[0] | words  # of other languages
    assert not vectors.rejects
    assert vectors.event_time_ms.tolist() == PLAIN[1].event_time_ms.tolist()
    assert (vectors.category_ids == PLAIN[1].category_ids).all()
    assert np.allclose(vectors.numeric, PLAIN[1].numeric, atol=1e-5)


def test_the_plain_one_is_seen_as_it_should_be() -> None:
    assert PLAIN[0] == {
        "at": "timestamp",
        "price": "numeric",
        "pieces": "numeric",
        "status": "categorical",
        "rebate": "numeric",
        "is_gift": "boolean",
        "shop": "categorical",
        "client": "address",
    }
