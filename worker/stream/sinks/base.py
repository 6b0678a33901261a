"""Where outcomes go: what a receiver of alerts has to do. A new one is one file with one registration.

    class Webhook(Sink): ...

    SINKS.register("webhook", Webhook)

`SINKS` holds the receivers that the settings can name beside the Kafka topics (worker.stream.sinks.kafka).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from typing import Final

from worker.records import Outcome, Partition
from worker.registry import Registry


class Sink(ABC):
    """A receiver of outcomes. Override `add`, `flush` and `discard`; `close` where there is something to close.

    The loop calls all four on its own thread, for each batch in this order:

        add      once, when the batch is scored
        flush    until it returns; then the batch is published to Kafka and its offsets are committed
        discard  instead of flush, for partitions that went to another member or whose batch is read again

    So with either delivery guarantee an outcome reaches a sink at least once. Within one process a batch that was
    flushed is not flushed again, however often its delivery to Kafka or another sink's flush is repeated. It is flushed
    again when its records are read again, which the sink can't tell from a new batch: after a crash or a rebalance
    between flush and commit, or when Kafka did not take the batch in several attempts and it is divided. A receiver
    that must not act twice compares `alert_id`, which is the same each time. Only the Kafka topics take part in the
    transaction of exactly_once: no other receiver can be committed together with the offsets.
    """

    @abstractmethod
    def add(self, outcome: Outcome) -> None:
        """Keep what this sink sends of an outcome. Must not block and must not raise.

        Keep it by partition, for `discard`: the partition of an alert is that of its `message`.
        """

    @abstractmethod
    def flush(self, timeout_s: float) -> None:
        """Send all that was added, and return once the receiver has it; offsets are committed after that.

        May block for `timeout_s`; nothing is polled meanwhile, and beyond max_poll_interval_ms the group gives this
        member up. Raises TransientError where another attempt can help: the loop waits, keeps its place in the group,
        and calls again with nothing added in between; what was sent already and would be sent twice must have been
        taken out of what is kept. Raises FatalError where the worker has to stop, its offsets uncommitted.
        """

    @abstractmethod
    def discard(self, partitions: Collection[Partition]) -> None:
        """Forget what was added of these partitions and not flushed. Must not block and must not raise."""

    def close(self, timeout_s: float) -> None:  # noqa: B027  # there is often nothing to close
        """Let go of connections within about `timeout_s`; what was not flushed is read again. Must not raise."""


MakeSink = Callable[[], Sink]
"""Builds a sink, once for each process; takes no arguments, so it brings its address and secrets along."""

SINKS: Final[Registry[MakeSink]] = Registry("sink")
