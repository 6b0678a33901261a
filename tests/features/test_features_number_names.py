"""Whole numbers that are names, and those that only look so."""

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from tests.features.common import rows_of
from worker.features.infer import infer_schema
from worker.features.kinds import Categorical
from worker.features.kinds.evidence import Sample

DRAW = Random(0)
N = 600


def draws(values: Sequence[int], weights: Sequence[int] | None = None) -> list[int]:
    return DRAW.choices(values, weights, k=N)


NAMES: dict[str, tuple[list[int], bool]] = {
    "states of HTTP": (draws([200, 201, 301, 304, 404, 500], [500, 30, 30, 20, 15, 5]), False),
    "two states of HTTP": (draws([200, 500], [95, 5]), False),
    "events of Windows": (draws([4624, 4625, 4634, 4672, 4688]), False),
    "an event of another size": (draws([4624, 4688, 24577], [60, 40, 10]), True),
    "ports": (draws([22, 53, 80, 443, 3389, 8080]), True),
    "states where none is known": (draws([0, 200, 404]), False),
    "codes of currencies": (draws([978, 840, 826, 392]), False),
    "errors of a database": (draws([1045, 1146, 1205, 1213, 2006, 2013]), False),
}
AMOUNTS: dict[str, Sequence[float]] = {
    "quantities": draws([1, 2, 3, 4, 5], [50, 20, 10, 5, 2]),
    "flags": draws([0, 1]),
    "counts with a tail": [int(DRAW.lognormvariate(0, 1.5)) for _ in range(N)],
    "far counts": [int(DRAW.paretovariate(0.7)) for _ in range(N)],
    "ages": [DRAW.randrange(18, 90) for _ in range(N)],
    "months": draws(range(1, 13)),
    "hours": draws(range(24)),
    "percentages": [min(100, int(DRAW.gauss(80, 12))) for _ in range(N)],
    "bytes": [DRAW.randrange(200, 90_000) for _ in range(N)],
    "round amounts": draws([10, 20, 50, 100, 200]),
    "seconds": draws([30, 60, 300, 3600]),
    "sizes": draws([64, 128, 512, 1024, 4096]),
    "fractions": draws([19, 49, 99]) + [19.5] * 20,
    "negative ones": draws([-404, 200, 404]),
    "rare ones": [*([200] * N), *range(1000, 3000, 100)],
    "exit codes": draws([0, 1, 2, 137, 139]),  # counted, for all that can be known
}


@pytest.mark.parametrize(("values", "is_doubtful"), NAMES.values(), ids=NAMES)
def test_few_whole_numbers_that_repeat_and_leave_gaps_are_categories(values: list[int], is_doubtful: bool) -> None:
    for spelled in (values, list(map(str, values))):
        evidence = Categorical.infer(Sample(spelled, set(map(type, spelled)), len(set(spelled))))

        assert evidence is not None
        assert "that repeat" in evidence.why
        assert bool(evidence.doubt) == is_doubtful
        assert kind_of(spelled) == "categorical"


@pytest.mark.parametrize("values", AMOUNTS.values(), ids=AMOUNTS)
def test_amounts_and_counts_are_numbers(values: Sequence[float]) -> None:
    assert kind_of(values) == "numeric"
    assert kind_of(list(map(str, values))) == "numeric"


def test_few_rows_prove_no_codes() -> None:
    assert kind_of([200, 404] * 10) == "numeric"


def test_customers_in_strings_are_categories_and_amounts_there_are_numbers() -> None:
    customers = [DRAW.randrange(10_000, 99_999) for _ in range(40)]

    assert kind_of(list(map(str, DRAW.choices(customers, k=N)))) == "categorical"
    assert kind_of([str(DRAW.randrange(10_000, 99_999)) for _ in range(N)]) == "numeric"


@pytest.mark.parametrize("value", ["5 €", "1.234,5", "443", 443, "on"])
def test_what_never_varied_is_read_by_what_is_proposed(value: Any) -> None:
    field = infer_schema([{"x": value, "y": n % 7} for n in range(60)]).schema.fields[0]

    assert field.read([value, value])[1] == {}


def kind_of(values: Sequence[Any]) -> str:
    rows = [row | {"y": n % 7} for n, row in enumerate(rows_of(values))]
    return infer_schema(rows).schema.fields[0].kind
