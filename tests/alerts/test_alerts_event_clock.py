"""The time of a partition is the median of the last three event times."""

import statistics

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.alerts.event_clock import EventClock
from worker.thresholds.partition import NO_TIME


def reference(times: list[int]) -> list[int]:
    seen: list[int] = []
    found = []
    for time in times:
        if time != NO_TIME:
            seen = [*(seen or [time, time]), time]
        found.append(int(statistics.median(seen[-3:])) if seen else NO_TIME)
    return found


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.just(NO_TIME) | st.integers(0, 2**62), max_size=30), st.integers(0, 30))
def test_it_equals_the_plain_reference_in_any_batches_and_across_a_restart(times: list[int], border: int) -> None:
    first, second = EventClock(), EventClock()
    start = first.advance(np.array(times[:border], np.int64))
    second.restore(first.state())
    rest = second.advance(np.array(times[border:], np.int64))

    assert [*start.tolist(), *rest.tolist()] == reference(times)


def test_one_wrong_clock_does_not_move_it() -> None:
    now = EventClock().advance(np.array([100, 101, 10**15, 102, 0, 103, 104], np.int64))

    assert now.max() < 105
    assert now[2:].min() >= 100
