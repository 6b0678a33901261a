"""What flows through the worker: raw messages in, an outcome per batch out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from worker.errors import ErrorCode

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
TimeArray = NDArray[np.int64]
Headers = Sequence[tuple[str, bytes | None]]

NO_TIME = -1  # event time or timestamp of a record without one, where milliseconds are expected


class Partition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


class RawMessage(Protocol):
    """A record as the broker hands it over; kafka-python's ConsumerRecord is one without conversion."""

    @property
    def topic(self) -> str:
        """The topic it was read from."""

    @property
    def partition(self) -> int:
        """The partition of that topic."""

    @property
    def offset(self) -> int:
        """Its position in the partition."""

    @property
    def timestamp(self) -> int:
        """Milliseconds since the epoch, UTC; NO_TIME where the record has none."""

    @property
    def key(self) -> bytes | None:
        """What the record was partitioned by; None where it has no key."""

    @property
    def value(self) -> bytes | None:
        """The payload; None is a tombstone."""

    @property
    def headers(self) -> Headers:
        """Names and values; a name can occur twice."""


def member_of(message: RawMessage) -> int | None:
    """The place of a record among those that its Kafka record wraps; None where it is all of it."""
    member: int | None = getattr(message, "member", None)
    return member


def place_of(message: RawMessage) -> tuple[int, ...]:
    """What tells a record from the others of its partition: its offset, and its place in that Kafka record."""
    member = member_of(message)
    return (message.offset,) if member is None else (message.offset, member)


class UnreadableValue(bytes):
    """The value of a record that the Kafka client could not read: its bytes as they stood in the log. detail: why."""

    detail: str

    def __new__(cls, raw: bytes, detail: str) -> "UnreadableValue":  # noqa: D102  # the class says it
        value = super().__new__(cls, raw)
        value.detail = detail
        return value


@dataclass(frozen=True, slots=True)
class Message:
    """A RawMessage that did not come from a broker: from a file, remembered by an alert group, made by a test.

    member   its place among the records that its Kafka record wraps, where that was unfolded
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    member: int | None = None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record to publish. partition: None = by its key, in turn without one."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    partition: int | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that can't be scored, and why."""

    message: RawMessage
    error_code: ErrorCode
    detail: str


@dataclass(frozen=True, slots=True)
class Scores:
    """The scored records of a batch, column by column, in input order.

    messages        length B
    score           float64 (B,)
    threshold       float64 (B,), NaN before there is one
    alert           bool (B,), by the threshold alone
    event_time_ms   int64 (B,), UTC
    model_version   the version that scored them
    latent          float32 (B, L), the latent values of the records; None where the model does not give them
    sources         the same messages as they may leave the worker, keys masked, where fields are redacted; else None
    """

    messages: Sequence[RawMessage]
    score: FloatArray
    threshold: FloatArray
    alert: BoolArray
    event_time_ms: TimeArray
    model_version: str
    latent: NDArray[np.float32] | None = None
    sources: Sequence[RawMessage] | None = None


@dataclass(frozen=True, slots=True)
class Reason:
    """One field of an explanation, in the record's own units.

    observed, expected   what the record has, what the model would have expected beside the other fields
    share                the field's part of the score's excess; the shares of all fields add up to 1
    typical              of a number: low and high end of the range that holds 98% of the calibration rows
    note                 such as "never seen before"
    """

    field: str
    observed: Any
    expected: Any
    share: float
    typical: tuple[Any, Any] | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class AlertGroup:
    """What an alert says of its group: alerts with the same key, each within the cooldown of the one before it.

    key                     values of the fields that alerts are grouped by, long ones cut
    opening_id              `alert_id` of the opening alert
    count                   alerts so far
    first_seen, last_seen   event times, RFC 3339, UTC
    strongest_score         of the newest model that took part
    """

    state: Literal["opening", "update", "closing"]
    key: Mapping[str, Any]
    opening_id: str
    count: int
    first_seen: str | None
    last_seen: str | None
    strongest_score: float


@dataclass(frozen=True, slots=True)
class Summary:
    """The alerts of one minute of event time that were over the rate limit. minute: its start, RFC 3339, UTC."""

    minute: str | None
    rate_limited: int


@dataclass(slots=True)  # not frozen: in an alert storm, a second object for the explanation costs 10% of all
class Alert:
    """An exceedance, ready to publish; `worker.alerts.encode` encodes it.

    The closing alert of a `group` and a `summary` speak of several records and name the strongest one, without its
    content and explanation.
    """

    alert_id: str
    detected_at: str
    event_time: str | None
    message: RawMessage
    score: float
    threshold: float
    severity: str
    model_version: str
    tail_probability: float | None = None
    explanation: tuple[Reason, ...] = ()
    ids: Mapping[str, Any] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)
    group: AlertGroup | None = None
    summary: Summary | None = None

    @property
    def of_one_record(self) -> bool:
        """Whether it says that this record is above its threshold: neither a closing alert nor a summary."""
        return self.summary is None and (self.group is None or self.group.state != "closing")


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that a batch leads to. Every input message is scored, dead-lettered or skipped (a tombstone), exactly once.

    Every exceedance has an alert of its own, or is counted once: silenced, grouped or rate limited.

    next_offsets   to commit once all of it is acknowledged
    unexpected     values of scored records that their field can't read, by field
    silenced       exceedances by the name of the silence
    grouped        exceedances that only count in an open group
    rate_limited   exceedances beyond the rate limit, to be named in a summary
    """

    scores: Scores
    alerts: Sequence[Alert]
    dead_letters: Sequence[DeadLetter]
    skipped: int
    next_offsets: Mapping[Partition, int] = field(default_factory=dict)
    unexpected: Mapping[str, int] = field(default_factory=dict)
    silenced: Mapping[str, int] = field(default_factory=dict)
    grouped: int = 0
    rate_limited: int = 0

    @property
    def public(self) -> "Outcome":
        """The same for receivers outside of the worker: nothing of it holds a redacted value."""
        scores = self.scores
        if scores.sources is None:
            return self
        return replace(self, scores=replace(scores, messages=scores.sources))
