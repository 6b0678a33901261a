"""Bursts become groups, the rate limit bounds the rest, and no exceedance goes uncounted."""

import statistics
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.alerts.encode import alert_id
from worker.alerts.explain import Exceedance
from worker.alerts.grouping import MAX_OPEN, GroupingOptions, PartitionGrouping, Published
from worker.alerts.open_groups import MAX_KEY_BYTES, EventClock, group_key, remember
from worker.records import NO_TIME, Alert, Message, Partition
from worker.redaction import NOTHING, Redaction

PARTITION = Partition("in", 3)
START_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z, the start of a minute
BY_KEY = GroupingOptions(("card",), cooldown_s=60)


class Event(NamedTuple):
    """A scored record: its time in seconds after the start, and its alert's key; None = it is no alert."""

    at_s: float | None
    key: str | None = None
    score: float = 2.0


def time_of(event: Event) -> int:
    return NO_TIME if event.at_s is None else START_MS + round(event.at_s * 1000)


def exceedance(row: int, offset: int, time_ms: int, key: str, score: float = 2.0, version: str = "v1") -> Exceedance:
    message = Message(*PARTITION, offset, 5, key.encode(), b"{}")
    return Exceedance(row, message, {"card": key}, time_ms, score, 1.0, "info", 0.1, version)


class Run:
    """Events through one PartitionGrouping, batch by batch."""

    def __init__(self, options: GroupingOptions = BY_KEY) -> None:
        self.options = options
        self.grouping = PartitionGrouping(PARTITION, options)
        self.alerts: list[tuple[int, Alert]] = []  # with the offset of the record that caused each
        self.grouped = self.rate_limited = self.offset = 0

    def __call__(self, *events: Event) -> "Run":
        times = np.array([time_of(event) for event in events], np.int64)
        exceedances = [
            exceedance(row, self.offset + row, time_of(event), event.key, event.score)
            for row, event in enumerate(events)
            if event.key is not None
        ]
        published = Published(times, NOTHING, None)
        self.grouping.add(exceedances, np.arange(len(events)), published)
        self.alerts += [(self.offset + row, alert) for row, alert in published.alerts]
        self.grouped += published.grouped
        self.rate_limited += published.rate_limited
        self.offset += len(events)
        return self

    def restart(self) -> None:
        """Go on in another process."""
        saved = orjson.loads(orjson.dumps(self.grouping.state()))
        self.grouping = PartitionGrouping(PARTITION, self.options)
        self.grouping.restore(saved)

    def states(self) -> list[tuple[int, str, int]]:
        """Offset that caused it, state and count of each alert of a group."""
        return [(at, alert.group.state, alert.group.count) for at, alert in self.alerts if alert.group is not None]


def burst(count: int, start_s: float = 0, key: str = "a", step_s: float = 1) -> list[Event]:
    return [Event(start_s + number * step_s, key) for number in range(count)]


def quiet(start_s: float, count: int = 3) -> list[Event]:
    return [Event(start_s + number) for number in range(count)]


def test_a_burst_is_one_opening_updates_at_powers_of_ten_and_one_closing() -> None:
    run = Run()(*burst(250), *quiet(310, 10))

    assert run.states() == [(0, "opening", 1), (9, "update", 10), (99, "update", 100), (251, "closing", 250)]
    assert run.grouped == 247


def test_the_closing_alert_names_the_strongest_record_and_the_whole_span() -> None:
    events = [Event(0, "a"), Event(20, "a", score=7.5), Event(40, "a"), *quiet(200)]
    _, closing = Run()(*events).alerts[-1]

    assert closing.group is not None
    assert (closing.message.offset, closing.score, closing.group.strongest_score) == (1, 7.5, 7.5)
    assert (closing.group.first_seen, closing.group.last_seen) == (
        "2026-01-01T00:00:00.000Z",
        "2026-01-01T00:00:40.000Z",
    )
    assert closing.group.key == {"card": "a"}
    assert closing.group.opening_id == alert_id("in", 3, 0)
    assert closing.message.value is None
    assert closing.alert_id == alert_id(alert_id("in", 3, 0), "closing")


def test_a_group_of_a_single_alert_ends_without_a_closing() -> None:
    run = Run()(Event(0, "a"), *quiet(500), Event(600, "a"), *quiet(1000))

    assert run.states() == [(0, "opening", 1), (4, "opening", 1)]


def test_other_keys_are_other_groups() -> None:
    run = Run()(Event(0, "a"), Event(1, "b"), Event(2, "a"), Event(3, "b"))

    assert run.states() == [(0, "opening", 1), (1, "opening", 1)]
    assert run.grouped == 2


def test_an_alert_after_the_cooldown_opens_anew_though_nothing_came_between() -> None:
    run = Run()(Event(0, "a"), Event(60, "a"), Event(120.001, "a"))

    assert run.states() == [(0, "opening", 1), (2, "closing", 2), (2, "opening", 1)]


def test_one_record_with_a_wrong_clock_ends_no_group() -> None:
    run = Run()(Event(0, "a"), Event(1, "a"), Event(1e9), Event(2, "a"), Event(3, "a"))

    assert run.states() == [(0, "opening", 1)]


def test_an_alert_with_a_wrong_clock_does_not_swallow_those_that_follow() -> None:
    run = Run()(Event(0, "a"), Event(1), Event(1e9, "a"), Event(2, "a"), Event(3, "a"))

    assert run.states() == [(0, "opening", 1), (2, "opening", 1), (3, "opening", 1)]
    assert run.grouped == 1


def test_late_records_belong_to_the_group_that_is_open() -> None:
    run = Run()(*burst(3, 4000), Event(400, "a"), Event(4003, "a"), Event(401, "a"))

    assert run.states() == [(0, "opening", 1)]


def test_without_any_event_time_each_alert_stands_alone() -> None:
    run = Run()(Event(None, "a"), Event(None, "a"), Event(None))

    assert [(at, alert.group) for at, alert in run.alerts] == [(0, None), (1, None)]


def test_the_group_that_was_quiet_for_the_longest_time_makes_room_for_a_new_one() -> None:
    run = Run()(Event(0, "a"), Event(0, "a"), *[Event(1, str(number)) for number in range(MAX_OPEN)])

    assert [entry for entry in run.states() if entry[1] == "closing"] == [(MAX_OPEN + 1, "closing", 2)]
    assert len(run.grouping.state()["groups"]) == MAX_OPEN


def test_the_state_is_bounded_whatever_the_keys_are() -> None:
    run = Run(GroupingOptions(("card",), cooldown_s=60, max_per_minute=1))
    run(*[Event(1, str(number) + "x" * 10_000) for number in range(2 * MAX_OPEN)])

    assert len(orjson.dumps(run.grouping.state())) < MAX_OPEN * (400 + 2 * MAX_KEY_BYTES)


def test_alerts_over_the_rate_limit_are_summed_up_when_the_minute_is_over() -> None:
    run = Run(GroupingOptions(max_per_minute=3))
    run(*burst(10, 0), Event(30, "b", score=9.0), Event(61), Event(62), Event(63))

    assert [at for at, _ in run.alerts] == [0, 1, 2, 12]
    assert run.rate_limited == 8
    summary = run.alerts[-1][1]
    assert summary.summary is not None
    assert (summary.summary.minute, summary.summary.rate_limited) == ("2026-01-01T00:00:00.000Z", 8)
    assert (summary.message.offset, summary.score) == (10, 9.0)
    assert summary.alert_id == alert_id(alert_id("in", 3, 3), "summary")


def test_each_minute_has_its_own_allowance() -> None:
    run = Run(GroupingOptions(max_per_minute=2))
    run(*burst(240))

    published = [alert for _, alert in run.alerts if alert.summary is None]
    summaries = [alert.summary.rate_limited for _, alert in run.alerts if alert.summary is not None]
    assert len(published) == 8
    assert sum(summaries) + len(published) == pytest.approx(240, abs=60)


def test_a_group_whose_opening_was_rate_limited_opens_as_soon_as_there_is_room() -> None:
    run = Run(GroupingOptions(("card",), cooldown_s=600, max_per_minute=1))
    run(Event(0, "a"), *burst(5, 10, "b", step_s=5), *burst(3, 70, "b"))

    groups = [(at, alert.group) for at, alert in run.alerts]
    opened = [(at, group.count) for at, group in groups if group is not None and group.key["card"] == "b"]
    assert opened == [(7, 7)]
    assert (run.rate_limited, run.grouped) == (6, 1)


def test_a_newer_model_speaks_for_the_strongest_since_scores_of_two_models_do_not_compare() -> None:
    old = remember(None, exceedance(0, 1, 0, "a", 9.0, "v1"), NOTHING)
    new = remember(None, exceedance(0, 2, 0, "a", 2.0, "v2"), NOTHING)

    assert remember(old, new, NOTHING) == new
    assert remember(new, replace(new, score=1.5), NOTHING) == new
    assert remember(new, replace(new, score=2.5), NOTHING).score == 2.5


def test_values_of_a_key_differ_where_their_json_does_and_are_cut_for_people() -> None:
    def key_of(record: dict[str, Any], name: str) -> tuple[str, tuple[Any, ...]]:
        return group_key(record, (name,), NOTHING)

    same = [key_of({"a": {"b": 1}}, "a.b"), key_of({"a.b": 1}, "a.b")]
    others = [key_of({"a": {"b": value}}, "a.b") for value in (True, "1", None, 2, [1])]
    digest, shown = key_of({"a": "x" * 500}, "a")

    assert same[0] == same[1]
    assert len({digest for digest, _ in (*same, *others)}) == 6
    assert shown == ("x" * 64 + "…",)
    assert digest != key_of({"a": "x" * 501}, "a")[0]


def test_redacted_fields_are_not_shown_in_a_key_also_when_their_parent_is() -> None:
    record = {"card": {"number": "4711"}}

    assert group_key(record, ("card.number",), Redaction(["card.number"]))[1] == ("[redacted]",)
    assert group_key(record, ("card.number",), Redaction(["card"]))[1] == ("[redacted]",)


@pytest.mark.parametrize("damage", [{}, {"clock": 1}, {"groups": [[1]]}, {"minute": []}, {"clock": ["x", 1]}])
def test_damaged_state_is_refused(damage: dict[str, Any]) -> None:
    run = Run()(*burst(3))
    state = {} if damage == {} else {**run.grouping.state(), **damage}

    with pytest.raises(ValueError, match="damaged"):
        PartitionGrouping(PARTITION, BY_KEY).restore(state)


@pytest.mark.parametrize(("saved_mark", "mark", "groups"), [("", "", 1), ("", "a", 0), ("a", "a", 1), ("b", "a", 0)])
def test_what_was_saved_before_its_fields_were_redacted_is_forgotten(saved_mark: str, mark: str, groups: int) -> None:
    state = orjson.loads(orjson.dumps(Run()(*burst(3)).grouping.state(saved_mark)))
    grouping = PartitionGrouping(PARTITION, BY_KEY)

    grouping.restore(state, mark)

    assert len(grouping.state()["groups"]) == groups


def test_the_key_that_a_group_remembers_is_masked() -> None:
    one = exceedance(0, 1, 0, "4929-1111")

    assert "4929" not in repr(remember(None, one, Redaction(["card"])))


def test_another_key_starts_without_the_groups_of_the_old_one() -> None:
    state = Run()(*burst(3)).grouping.state()
    grouping = PartitionGrouping(PARTITION, GroupingOptions(("merchant",)))
    grouping.restore(state)

    assert grouping.state()["groups"] == []


events = st.builds(
    Event,
    st.one_of(st.none(), st.floats(0, 400), st.just(1e9)),
    st.sampled_from([None, None, "a", "b", "c"]),
    st.floats(1, 9),
)


def split(stream: Sequence[Event], borders: Sequence[int]) -> list[Sequence[Event]]:
    edges = [0, *sorted(min(border, len(stream)) for border in borders), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(events, max_size=60),
    st.lists(st.integers(0, 60), max_size=6),
    st.sampled_from([BY_KEY, GroupingOptions(("card",), 20, 2), GroupingOptions(max_per_minute=1)]),
    st.booleans(),
)
def test_batches_and_restarts_change_nothing_and_every_exceedance_is_counted_once(
    stream: list[Event], borders: list[int], options: GroupingOptions, ordered: bool
) -> None:
    if ordered:
        stream = sorted(stream, key=lambda event: (event.at_s is None, event.at_s))
    whole, parts = Run(options)(*stream), Run(options)
    for part in split(stream, borders):
        parts(*part)
        parts.restart()

    assert parts.alerts == whole.alerts
    assert parts.grouping.state() == whole.grouping.state()
    own = [alert for _, alert in whole.alerts if alert.of_one_record]
    assert len(own) + whole.grouped + whole.rate_limited == sum(event.key is not None for event in stream)
    identities = [alert.alert_id for _, alert in whole.alerts]
    assert len(set(identities)) == len(identities)


def median_of_three(times: list[int]) -> list[int]:
    seen: list[int] = []
    medians = []
    for time in times:
        if time != NO_TIME:
            seen = [*(seen or [time, time]), time]
        medians.append(int(statistics.median(seen[-3:])) if seen else NO_TIME)
    return medians


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.just(NO_TIME) | st.integers(0, 2**62), max_size=30), st.integers(0, 30))
def test_the_clock_is_the_median_of_the_last_three_times_in_any_batches_and_across_a_restart(
    times: list[int], border: int
) -> None:
    first, second = EventClock(), EventClock()
    start = first.advance(np.array(times[:border], np.int64))
    second.recent, second.now = first.recent, first.now
    rest = second.advance(np.array(times[border:], np.int64))

    assert [*start.tolist(), *rest.tolist()] == median_of_three(times)


def test_one_wrong_time_does_not_move_the_clock() -> None:
    now = EventClock().advance(np.array([100, 101, 10**15, 102, 0, 103, 104], np.int64))

    assert now.max() < 105
    assert now[2:].min() >= 100
