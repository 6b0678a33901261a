"""Which of a partition's alerts are published: bursts collapse into episodes, and a rate cap bounds the rest.

Event time drives everything and all state is the partition's own: the same records give the same alerts whatever the
batches, and a restart in the middle changes nothing. No count is lost: every record above its threshold has an alert of
its own, or is counted as grouped or rate_limited.

Times. An episode ends when neither the partition's clock nor an alert of its own key shows a time within the cooldown;
its closing alert goes out with the record that shows it. An episode of a single alert ends without a closing: there is
nothing to add. Records up to a day late count as of now. Without any event time, alerts stand alone.

State. One JSON object, at most MAX_OPEN episodes of about 200 bytes each (50 kB); nothing at all with grouping off.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from worker.alerts.encode import alert_id, derived_id
from worker.alerts.event_clock import EventClock
from worker.alerts.groups import Episodes, Group, Held, OpenEpisode
from worker.alerts.rate_limit import RateCap
from worker.records import Episode, Partition, Summary
from worker.thresholds.partition import NO_TIME, TimeArray

_NEVER = 1 << 62


@dataclass(frozen=True, slots=True)
class GroupingOptions:
    """All of it is off by default.

    group_by       fields whose values make alerts the same; none = each alert stands alone
    cooldown_s      quiet time that ends an episode, seconds of event time
    max_per_minute  alerts of a partition in a minute of event time, closings and summaries apart; 0 = no cap
    """

    group_by: tuple[str, ...] = ()
    cooldown_s: float = 300.0
    max_per_minute: int = 0

    @property
    def active(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.group_by) or self.max_per_minute > 0


class Candidate(NamedTuple):
    """A record above its threshold. position: its place among the partition's scored records of the batch."""

    position: int
    held: Held
    group: Group | None = None


class Notice(NamedTuple):
    """An alert to publish: a candidate's own, or a closing or summary that the record at `position` has caused."""

    position: int
    alert_id: str
    held: Held
    episode: Episode | None = None
    summary: Summary | None = None


class Sifted(NamedTuple):
    """Notices by position; candidates without one are in one of the counts."""

    notices: list[Notice]
    grouped: int = 0
    rate_limited: int = 0


class AlertGrouping:
    """Of one partition."""

    def __init__(self, partition: Partition, options: GroupingOptions) -> None:
        self._partition = partition
        self._names = options.group_by
        self._clock = EventClock()
        self._episodes = Episodes(round(options.cooldown_s * 1000))
        self._cap = RateCap(options.max_per_minute)
        self._span = (-_NEVER, _NEVER)  # times at which surely nothing ends
        self._notices: list[Notice] = []
        self._collapsed = self._withheld = 0

    def sift(self, event_time_ms: TimeArray, candidates: Sequence[Candidate]) -> Sifted:
        """What becomes of the candidates, ascending by position; event_time_ms of all scored records, int64 (B,)."""
        now = self._clock.advance(event_time_ms)
        start = 0
        for candidate in candidates:
            end = candidate.position + 1
            self._pass(now, start, end)
            self._take(candidate, int(now[candidate.position]))
            start = end
        self._pass(now, start, len(now))
        sifted = Sifted(self._notices, self._collapsed, self._withheld)
        self._notices, self._collapsed, self._withheld = [], 0, 0
        return sifted

    def _pass(self, now: TimeArray, start: int, end: int) -> None:
        """Let the time go on from record to record, up to `end`, and end what it ends."""
        while start < end:
            part = now[start:end]
            outside = (part < self._span[0]) | (part > self._span[1])
            at = int(np.argmax(outside))
            if not outside[at]:
                return
            self._expire(start + at, int(part[at]))
            start += at + 1

    def _expire(self, position: int, now_ms: int) -> None:
        for episode in self._episodes.expire(now_ms):
            self._close(episode, position)
        found = self._cap.expire(now_ms)
        if found is not None:
            identity = derived_id(self._id(found.first), "summary")
            self._notices.append(Notice(position, identity, found.strongest, summary=found.summary))
        self._span = (-_NEVER, _NEVER)
        for bounds in (self._episodes.bounds(), self._cap.bounds()):
            self._narrow(bounds)

    def _narrow(self, bounds: tuple[int, int] | None) -> None:
        if bounds is not None:
            self._span = max(self._span[0], bounds[0]), min(self._span[1], bounds[1])

    def _take(self, candidate: Candidate, now_ms: int) -> None:
        if now_ms == NO_TIME:
            self._notices.append(Notice(candidate.position, self._id(candidate.held.offset), candidate.held))
            return
        episode = None
        if candidate.group is not None:
            seen_ms = max(now_ms, candidate.held.event_time_ms)
            episode, over = self._episodes.add(candidate.group, candidate.held, seen_ms)
            for ended in over:
                self._close(ended, candidate.position)
            self._narrow(episode.bounds(self._episodes.cooldown_ms))
            if not episode.is_due():
                self._collapsed += 1
                return
        admitted = self._cap.admit(candidate.held, now_ms)
        self._narrow(self._cap.bounds())
        if admitted:
            self._publish(candidate, episode)
        else:
            self._withheld += 1

    def _publish(self, candidate: Candidate, episode: OpenEpisode | None) -> None:
        identity = self._id(candidate.held.offset)
        told = None
        if episode is not None:
            state: Any = "update" if episode.opening_id else "opening"
            episode.opening_id = episode.opening_id or identity
            told = episode.told(state, self._names)
        self._notices.append(Notice(candidate.position, identity, candidate.held, episode=told))

    def _close(self, episode: OpenEpisode, position: int) -> None:
        if episode.opening_id is not None and episode.count > 1:
            identity = derived_id(episode.opening_id, "closing")
            told = episode.told("closing", self._names)
            self._notices.append(Notice(position, identity, episode.strongest, episode=told))

    def _id(self, offset: int) -> str:
        return alert_id(self._partition.topic, self._partition.partition, offset)

    def state(self) -> dict[str, Any]:
        """Plain data for JSON, from which a restored object goes on exactly as this one."""
        return {
            "group_by": list(self._names),
            "clock": self._clock.state(),
            "episodes": self._episodes.to_json(),
            "cap": self._cap.to_json(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state`; without its episodes if they are of another key. ValueError where it is damaged."""
        try:
            self._clock.restore(state["clock"])
            if state["group_by"] == list(self._names):
                self._episodes.restore(state["episodes"])
            self._cap.restore(state["cap"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"saved alert episodes are damaged: {error!r}") from error
        self._span = (_NEVER, -_NEVER)  # looked at with the next record
