"""Alerts of one key as one episode: an opening, updates at 10, 100, 1000 … alerts, and a closing."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal, NamedTuple

import orjson

from worker.alerts.encode import redact
from worker.features.columns import value_of
from worker.formats.base import Row
from worker.records import Episode
from worker.texts import event_time_text
from worker.thresholds.partition import NO_TIME

MAX_OPEN = 256
"""Episodes that one partition keeps open; one more closes the one that was quiet for longest."""

KEY_BYTES = 256
"""A record's Kafka key is remembered up to this size; the closing of a longer one has none."""

SHOWN_CHARACTERS = 64
"""What is remembered of each of the key's values, for people; alerts are told apart by the whole value."""

LATE_MS = 86_400_000
"""How far behind a record may be and still belong to an open episode. What is further off has another clock."""

FIRST_UPDATE = 10
"""Alerts after which an episode is published again, and then at each power of ten."""


class Group(NamedTuple):
    """The alerts that are taken together. digest: of the key's values; shown: these, cut for people."""

    digest: str
    shown: tuple[Any, ...]


class Held(NamedTuple):
    """What is remembered of an alert that may have to be named later: about 200 bytes as JSON, and its Kafka key.

    timestamp: of the Kafka record, event_time_ms: of what it tells; milliseconds, UTC, NO_TIME where there is none.
    """

    offset: int
    timestamp: int
    key: bytes | None
    event_time_ms: int
    score: float
    threshold: float
    severity: str
    tail_probability: float | None
    model_version: str

    def stronger(self, other: "Held") -> "Held":
        """The higher score of one model; scores of two models say nothing of each other, then the newer one."""
        return other if other.model_version != self.model_version or other.score > self.score else self

    def to_json(self) -> list[Any]:
        """A list for JSON; of one that was lightened."""
        key = None if self.key is None else base64.b64encode(self.key).decode()
        return [key if name == "key" else value for name, value in zip(self._fields, self, strict=True)]

    @classmethod
    def from_json(cls, values: list[Any]) -> "Held":
        """The inverse. Raises TypeError or ValueError where it is damaged."""
        held = cls(*values)
        return held if held.key is None else held._replace(key=base64.b64decode(held.key))

    def lightened(self) -> "Held":
        """As it would be after a restart, so that a restart changes nothing."""
        return self if self.key is None or len(self.key) <= KEY_BYTES else self._replace(key=None)


@dataclass(slots=True)
class OpenEpisode:
    """An episode that the cooldown has not ended yet.

    seen_ms: by the partition's clock or the latest alert's own time, whichever is later; first_ms, last_ms: the alerts'
    own times. opening_id: None until the opening alert is published.
    """

    group: Group
    strongest: Held
    seen_ms: int
    first_ms: int
    last_ms: int
    count: int = 0
    opening_id: str | None = None

    def goes_on(self, now_ms: int, cooldown_ms: int) -> bool:
        """Whether `now_ms` is within the cooldown, and not so far back that it is another clock's."""
        first, last = self.bounds(cooldown_ms)
        return first <= now_ms <= last

    def bounds(self, cooldown_ms: int) -> tuple[int, int]:
        """The first and last time at which it goes on."""
        return self.seen_ms - LATE_MS, self.seen_ms + cooldown_ms

    def add(self, held: Held, now_ms: int) -> None:
        """Count another alert."""
        self.count += 1
        self.strongest = self.strongest.stronger(held)
        self.seen_ms = max(self.seen_ms, now_ms)
        self.last_ms = max(self.last_ms, held.event_time_ms)

    def is_due(self) -> bool:
        """Whether this alert is to be published: it is the first to be, or its number is 10, 100, 1000 …"""
        digits = str(self.count)
        return self.opening_id is None or (self.count >= FIRST_UPDATE and digits == "1" + "0" * (len(digits) - 1))

    def told(self, state: Literal["opening", "update", "closing"], names: tuple[str, ...]) -> Episode:
        """What an alert says of it; names of the key's fields."""
        return Episode(
            state=state,
            key=dict(zip(names, self.group.shown, strict=True)),
            opening_id=self.opening_id or "",
            count=self.count,
            first_seen=event_time_text(self.first_ms),
            last_seen=event_time_text(self.last_ms),
            strongest_score=self.strongest.score,
        )

    def to_json(self) -> list[Any]:
        """A list for JSON: about 200 bytes; less than 1 kB with a Kafka key of KEY_BYTES and one long field."""
        fields = [self.seen_ms, self.first_ms, self.last_ms, self.count, self.opening_id]
        return [self.group.digest, list(self.group.shown), self.strongest.to_json(), *fields]

    @classmethod
    def from_json(cls, values: list[Any]) -> "OpenEpisode":
        """The inverse. Raises TypeError or ValueError where it is damaged."""
        digest, shown, strongest, *fields = values
        return cls(Group(digest, tuple(shown)), Held.from_json(strongest), *fields)


class Episodes:
    """The open episodes of one partition, the one that was quiet for longest first."""

    def __init__(self, cooldown_ms: int) -> None:
        self.cooldown_ms = cooldown_ms
        self._open: dict[str, OpenEpisode] = {}

    def __iter__(self) -> Iterator[OpenEpisode]:
        return iter(self._open.values())

    def add(self, group: Group, held: Held, now_ms: int) -> tuple[OpenEpisode, list[OpenEpisode]]:
        """Count an alert: the episode it belongs to, and those that are over by that."""
        over = []
        episode = self._open.pop(group.digest, None)
        if episode is not None and not episode.goes_on(now_ms, self.cooldown_ms):
            over.append(episode)
            episode = None
        if episode is None:
            if len(self._open) == MAX_OPEN:
                over.append(self._open.pop(next(iter(self._open))))
            time = held.event_time_ms if held.event_time_ms != NO_TIME else now_ms
            episode = OpenEpisode(group, held.lightened(), now_ms, time, time)
        self._open[group.digest] = episode  # the last one now
        episode.add(held.lightened(), now_ms)
        return episode, over

    def expire(self, now_ms: int) -> list[OpenEpisode]:
        """Take out the episodes that are over."""
        over = [episode for episode in self if not episode.goes_on(now_ms, self.cooldown_ms)]
        for episode in over:
            del self._open[episode.group.digest]
        return over

    def bounds(self) -> tuple[int, int] | None:
        """The span of times in which no episode is over, ends included; None while none is open."""
        if not self._open:
            return None
        firsts, lasts = zip(*(episode.bounds(self.cooldown_ms) for episode in self), strict=True)
        return max(firsts), min(lasts)

    def to_json(self) -> list[Any]:
        """At most MAX_OPEN lists, in order."""
        return [episode.to_json() for episode in self]

    def restore(self, values: list[Any]) -> None:
        """The inverse. Raises TypeError or ValueError where it is damaged."""
        self._open = {episode.group.digest: episode for episode in map(OpenEpisode.from_json, values)}


def group_of(row: Row, names: tuple[str, ...], redacted: frozenset[str] = frozenset()) -> Group:
    """The group of a record by its values of the key's fields; a missing one is a value like any other."""
    values = [value_of(row, name) for name in names]
    digest = blake2b(orjson.dumps(values, option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()
    public = dict(redact(row, redacted))
    return Group(digest, tuple(_shown(value_of(public, name)) for name in names))


def _shown(value: Any) -> Any:
    if isinstance(value, dict | list):
        value = orjson.dumps(value).decode()
    if isinstance(value, str) and len(value) > SHOWN_CHARACTERS:
        return value[:SHOWN_CHARACTERS] + "…"
    return value
