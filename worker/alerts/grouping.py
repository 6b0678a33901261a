"""Which exceedances of a partition are published: bursts become alert groups, and a rate limit bounds the rest.

Event time drives everything, and all state is the partition's own: the same records give the same alerts whatever the
batches, and a restart in the middle changes nothing. Each exceedance has an alert of its own, or is counted as grouped
or as rate limited.

Times. A group ends when neither the partition's clock nor an exceedance of its own shows a time within the cooldown;
its closing alert goes out with the record that shows it. A group of a single alert ends without a closing, which would
add nothing. Records up to a day late count as of now. Without any event time, alerts stand alone.

State. One JSON object, at most MAX_OPEN groups of about 200 bytes each (50 kB); nothing at all while this is off.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.alerts.encode import alert_id
from worker.alerts.explain import Exceedance
from worker.alerts.open_groups import EventClock, Minute, OpenGroup, group_key, remember, require
from worker.records import NO_TIME, Alert, AlertGroup, Partition, Summary, TimeArray, member_of, place_of
from worker.redaction import Redaction
from worker.texts import event_time_text

MAX_OPEN = 256  # groups that one partition keeps open; one more ends the one that was quiet for the longest time
MINUTE_MS = 60_000
LATE_MS = 86_400_000  # how late a record may be and still belong to an open group; further off is another clock's
ALWAYS = (-(1 << 62), 1 << 62)  # a span: its first and its last time, milliseconds, both included


@dataclass(frozen=True, slots=True)
class GroupingOptions:
    """All of it is off by default.

    group_by         fields whose values make alerts one group; none: each alert stands alone
    cooldown_s       quiet time that ends a group, seconds of event time
    max_per_minute   alerts of a partition in a minute of event time, closings and summaries apart; 0: no limit
    """

    group_by: tuple[str, ...] = ()
    cooldown_s: float = 300.0
    max_per_minute: int = 0

    @property
    def active(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.group_by) or self.max_per_minute > 0


@dataclass(slots=True)
class Published:
    """The alerts of one batch as they come up, and the counts of exceedances that have none.

    event_time_ms   of the batch's scored records, int64 (B,)
    redaction       masks what no alert may show
    detected_at     RFC 3339, UTC; None: the event time of the record that caused the alert
    alerts          with the row of the record that caused each; those of one record still lack their explanation
    """

    event_time_ms: TimeArray
    redaction: Redaction
    detected_at: str | None
    alerts: list[tuple[int, Alert]] = field(default_factory=list)
    grouped: int = 0
    rate_limited: int = 0

    def add(
        self,
        row: int,
        identity: str,
        of: Exceedance,
        group: AlertGroup | None = None,
        summary: Summary | None = None,
        severity: str | None = None,
    ) -> None:
        """Publish an alert of an exceedance that the record in this row has caused. severity: None = its own."""
        alert = Alert(
            alert_id=identity,
            detected_at=self.detected_at or event_time_text(int(self.event_time_ms[row])) or "",
            event_time=event_time_text(of.event_time_ms),
            message=of.message,
            score=of.score,
            threshold=of.threshold,
            severity=of.severity if severity is None else severity,
            model_version=of.model_version,
            tail_probability=of.tail_probability,
            group=group,
            summary=summary,
        )
        self.alerts.append((row, alert))


class PartitionGrouping:
    """The open groups and the rate limit of one partition.

    Why a span. A group or a minute ends at the record whose time says so, not at the next exceedance: so the time of
    every record counts. To ask 256 open groups about each of them would cost more than to score them. Therefore
    `_span` holds the times at which surely nothing ends, and one comparison of arrays skips the records within it.
    A span that is too narrow costs a vain look. One that is too wide would close a group with a later record, and after
    a restart, which looks anew, with another one: alerts would depend on when the worker restarted. So everything that
    is added narrows the span, and only `_expire`, which asks all of them, widens it.
    """

    def __init__(self, partition: Partition, options: GroupingOptions, *, topic_id: str | None = None) -> None:
        self._partition = partition
        # With an id, its records are told from those that an earlier topic of the same name had at the same offsets.
        self._origin = partition if topic_id is None else (partition.topic, topic_id, partition.partition)
        self._names = options.group_by
        self._cooldown_ms = round(options.cooldown_s * 1000)
        self._max_per_minute = options.max_per_minute
        self._active = options.active
        self._clock = EventClock()
        self._open: dict[str, OpenGroup] = {}  # by digest; the one that was quiet for the longest time first
        self._minute: Minute | None = None
        self._span = ALWAYS

    def add(self, exceedances: Sequence[Exceedance], rows: NDArray[np.int64], published: Published) -> None:
        """Let the partition's records of a batch pass, and publish what comes of its exceedances.

        exceedances   in offset order
        rows          positions of the partition's scored records in the batch, int64 (P,), ascending
        """
        if not self._active:
            for exceedance in exceedances:
                published.add(exceedance.row, alert_id(*self._origin, *place_of(exceedance.message)), exceedance)
            return
        now = self._clock.advance(published.event_time_ms[rows])
        start = 0
        for exceedance in exceedances:
            position = int(np.searchsorted(rows, exceedance.row))
            self._pass(now, rows, start, position + 1, published)
            start = position + 1
            now_ms = int(now[position])
            group = shown = severity = None
            if now_ms != NO_TIME and self._names:
                group = self._group_of(exceedance, now_ms, published)
                if group.opening_id is not None and str(group.count).strip("0") != "1":  # updates at 10, 100, 1000 …
                    published.grouped += 1
                    continue
            if now_ms != NO_TIME and self._is_over_limit(exceedance, now_ms, published.redaction):
                published.rate_limited += 1
                continue
            identity = alert_id(*self._origin, *place_of(exceedance.message))
            if group is not None:
                is_opening = group.opening_id is None
                group.opening_id = group.opening_id or identity
                shown = group.as_of_now("opening" if is_opening else "update", self._names)
                severity = group.strongest.severity
            published.add(exceedance.row, identity, exceedance, group=shown, severity=severity)
        self._pass(now, rows, start, len(now), published)

    def _pass(self, now: TimeArray, rows: NDArray[np.int64], start: int, end: int, published: Published) -> None:
        """Let the time go on from record to record, up to `end`, and end what it ends."""
        while start < end:
            outside = (now[start:end] < self._span[0]) | (now[start:end] > self._span[1])
            first = int(np.argmax(outside))
            if not outside[first]:
                return
            self._expire(int(now[start + first]), int(rows[start + first]), published)
            start += first + 1

    def _expire(self, now_ms: int, row: int, published: Published) -> None:
        """End the groups and the minute that are over, and find the span anew from those that go on."""
        self._span = ALWAYS
        for group in list(self._open.values()):
            if not self._lasts(now_ms, group.seen_ms, self._cooldown_ms):
                self._close(group, row, published)
        minute = self._minute
        if minute is not None and not self._lasts(now_ms, minute.start_ms, MINUTE_MS - 1):
            self._minute = None
            if minute.strongest is not None:
                member = (minute.first_member - 1,) if minute.first_member else ()
                identity = alert_id(alert_id(*self._origin, minute.first_offset, *member), "summary")
                summary = Summary(event_time_text(minute.start_ms), minute.rate_limited)
                published.add(row, identity, minute.strongest, summary=summary)

    def _lasts(self, now_ms: int, since_ms: int, length_ms: int) -> bool:
        """Whether what was last seen, or began, at `since_ms` goes on now; if so, the span is narrowed to its times."""
        first, last = since_ms - LATE_MS, since_ms + length_ms
        if not first <= now_ms <= last:
            return False
        self._span = max(self._span[0], first), min(self._span[1], last)
        return True

    def _group_of(self, exceedance: Exceedance, now_ms: int, published: Published) -> OpenGroup:
        """The group that this exceedance belongs to, with it counted."""
        redaction = published.redaction
        digest, shown = group_key(exceedance.record, self._names, redaction)
        seen_ms = max(now_ms, exceedance.event_time_ms)
        group = self._open.get(digest)
        if group is not None and not self._lasts(seen_ms, group.seen_ms, self._cooldown_ms):
            self._close(group, exceedance.row, published)
            group = None
        if group is None:
            if len(self._open) == MAX_OPEN:
                self._close(next(iter(self._open.values())), exceedance.row, published)
            time = exceedance.event_time_ms if exceedance.event_time_ms != NO_TIME else seen_ms
            group = OpenGroup(remember(None, exceedance, redaction), digest, shown, seen_ms, time, time)
        group.count += 1
        group.strongest = remember(group.strongest, exceedance, redaction)
        group.seen_ms, group.last_ms = max(group.seen_ms, seen_ms), max(group.last_ms, exceedance.event_time_ms)
        self._open.pop(digest, None)
        self._open[digest] = group  # the last one now
        self._lasts(group.seen_ms, group.seen_ms, self._cooldown_ms)
        return group

    def _close(self, group: OpenGroup, row: int, published: Published) -> None:
        del self._open[group.digest]
        if group.opening_id is not None and group.count > 1:
            identity = alert_id(group.opening_id, "closing")
            published.add(row, identity, group.strongest, group=group.as_of_now("closing", self._names))

    def _is_over_limit(self, exceedance: Exceedance, now_ms: int, redaction: Redaction) -> bool:
        """Count an alert in its minute, which `_expire` was asked about before; whether it is one too many."""
        if not self._max_per_minute:
            return False
        minute = self._minute = self._minute or Minute(None, now_ms // MINUTE_MS * MINUTE_MS)
        self._lasts(minute.start_ms, minute.start_ms, MINUTE_MS - 1)
        if minute.published < self._max_per_minute:
            minute.published += 1
            return False
        if minute.strongest is None:
            member = member_of(exceedance.message)
            minute.first_offset, minute.first_member = exceedance.message.offset, 0 if member is None else member + 1
        minute.strongest = remember(minute.strongest, exceedance, redaction)
        minute.rate_limited += 1
        return True

    def state(self, mark: str = "") -> dict[str, Any]:
        """Plain data for JSON, from which a restored object goes on exactly as this one. mark: of its redaction."""
        minute = self._minute
        return {
            **({"redaction": mark} if mark else {}),
            "group_by": list(self._names),
            "clock": self._clock.saved(),
            "groups": [group.saved() for group in self._open.values()],
            "minute": minute and minute.saved(),
        }

    def restore(self, state: dict[str, Any], mark: str = "") -> None:
        """Continue from `state`; without its groups if they are of another key, and without all that it remembers of
        records if that was masked otherwise than now, or not at all. ValueError where it is damaged."""
        try:
            self._clock.restore(state["clock"])
            is_masked = not mark or state.get("redaction") == mark
            if state["group_by"] == list(self._names) and is_masked:
                for saved in require(state["groups"], list, len(state["groups"]) <= MAX_OPEN):
                    group = OpenGroup.restored(saved, self._partition, self._names)
                    self._open[group.digest] = group
            if state["minute"] is not None and is_masked:
                self._minute = Minute.restored(state["minute"], self._partition)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"saved alert groups are damaged: {error!r}") from error
        self._span = ALWAYS[::-1]  # the next record asks all of them
