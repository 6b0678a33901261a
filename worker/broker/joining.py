"""How a consumer stays in its group, where its client forgets to join or the broker is wrong about it."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from kafka import TopicPartition
from kafka.structs import MemberState

from worker.broker.client import ASK_TIMEOUT_MS
from worker.broker.contact import Contact
from worker.errors import Fenced

_DISPLACED_S: Final = 5.0  # beyond the session timeout
_AFTER_OUTAGE_S: Final = 60.0  # so long a broker that came back may be wrong about who has a name


class Joining:
    """What is asked of a client's coordinator at each poll, in the thread that polls.

    client    a kafka-python consumer
    contact   knows of outages
    """

    def __init__(self, client: Any, contact: Contact) -> None:
        # There is no public way to any of it.
        self._coordinator = client._coordinator  # noqa: SLF001
        self._is_static = client.config["group_instance_id"] is not None
        self._displaced_s = client.config["session_timeout_ms"] / 1000 + _DISPLACED_S
        self._contact = contact
        self._was_member = False
        self._displaced_since: float | None = None
        self._took_name_at = -math.inf
        self._shared_counts: Mapping[str, int] | None = None

    def keep(self) -> None:
        """Makes the client finish a rebalance that outlasts one poll, and notice that its heartbeats have ended.

        kafka-python 3.0.12 rejoins when a topic's partitions change, and forgets why as soon as the group's answer
        is there: if that comes between two polls, the assignment is never taken over, heartbeats stay off and poll
        never returns anything again (seen in 1 of 10 first joins with polls of 100 ms). After a heartbeat that was
        answered with "another member has your instance id" they stay off, too, and nothing else happens. Asking again
        is harmless, with the answer kept: see _Join.
        """
        coordinator = self._coordinator
        with coordinator._lock:  # noqa: SLF001
            silent = coordinator.state is MemberState.STABLE and not coordinator._heartbeat_enabled  # noqa: SLF001
        if coordinator.state is MemberState.REBALANCING and coordinator._join_task is not None:  # noqa: SLF001
            coordinator._join_task = _Join(coordinator._join_task)  # noqa: SLF001
        if silent or coordinator.state is MemberState.REBALANCING:
            coordinator.request_rejoin()
        elif coordinator.state is MemberState.STABLE:
            self._displaced_since, self._was_member = None, True

    def follow(self, partition_counts: Callable[[], Mapping[str, int]]) -> None:
        """Has partitions that were added shared out, also where the group's leader does not know that it is the leader.

        A static member that starts again within its session gets its partitions back without a rebalance. If it was
        the leader, it still is, and is not told (KIP-814; the client's request to join is older), so that nobody
        watches the topics. Whoever joins again gets the same partitions, and the leader that does has all shared out
        anew. So a static member joins again where it sees other partitions than before, or the first ones, and nobody
        has begun some of them; where all have their owner, a restart stays without a rebalance.

        partition_counts   of the topics that are read, as the client knows them now
        """
        coordinator = self._coordinator
        if not self._is_static or coordinator.state is not MemberState.STABLE:
            return
        counts = partition_counts()
        if counts != self._shared_counts and not coordinator._is_leader:  # noqa: SLF001  # that one sees to it itself
            every = [TopicPartition(topic, number) for topic, count in counts.items() for number in range(count)]
            if len(coordinator.fetch_committed_offsets(every, ASK_TIMEOUT_MS)) < len(every):
                coordinator.request_rejoin()
        self._shared_counts = counts

    def require_own_name(self) -> None:
        """The broker says that another member has this one's instance id. Raises Fenced once it has kept saying so.

        A broker that has just come back says so of the only one, for as long as it takes an older state of the group
        for the current one (CommittedWatermark). The other member of that time is dead then, and the broker gives it
        up after the session timeout; one that is alive stays. Apache Kafka 4.3.1 can also give the name to an attempt
        of this very process and answer that it failed ("out of sync with the underlying log"); so after an outage
        this one takes its name again, once. One that never was a member is the newest with this name: it takes it,
        whatever became of the answer to its first attempt.
        """
        now = time.monotonic()
        if self._was_member:
            self._displaced_since = self._displaced_since or now
            if now - self._displaced_since <= self._displaced_s:
                return
            outage = now - self._contact.since_outage_s()
            if outage < max(self._displaced_since - _AFTER_OUTAGE_S, self._took_name_at):
                raise Fenced("another process has joined the group with this [instance_id]: this one ends")
            self._took_name_at, self._displaced_since = now, None
        self._coordinator.reset_generation()


class _Join:
    """A request to join that is under way, in the place of the client's own future of it.

    The client throws away an answer that came between two polls and asks anew, and a leader that does so has the whole
    group share out again: polls that are short beside the time between them can go on like that for ever. This one is
    never done for it, so that the next poll waits for it, and has the answer at once.
    """

    is_done: Final = False

    def __init__(self, future: Any) -> None:
        self.add_callback, self.add_errback = future.add_callback, future.add_errback
