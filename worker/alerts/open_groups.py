"""What a partition's grouping remembers: its clock, its open groups, its minute, and how they are saved."""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from operator import attrgetter
from typing import Any, Literal

import numpy as np
import orjson

from worker.alerts.explain import Exceedance
from worker.features.paths import value_of
from worker.formats.base import Row
from worker.records import NO_TIME, AlertGroup, Message, Partition, TimeArray
from worker.redaction import MASK, Redaction
from worker.texts import event_time_text

MAX_SHOWN_CHARACTERS = 64  # of each value of a group's key, for people; groups are told apart by the whole value
MAX_KEY_BYTES = 256  # a longer Kafka key is not remembered: the closing alert or summary of such a record has none
MAX_TIME_MS = 1 << 62  # of a time in a saved state: arithmetic with two of them still fits 64 bits

# What is saved of each: plain values, in this order.
_remembered = attrgetter(
    *("message.offset", "message.timestamp", "event_time_ms", "score", "threshold"),
    *("severity", "tail_probability", "model_version"),
)
_group_fields = attrgetter("digest", "shown", "seen_ms", "first_ms", "last_ms", "count", "opening_id")
_minute_fields = attrgetter("start_ms", "published", "rate_limited", "first_offset", "first_member")


class EventClock:
    """The time of a partition: the median of its last three event times, so that one wrong clock does not move it.

    Nothing older is remembered: two records after any disorder it is right again. Records without a time don't count.
    """

    def __init__(self) -> None:
        self.recent: tuple[int, int] | None = None  # the last two times, in offset order
        self.now = NO_TIME

    def advance(self, event_time_ms: TimeArray) -> TimeArray:
        """The time at each record: int64 (B,) for times (B,) in offset order; NO_TIME before there is any."""
        now = np.full(len(event_time_ms), self.now)
        known = np.flatnonzero(event_time_ms != NO_TIME)
        if not len(known):
            return now
        times = event_time_ms[known]
        row = np.concatenate([self.recent or (times[0], times[0]), times])
        first, second, third = row[:-2], row[1:-1], row[2:]
        median = np.maximum(np.minimum(first, second), np.minimum(np.maximum(first, second), third))
        now[known[0] :] = np.repeat(median, np.diff(known, append=len(now)))
        self.recent, self.now = (int(row[-2]), int(row[-1])), int(median[-1])
        return now

    def saved(self) -> list[Any]:
        """For JSON: `restore` takes it."""
        return [self.recent, self.now]

    def restore(self, saved: Sequence[Any]) -> None:
        """Go on from what was saved; ValueError where that is damaged."""
        recent, now = saved
        self.recent, self.now = recent and (_time(recent[0]), _time(recent[1])), _time(now)


@dataclass(slots=True)
class OpenGroup:
    """A group that the cooldown has not ended yet.

    strongest           the exceedance that the closing alert will name, without its record
    digest              hash of the key's values, by which alerts belong together
    shown               the key's values, cut for people
    seen_ms             the partition's clock at the latest alert, or that alert's own time, whichever is later
    first_ms, last_ms   event times of the first and the latest alert
    count               alerts so far
    opening_id          `alert_id` of the opening alert; None until it is published
    """

    strongest: Exceedance
    digest: str
    shown: tuple[Any, ...]
    seen_ms: int
    first_ms: int
    last_ms: int
    count: int = 0
    opening_id: str | None = None

    def as_of_now(self, state: Literal["opening", "update", "closing"], names: tuple[str, ...]) -> AlertGroup:
        """What an alert says of it. names: the fields of the key."""
        key = dict(zip(names, self.shown, strict=True))
        first_seen, last_seen = event_time_text(self.first_ms), event_time_text(self.last_ms)
        return AlertGroup(
            state, key, self.opening_id or "", self.count, first_seen, last_seen, strongest_score=self.strongest.score
        )

    def saved(self) -> list[Any]:
        """For JSON: `restored` takes it."""
        return [_saved(self.strongest), *_group_fields(self)]

    @classmethod
    def restored(cls, saved: Sequence[Any], partition: Partition, names: tuple[str, ...]) -> "OpenGroup":
        """The group that was saved; ValueError where that is damaged."""
        strongest, digest, shown, seen_ms, first_ms, last_ms, count, opening_id = saved
        return cls(
            _restored(strongest, partition),
            require(digest, str),
            tuple(require(shown, list, len(shown) == len(names))),
            _time(seen_ms),
            _time(first_ms),
            _time(last_ms),
            require(count, int, count >= 0),
            opening_id and require(opening_id, str),
        )


@dataclass(slots=True)
class Minute:
    """A minute of event time, its alerts, and what was over the rate limit in it.

    strongest      of the exceedances over the limit, without its record
    start_ms       when the minute began, milliseconds since the epoch
    first_offset   offset of the first exceedance over the limit
    first_member   its place among the records that were in one, counted from 1; 0 where it was no such
    """

    strongest: Exceedance | None
    start_ms: int
    published: int = 0
    rate_limited: int = 0
    first_offset: int = 0
    first_member: int = 0

    def saved(self) -> list[Any]:
        """For JSON: `restored` takes it."""
        return [self.strongest and _saved(self.strongest), *_minute_fields(self)]

    @classmethod
    def restored(cls, saved: Sequence[Any], partition: Partition) -> "Minute":
        """The minute that was saved; ValueError where that is damaged."""
        strongest, start_ms, *counts = saved
        counts = [require(count, int, count >= 0) for count in counts]
        return cls(strongest and _restored(strongest, partition), _time(start_ms), *counts)


def remember(strongest: Exceedance | None, other: Exceedance, redaction: Redaction) -> Exceedance:
    """The one with the higher score; of two models, whose scores don't compare, the `other`, newer one.

    It is remembered without its record, with its key masked and without a long one: as it would be after a restart,
    which changes nothing.
    """
    if strongest is not None and strongest.model_version == other.model_version and strongest.score >= other.score:
        return strongest
    message = other.message
    key = redaction.key(message.key, other.record)
    key = key if key is None or len(key) <= MAX_KEY_BYTES else None
    # The member is not saved with the rest: the closing alert of a record that wraps others names that record.
    bare = Message(message.topic, message.partition, message.offset, message.timestamp, key, None)
    return replace(other, row=-1, message=bare, record={})


def group_key(record: Row, names: tuple[str, ...], redaction: Redaction) -> tuple[str, tuple[Any, ...]]:
    """A digest of the values of these fields, and the values cut for people; a missing one is a value, too."""
    values = orjson.dumps([value_of(record, name) for name in names], option=orjson.OPT_SORT_KEYS)
    digest = redaction.group_digest(values) if redaction else blake2b(values, digest_size=16).hexdigest()
    public = redaction.record(record)
    shown = []
    for name in names:
        value = MASK if redaction.covers(name) else value_of(public, name)
        text = orjson.dumps(value).decode() if isinstance(value, dict | list) else value
        is_long = isinstance(text, str) and len(text) > MAX_SHOWN_CHARACTERS
        shown.append(f"{text[:MAX_SHOWN_CHARACTERS]}…" if is_long else text)
    return digest, tuple(shown)


def require(value: Any, kind: Any, is_sound: bool = True) -> Any:  # reads as a sentence
    """A saved value that is one of this kind; ValueError where it is not, or not sound."""
    if not isinstance(value, kind) or isinstance(value, bool) or not is_sound:
        raise ValueError(f"{value!r:.40} is out of place")
    return value


def _time(value: Any) -> int:
    return int(require(value, int, -MAX_TIME_MS <= value <= MAX_TIME_MS))


def _restored(saved: Sequence[Any], partition: Partition) -> Exceedance:
    key, offset, timestamp, event_time_ms, score, threshold, severity, tail_probability, model_version = saved
    key = None if key is None else base64.b64decode(key)
    return Exceedance(
        row=-1,
        message=Message(*partition, require(offset, int, offset >= 0), _time(timestamp), key, None),
        record={},
        event_time_ms=_time(event_time_ms),
        score=require(score, float | int, math.isfinite(score)),
        threshold=require(threshold, float | int, math.isfinite(threshold)),
        severity=require(severity, str),
        tail_probability=None if tail_probability is None else require(tail_probability, float | int),
        model_version=require(model_version, str),
    )


def _saved(one: Exceedance) -> list[Any]:
    """For JSON: about 200 bytes, and the Kafka key."""
    return [None if one.message.key is None else base64.b64encode(one.message.key).decode(), *_remembered(one)]
