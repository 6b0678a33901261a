"""How much bad input is too much."""

import pytest

from worker.errors import BreakerTripped
from worker.stream.breaker import Breaker


def test_invalid_records_in_a_row_trip_it_across_batches() -> None:
    breaker = Breaker(invalid_ratio=1.0, window=1000, consecutive=10)
    breaker.check(0, 5)
    breaker.check(1, 9)
    breaker.check(0, 9)

    with pytest.raises(BreakerTripped, match="10 invalid records in a row"):
        breaker.check(0, 1)


def test_a_share_of_the_last_records_trips_it_once_there_are_enough() -> None:
    breaker = Breaker(invalid_ratio=0.5, window=100, consecutive=0)
    breaker.check(10, 60)
    breaker.check(20, 9)

    with pytest.raises(BreakerTripped, match="invalid_ratio"):
        breaker.check(0, 1)


def test_old_batches_leave_the_window() -> None:
    breaker = Breaker(invalid_ratio=0.5, window=100, consecutive=0)
    breaker.check(60, 40)
    for _ in range(20):
        breaker.check(60, 40)
    breaker.check(100, 0)

    with pytest.raises(BreakerTripped):
        breaker.check(0, 101)


def test_a_ratio_of_one_and_no_limit_in_a_row_never_trip() -> None:
    breaker = Breaker(invalid_ratio=1.0, window=10, consecutive=0)
    for _ in range(100):
        breaker.check(0, 1000)
