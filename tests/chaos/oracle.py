"""One judge of delivery: what went in, what came out, what was committed. Pure; knows no broker.

Always: every record below a partition's bound has a score or a dead letter and never both, a result is about a record
that exists, a record has one alert id and an id one record, a flagged score has its alert, and nothing is committed
beyond what was published.
exactly_once, for a read_committed reader: each result once, in offset order; alerts are exactly the flagged scores.
at_least_once: results can come again; they are counted.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

SHOWN = 3


class Place(NamedTuple):
    """Where an input record stands."""

    partition: int
    offset: int


class Result(NamedTuple):
    """A published record. about: its input record; partition: where it was published; alert_id: of an alert;
    flagged: the `alert` of a score."""

    about: Place
    partition: int = 0
    alert_id: str = ""
    flagged: bool = False


@dataclass
class Seen:
    """Evidence. The three lists are in the order in which one reader saw them."""

    records: set[Place] = field(default_factory=set)
    tombstones: set[Place] = field(default_factory=set)
    scores: list[Result] = field(default_factory=list)
    alerts: list[Result] = field(default_factory=list)
    dead_letters: list[Result] = field(default_factory=list)
    committed: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """lost: records without any result; duplicates: results that came again; problems: one line for each kind."""

    records: int
    scores: int
    alerts: int
    dead_letters: int
    lost: int
    duplicates: int
    problems: Sequence[str]


def judge(seen: Seen, *, exactly_once: bool, until: Mapping[int, int] | None = None) -> Verdict:
    """until: the offset up to which each partition must be done; by default all records of all partitions.

    Of what lies beyond it the reader may have seen one result and not yet the other: that is judged another time.
    """
    scored = {result.about for result in seen.scores}
    dead = {result.about for result in seen.dead_letters}
    due = seen.records if until is None else _below(seen.records, until)
    lost = due - scored - dead
    topics = {"scores": seen.scores, "alerts": seen.alerts, "dead letters": seen.dead_letters}
    again = {name: _repeated(results) for name, results in topics.items()}
    problems = [
        _said("lost", lost),
        _said("committed before they were published", _below(seen.records, seen.committed) - scored - dead),
        _said("both scored and dead-lettered", scored & dead),
        _said(
            "results about records that don't exist", _done(scored | dead | _abouts(seen.alerts), until) - seen.records
        ),
        *_ids(seen.alerts),
        *_flags(seen, until, exactly_once=exactly_once),
    ]
    if exactly_once:
        problems += [_said(f"{name} published more than once", places) for name, places in again.items()]
        problems += [_said(f"{name} out of order", _unordered(results)) for name, results in topics.items()]
    return Verdict(
        records=len(seen.records) + len(seen.tombstones),
        scores=len(scored),
        alerts=len(_abouts(seen.alerts)),
        dead_letters=len(dead),
        lost=len(lost),
        duplicates=sum(map(len, topics.values())) - len(scored) - len(dead) - len(_abouts(seen.alerts)),
        problems=[problem for problem in problems if problem],
    )


def _below(places: Iterable[Place], bounds: Mapping[int, int]) -> set[Place]:
    return {place for place in places if place.offset < bounds.get(place.partition, 0)}


def _abouts(results: Iterable[Result]) -> set[Place]:
    return {result.about for result in results}


def _repeated(results: Iterable[Result]) -> set[Place]:
    return {place for place, count in Counter(result.about for result in results).items() if count > 1}


def _ids(alerts: Iterable[Result]) -> list[str]:
    ids: dict[Place, set[str]] = defaultdict(set)
    places: dict[str, set[Place]] = defaultdict(set)
    for alert in alerts:
        ids[alert.about].add(alert.alert_id)
        places[alert.alert_id].add(alert.about)
    shared = {place for sharing in places.values() if len(sharing) > 1 for place in sharing}
    return [
        _said("records with several alert ids", {place for place, own in ids.items() if len(own) > 1}),
        _said("records that share an alert id", shared),
    ]


def _done(places: Iterable[Place], until: Mapping[int, int] | None) -> set[Place]:
    return set(places) if until is None else _below(places, until)


def _flags(seen: Seen, until: Mapping[int, int] | None, *, exactly_once: bool) -> list[str]:
    """A repeated score may have been compared with another threshold: one that was flagged each time counts."""
    unflagged = {result.about for result in seen.scores if not result.flagged}
    flagged = {result.about for result in seen.scores if result.flagged}
    alerted = _abouts(seen.alerts)
    problems = [_said("flagged scores without an alert", _done(flagged - unflagged - alerted, until))]
    if exactly_once:
        problems.append(_said("alerts without a flagged score", _done(alerted - flagged, until)))
    return problems


def _unordered(results: Iterable[Result]) -> set[Place]:
    """Records that one partition of the results shows after a later record of the same input partition."""
    newest: dict[tuple[int, int], int] = {}
    late: set[Place] = set()
    for result in results:
        lane = (result.partition, result.about.partition)
        if result.about.offset < newest.get(lane, -1):
            late.add(result.about)
        newest[lane] = max(newest.get(lane, -1), result.about.offset)
    return late


def _said(what: str, places: Collection[Place]) -> str:
    if not places:
        return ""
    shown = ", ".join(f"{place.partition}:{place.offset}" for place in sorted(places)[:SHOWN])
    return f"{len(places)} {what} ({shown}{', …' if len(places) > SHOWN else ''})"
