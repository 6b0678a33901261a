"""The samples of the quick start."""

from itertools import islice
from random import Random

import orjson
import pytest

from worker.demo.shapes import HISTORY, LABEL, LATER, SHAPES


@pytest.mark.parametrize("name", SHAPES)
def test_a_seed_makes_the_same_records_every_time_and_another_one_others(name: str) -> None:
    records, _ = SHAPES[name]
    first, again, other = (list(islice(records(Random(seed)), 50)) for seed in (0, 0, 1))

    assert first == again
    assert first != other


@pytest.mark.parametrize("name", ["audit", "changes"])
def test_anomalies_are_planted_only_after_the_history(name: str) -> None:
    planted = [orjson.loads(record)[LABEL] for record in SHAPES[name][0](Random(0))]

    assert len(planted) == HISTORY + LATER
    assert not any(planted[:HISTORY])
    assert sum(planted) == 30
