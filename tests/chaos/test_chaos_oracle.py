"""The judge of delivery finds every kind of wrong, and nothing in what is right."""

from dataclasses import replace

import pytest

from tests.chaos.oracle import Place, Result, Seen, Verdict, judge

RECORDS = [Place(partition, offset) for partition in range(2) for offset in range(10)]
DEAD, TOMBSTONE, ALERT = Place(0, 3), Place(1, 4), Place(1, 7)


def right() -> Seen:
    """Two partitions of ten records: a dead letter, a tombstone, an alert, the rest scored; all committed."""
    scored = [place for place in RECORDS if place not in {DEAD, TOMBSTONE}]
    return Seen(
        records=set(RECORDS) - {TOMBSTONE},
        tombstones={TOMBSTONE},
        scores=[Result(place, place.offset % 2, flagged=place == ALERT) for place in scored],
        alerts=[Result(ALERT, 0, "id-of-the-alert")],
        dead_letters=[Result(DEAD)],
        committed={0: 10, 1: 10},
    )


def said(seen: Seen, *, exactly_once: bool = True) -> str:
    return "; ".join(judge(seen, exactly_once=exactly_once).problems)


@pytest.mark.parametrize("exactly_once", [True, False])
def test_what_is_right_passes(exactly_once: bool) -> None:
    verdict = judge(right(), exactly_once=exactly_once)

    assert verdict == Verdict(20, 18, 1, 1, 0, 0, [])


@pytest.mark.parametrize("topic", ["scores", "dead_letters"])
def test_a_record_without_a_result_is_lost(topic: str) -> None:
    seen = right()
    getattr(seen, topic).pop()

    assert judge(seen, exactly_once=False).lost == 1
    assert "1 lost" in said(seen)
    assert "committed before they were published" in said(seen)


def test_a_record_beyond_the_bound_may_still_be_on_its_way() -> None:
    seen = replace(right(), committed={0: 10, 1: 9})
    seen.scores.pop()

    assert judge(seen, exactly_once=True, until={0: 10, 1: 9}).problems == []
    assert judge(seen, exactly_once=True, until={0: 10, 1: 10}).lost == 1


def test_offsets_committed_beyond_what_was_published_are_wrong_even_within_the_bound() -> None:
    seen = right()
    seen.scores.pop()

    assert "1 committed before they were published (1:9)" in judge(seen, exactly_once=False, until={0: 5}).problems


@pytest.mark.parametrize("topic", ["scores", "alerts", "dead_letters"])
def test_a_repeated_result_is_wrong_in_exactly_once_and_counted_in_at_least_once(topic: str) -> None:
    seen = right()
    getattr(seen, topic).append(getattr(seen, topic)[-1])

    assert "published more than once" in said(seen)
    assert said(seen, exactly_once=False) == ""
    assert judge(seen, exactly_once=False).duplicates == 1


def test_a_record_is_scored_or_dead_lettered_never_both() -> None:
    seen = right()
    seen.dead_letters.append(Result(Place(0, 5)))

    assert "both scored and dead-lettered (0:5)" in said(seen, exactly_once=False)


def test_a_repeated_alert_keeps_its_id() -> None:
    seen = right()
    seen.alerts.append(Result(ALERT, 0, "another id"))

    assert "several alert ids" in said(seen, exactly_once=False)


def test_an_id_belongs_to_one_record() -> None:
    seen = right()
    seen.scores[0] = seen.scores[0]._replace(flagged=True)
    seen.alerts.append(Result(seen.scores[0].about, 0, "id-of-the-alert"))

    assert "share an alert id" in said(seen, exactly_once=False)


@pytest.mark.parametrize("place", [TOMBSTONE, Place(0, 99)])
def test_results_about_nothing_are_wrong(place: Place) -> None:
    seen = right()
    seen.scores.append(Result(place))

    assert "don't exist" in said(seen, exactly_once=False)


def test_a_flagged_score_has_its_alert() -> None:
    seen = right()
    seen.alerts.clear()

    assert "flagged scores without an alert (1:7)" in said(seen, exactly_once=False)


def test_an_alert_has_its_flagged_score() -> None:
    seen = right()
    seen.alerts.append(Result(Place(0, 0), 0, "id"))

    assert "alerts without a flagged score (0:0)" in said(seen)


@pytest.mark.parametrize("topic", ["alerts", "scores", "records"])
def test_what_was_read_halfway_beyond_the_bound_is_judged_another_time(topic: str) -> None:
    seen = replace(right(), committed={0: 10, 1: 7})
    records = getattr(seen, topic)
    if topic == "records":
        records.remove(ALERT)
    else:
        records[:] = [result for result in records if result.about != ALERT]

    assert judge(seen, exactly_once=True, until={0: 10, 1: 7}).problems == []
    assert judge(seen, exactly_once=True, until={0: 10, 1: 10}).problems != []


def test_exactly_once_keeps_the_order_of_each_partition() -> None:
    seen = right()
    seen.scores[0], seen.scores[2] = seen.scores[2], seen.scores[0]

    assert "scores out of order (0:0)" in said(seen)
    assert said(seen, exactly_once=False) == ""
