"""From records above their threshold to alerts: silenced, grouped, capped; and only what is left is explained."""

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.alerts.encode import alert_id, redact
from worker.alerts.explain import Explainer
from worker.alerts.grouping import AlertGrouping, Candidate, GroupingOptions, Notice
from worker.alerts.groups import Held, group_of
from worker.alerts.silences import Silences
from worker.features.columns import value_of
from worker.features.vectorize import Vectors
from worker.records import Alert, FloatArray, Message, Partition, RawMessage, Reason, Scores
from worker.texts import event_time_text
from worker.thresholds.tail import severity

Groups = Sequence[tuple[Partition, NDArray[np.int64]]]
"""Positions of each partition's records, ascending."""


@dataclass(frozen=True, slots=True)
class Wording:
    """How alerts of one model are put. ids: fields that are given on their own."""

    explainer: Explainer
    redacted: frozenset[str]
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Above:
    """The scored records of a batch, and what is known of those above their threshold.

    tail_probability: float64 (B,), NaN where it is not known.
    """

    vectors: Vectors
    scores: Scores
    tail_probability: FloatArray
    groups: Groups
    wording: Wording
    reasons: dict[int, tuple[Reason, ...]] = field(default_factory=dict)

    def explain(self, places: Sequence[int]) -> list[tuple[Reason, ...]]:
        """Reasons of these records, each computed once."""
        missing = [place for place in places if place not in self.reasons]
        vectors = self.vectors
        rows = [vectors.rows[place] for place in missing]
        found = self.wording.explainer.explain(vectors.numeric[missing], vectors.category_ids[missing], rows)
        self.reasons.update(zip(missing, found, strict=True))
        return [self.reasons[place] for place in places]


@dataclass(slots=True)
class Published:
    """What comes of a batch's records above their threshold; each is in `alerts` or counted once."""

    alerts: list[Alert] = field(default_factory=list)
    silenced: Counter[str] = field(default_factory=Counter)
    grouped: int = 0
    rate_limited: int = 0


class AlertDesk:
    """Keeps what grouping needs to know of each partition, and nothing while it is off."""

    def __init__(self, *, options: GroupingOptions, silences: Silences) -> None:
        self._options = options
        self._suppression = silences
        self._hygiene: dict[Partition, AlertGrouping] = {}

    def alerts(self, above: Above, detected_at: str | None) -> Published:
        """The alerts of a batch in input order. detected_at: None = event time of the record that caused each."""
        published = Published()
        wanted = self._not_silenced(above, published)
        notices: list[tuple[int, Notice]] = []
        for partition, index in above.groups:
            notices += self._notices(partition, index, wanted, above, published)
        notices.sort(key=lambda entry: entry[0])
        own = [place for place, notice in notices if _is_own(notice)]
        above.explain(own)
        published.alerts = [self._alert(place, notice, above, detected_at) for place, notice in notices]
        return published

    def _not_silenced(self, above: Above, published: Published) -> NDArray[np.bool_]:
        """Which records may raise an alert, bool (B,)."""
        wanted = above.scores.alert.copy()
        if not self._suppression.rules:
            return wanted
        places = np.flatnonzero(wanted).tolist()
        rules = self._suppression.matches(
            [above.vectors.rows[place] for place in places],
            above.vectors.event_time_ms[places].tolist(),
            lambda asked: above.explain([places[number] for number in asked]),
        )
        for place, rule in zip(places, rules, strict=True):
            if rule is not None:
                wanted[place] = False
                published.silenced[rule] += 1
        return wanted

    def _notices(
        self,
        partition: Partition,
        index: NDArray[np.int64],
        wanted: NDArray[np.bool_],
        above: Above,
        published: Published,
    ) -> list[tuple[int, Notice]]:
        """Of one partition, with the place in the batch of the record that caused each."""
        positions = np.flatnonzero(wanted[index]).tolist()
        places = index[positions].tolist()
        candidates = [
            self._candidate(position, place, above) for position, place in zip(positions, places, strict=True)
        ]
        if not self._options.active:
            return [
                (place, Notice(entry.position, alert_id(*partition, entry.held.offset), entry.held))
                for place, entry in zip(places, candidates, strict=True)
            ]
        sifted = self._of(partition).sift(above.vectors.event_time_ms[index], candidates)
        published.grouped += sifted.grouped
        published.rate_limited += sifted.rate_limited
        return [(int(index[notice.position]), notice) for notice in sifted.notices]

    def _candidate(self, position: int, place: int, above: Above) -> Candidate:
        message, scores = above.vectors.messages[place], above.scores
        score, threshold = float(scores.score[place]), float(scores.threshold[place])
        tail = float(above.tail_probability[place])
        held = Held(
            offset=message.offset,
            timestamp=message.timestamp,
            key=message.key,
            event_time_ms=int(scores.event_time_ms[place]),
            score=score,
            threshold=threshold,
            severity=severity(tail),
            tail_probability=None if math.isnan(tail) else tail,
            model_version=scores.model_version,
        )
        names = self._options.group_by
        group = group_of(above.vectors.rows[place], names, above.wording.redacted) if names else None
        return Candidate(position, held, group)

    def _alert(self, place: int, notice: Notice, above: Above, detected_at: str | None) -> Alert:
        cause, held = above.vectors.messages[place], notice.held
        own, wording = _is_own(notice), above.wording
        row = redact(above.vectors.rows[place], wording.redacted)
        return Alert(
            alert_id=notice.alert_id,
            detected_at=detected_at or event_time_text(int(above.vectors.event_time_ms[place])) or "",
            event_time=event_time_text(held.event_time_ms),
            message=cause if own else _remembered(cause, held),
            score=held.score,
            threshold=held.threshold,
            severity=held.severity,
            model_version=held.model_version,
            explanation=above.reasons[place] if own else (),
            ids={name: value_of(dict(row), name) for name in wording.ids} if own else {},
            record=row if own else {},
            tail_probability=held.tail_probability,
            episode=notice.episode,
            summary=notice.summary,
        )

    def _of(self, partition: Partition) -> AlertGrouping:
        if partition not in self._hygiene:
            self._hygiene[partition] = AlertGrouping(partition, self._options)
        return self._hygiene[partition]

    def forget(self, partitions: Collection[Partition]) -> None:
        """Drop what is known of these partitions."""
        for partition in partitions:
            self._hygiene.pop(partition, None)

    def state(self, partition: Partition) -> dict[str, Any] | None:
        """Plain data for JSON; None where there is nothing to remember."""
        return self._of(partition).state() if self._options.active else None

    def restore(self, partition: Partition, state: dict[str, Any] | None) -> None:
        """Continue from `state`, or anew from None. ValueError where it is damaged."""
        self.forget([partition])
        if state is not None and self._options.active:
            grouping = AlertGrouping(partition, self._options)
            grouping.restore(state)
            self._hygiene[partition] = grouping


def _is_own(notice: Notice) -> bool:
    return notice.summary is None and (notice.episode is None or notice.episode.state != "closing")


def _remembered(cause: RawMessage, held: Held) -> Message:
    """Where the remembered record stands, without its content."""
    return Message(cause.topic, cause.partition, held.offset, held.timestamp, held.key, None)
