"""Bursts collapse into episodes, the rate cap holds back the rest, and no alert goes uncounted."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.alerts.encode import alert_id, derived_id
from worker.alerts.grouping import AlertGrouping, Candidate, GroupingOptions, Notice
from worker.alerts.groups import KEY_BYTES, MAX_OPEN, Held, group_of
from worker.records import Partition
from worker.thresholds.partition import NO_TIME

PLACE = Partition("in", 3)
START_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z, the start of a minute
BY_KEY = GroupingOptions(("card",), cooldown_s=60)


class Event(NamedTuple):
    """A scored record: its time in seconds after the start, and its alert's key; None = it is no alert."""

    at_s: float | None
    key: str | None = None
    score: float = 2.0


def time_of(event: Event) -> int:
    return NO_TIME if event.at_s is None else START_MS + round(event.at_s * 1000)


class Run:
    """Events through one AlertGrouping, batch by batch."""

    def __init__(self, options: GroupingOptions = BY_KEY) -> None:
        self.options = options
        self.grouping = AlertGrouping(PLACE, options)
        self.notices: list[tuple[int, Notice]] = []  # with the offset of the record that caused each
        self.grouped = self.rate_limited = self.offset = 0

    def __call__(self, *events: Event) -> "Run":
        times = np.array([time_of(event) for event in events], np.int64)
        candidates = [
            Candidate(
                position,
                Held(
                    self.offset + position, 5, event.key.encode(), time_of(event), event.score, 1.0, "info", 0.1, "v1"
                ),
                group_of({"card": event.key}, self.options.group_by) if self.options.group_by else None,
            )
            for position, event in enumerate(events)
            if event.key is not None
        ]
        sifted = self.grouping.sift(times, candidates)
        offsets = [self.offset + notice.position for notice in sifted.notices]
        self.notices += [(at, n._replace(position=at)) for at, n in zip(offsets, sifted.notices, strict=True)]
        self.grouped += sifted.grouped
        self.rate_limited += sifted.rate_limited
        self.offset += len(events)
        return self

    def restart(self) -> None:
        """Go on in another process."""
        saved = orjson.loads(orjson.dumps(self.grouping.state()))
        self.grouping = AlertGrouping(PLACE, self.options)
        self.grouping.restore(saved)

    def states(self) -> list[tuple[int, str, int]]:
        """Offset that caused it, state and count of each episode's notices."""
        return [(at, n.episode.state, n.episode.count) for at, n in self.notices if n.episode is not None]


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
    _, closing = Run()(*events).notices[-1]

    assert closing.episode is not None
    assert (closing.held.offset, closing.held.score, closing.episode.strongest_score) == (1, 7.5, 7.5)
    assert (closing.episode.first_seen, closing.episode.last_seen) == (
        "2026-01-01T00:00:00.000Z",
        "2026-01-01T00:00:40.000Z",
    )
    assert closing.episode.key == {"card": "a"}
    assert closing.episode.opening_id == alert_id("in", 3, 0)
    assert closing.alert_id == derived_id(alert_id("in", 3, 0), "closing")


def test_an_episode_of_a_single_alert_ends_without_a_closing() -> None:
    run = Run()(Event(0, "a"), *quiet(500), Event(600, "a"), *quiet(1000))

    assert run.states() == [(0, "opening", 1), (4, "opening", 1)]


def test_other_keys_are_other_episodes() -> None:
    run = Run()(Event(0, "a"), Event(1, "b"), Event(2, "a"), Event(3, "b"))

    assert run.states() == [(0, "opening", 1), (1, "opening", 1)]
    assert run.grouped == 2


def test_an_alert_after_the_cooldown_opens_anew_though_nothing_came_between() -> None:
    run = Run()(Event(0, "a"), Event(60, "a"), Event(120.001, "a"))

    assert run.states() == [(0, "opening", 1), (2, "closing", 2), (2, "opening", 1)]


def test_one_record_with_a_wrong_clock_ends_no_episode() -> None:
    run = Run()(Event(0, "a"), Event(1, "a"), Event(1e9), Event(2, "a"), Event(3, "a"))

    assert run.states() == [(0, "opening", 1)]


def test_an_alert_with_a_wrong_clock_does_not_swallow_those_that_follow() -> None:
    run = Run()(Event(0, "a"), Event(1), Event(1e9, "a"), Event(2, "a"), Event(3, "a"))

    assert run.states() == [(0, "opening", 1), (2, "opening", 1), (3, "opening", 1)]
    assert run.grouped == 1


def test_late_records_belong_to_the_episode_that_is_open() -> None:
    run = Run()(*burst(3, 4000), Event(400, "a"), Event(4003, "a"), Event(401, "a"))

    assert run.states() == [(0, "opening", 1)]


def test_without_any_event_time_each_alert_stands_alone() -> None:
    run = Run()(Event(None, "a"), Event(None, "a"), Event(None))

    assert [(at, notice.episode) for at, notice in run.notices] == [(0, None), (1, None)]


def test_the_episode_that_was_quiet_for_longest_makes_room_for_a_new_one() -> None:
    run = Run()(Event(0, "a"), Event(0, "a"), *[Event(1, str(number)) for number in range(MAX_OPEN)])

    assert [entry for entry in run.states() if entry[1] == "closing"] == [(MAX_OPEN + 1, "closing", 2)]
    assert len(run.grouping.state()["episodes"]) == MAX_OPEN


def test_the_state_is_bounded_whatever_the_keys_are() -> None:
    run = Run(GroupingOptions(("card",), cooldown_s=60, max_per_minute=1))
    run(*[Event(1, str(number) + "x" * 10_000) for number in range(2 * MAX_OPEN)])

    assert len(orjson.dumps(run.grouping.state())) < MAX_OPEN * (400 + 2 * KEY_BYTES)


def test_beyond_the_cap_alerts_are_withheld_and_summed_up_when_the_minute_is_over() -> None:
    run = Run(GroupingOptions(max_per_minute=3))
    run(*burst(10, 0), Event(30, "b", score=9.0), Event(61), Event(62), Event(63))

    assert [at for at, _ in run.notices] == [0, 1, 2, 12]
    assert run.rate_limited == 8
    summary = run.notices[-1][1]
    assert summary.summary is not None
    assert (summary.summary.minute, summary.summary.rate_limited) == ("2026-01-01T00:00:00.000Z", 8)
    assert (summary.held.offset, summary.held.score) == (10, 9.0)
    assert summary.alert_id == derived_id(alert_id("in", 3, 3), "summary")


def test_each_minute_has_its_own_allowance() -> None:
    run = Run(GroupingOptions(max_per_minute=2))
    run(*burst(240))

    published = [notice for _, notice in run.notices if notice.summary is None]
    summaries = [notice.summary.rate_limited for _, notice in run.notices if notice.summary is not None]
    assert len(published) == 8
    assert sum(summaries) + len(published) == pytest.approx(240, abs=60)


def test_an_episode_whose_opening_was_withheld_opens_as_soon_as_there_is_room() -> None:
    run = Run(GroupingOptions(("card",), cooldown_s=600, max_per_minute=1))
    run(Event(0, "a"), *burst(5, 10, "b", step_s=5), *burst(3, 70, "b"))

    opened = [(at, n.episode.count) for at, n in run.notices if n.episode is not None and n.episode.key["card"] == "b"]
    assert opened == [(7, 7)]
    assert (run.rate_limited, run.grouped) == (6, 1)


def test_a_newer_model_speaks_for_the_strongest_since_scores_of_two_models_do_not_compare() -> None:
    old = Held(1, 0, None, 0, 9.0, 1.0, "critical", None, "v1")
    new = Held(2, 0, None, 0, 2.0, 1.0, "info", None, "v2")

    assert old.stronger(new) == new
    assert new.stronger(new._replace(score=1.5)) == new


def test_values_of_a_key_differ_where_their_json_does_and_are_cut_for_people() -> None:
    same = [group_of({"a": {"b": 1}}, ("a.b",)), group_of({"a.b": 1}, ("a.b",))]
    others = [group_of({"a": {"b": value}}, ("a.b",)) for value in (True, "1", None, 2, [1])]
    long = group_of({"a": "x" * 500}, ("a",))

    assert same[0] == same[1]
    assert len({group.digest for group in (*same, *others)}) == 6
    assert long.shown == ("x" * 64 + "…",)
    assert long.digest != group_of({"a": "x" * 501}, ("a",)).digest


def test_redacted_fields_are_not_shown_in_a_key_also_when_their_parent_is() -> None:
    row = {"card": {"number": "4711"}}

    assert group_of(row, ("card.number",), frozenset({"card.number"})).shown == ("[redacted]",)
    assert group_of(row, ("card.number",), frozenset({"card"})).shown == (None,)


@pytest.mark.parametrize("damage", [{}, {"clock": 1}, {"episodes": [[1]]}, {"cap": None}, {"clock": {"recent": "x"}}])
def test_damaged_state_is_refused(damage: dict[str, Any]) -> None:
    run = Run()(*burst(3))
    state = {} if damage == {} else {**run.grouping.state(), **damage}

    with pytest.raises(ValueError, match="damaged"):
        AlertGrouping(PLACE, BY_KEY).restore(state)


def test_another_key_starts_without_the_episodes_of_the_old_one() -> None:
    state = Run()(*burst(3)).grouping.state()
    grouping = AlertGrouping(PLACE, GroupingOptions(("merchant",)))
    grouping.restore(state)

    assert grouping.state()["episodes"] == []


events = st.builds(
    Event,
    st.one_of(st.none(), st.floats(0, 400), st.just(1e9)),
    st.sampled_from([None, None, "a", "b", "c"]),
    st.floats(1, 9),
)


def cut(found: Sequence[Event], cuts: Sequence[int]) -> list[Sequence[Event]]:
    borders = [0, *sorted(cuts), len(found)]
    return [found[start:end] for start, end in pairwise(borders)]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(events, max_size=60),
    st.lists(st.integers(0, 60), max_size=6),
    st.sampled_from([BY_KEY, GroupingOptions(("card",), 20, 2), GroupingOptions(max_per_minute=1)]),
    st.booleans(),
)
def test_batches_and_restarts_change_nothing_and_every_alert_is_counted_once(
    found: list[Event], cuts: list[int], options: GroupingOptions, ordered: bool
) -> None:
    if ordered:
        found = sorted(found, key=lambda event: (event.at_s is None, event.at_s))
    whole, parts = Run(options)(*found), Run(options)
    for part in cut(found, [min(place, len(found)) for place in cuts]):
        parts(*part)
        parts.restart()

    assert parts.notices == whole.notices
    assert parts.grouping.state() == whole.grouping.state()
    own = [n for _, n in whole.notices if n.summary is None and (n.episode is None or n.episode.state != "closing")]
    assert len(own) + whole.grouped + whole.rate_limited == sum(event.key is not None for event in found)
    identities = [notice.alert_id for _, notice in whole.notices]
    assert len(set(identities)) == len(identities)
