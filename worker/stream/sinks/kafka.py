"""The Kafka topics of alerts, dead letters and scores."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from typing_extensions import override

from worker.alerts.encode import CONTENT_TYPE, alert_headers, dead_letter_headers, encode_alert, encode_scores
from worker.records import Outcome, Outgoing, Partition, RawMessage
from worker.stream.sinks.base import Sink
from worker.stream.sinks.shorten import shortened


@dataclass(eq=False, kw_only=True)
class KafkaSink(Sink):
    """Outcomes as records of Kafka topics, alerts first. scores_topic: None = scores are not published.

    Its records belong to the commit: with exactly_once they have to be in the same transaction as the offsets, with
    at_least_once they are acknowledged right before it. So there is nothing that `flush` could do alone. The loop
    hands `records` to the delivery (worker.broker.base.Delivery), and discards them once they are committed.
    """

    alerts_topic: str
    dead_letter_topic: str
    scores_topic: str | None = None
    _records: list[tuple[Partition, Outgoing]] = field(default_factory=list, init=False)

    @property
    def records(self) -> list[Outgoing]:
        """What was added and neither committed nor discarded: the same objects at each attempt."""
        return [record for _, record in self._records]

    @override
    def add(self, outcome: Outcome) -> None:
        for alert in outcome.alerts:
            self._add(alert.message, self.alerts_topic, encode_alert(alert), alert_headers(alert))
        for dead in outcome.dead_letters:
            raw = dead.message.value
            # bytes(): the client takes no kind of them, such as an UnreadableValue. Of plain bytes it is no copy.
            value = None if raw is None else bytes(raw)
            self._add(dead.message, self.dead_letter_topic, value, dead_letter_headers(dead))
        if self.scores_topic is not None:
            for message, value in encode_scores(outcome.scores):
                self._add(message, self.scores_topic, value, (("content-type", CONTENT_TYPE),))

    def _add(self, message: RawMessage, topic: str, value: bytes | None, headers: Any) -> None:
        outgoing = Outgoing(topic, message.key, value, headers)
        self._records.append((Partition(message.topic, message.partition), outgoing))

    @override
    def flush(self, timeout_s: float) -> None:
        """Nothing: the delivery publishes `records`."""

    @override
    def discard(self, partitions: Collection[Partition]) -> None:
        self._records = [entry for entry in self._records if entry[0] not in partitions]

    def shorten(self, refused: Iterable[Outgoing], fits: Callable[[Outgoing], bool]) -> None:
        """Cuts those of `records` down that are too large, until they fit; SettingsError where one can't be."""
        too_large = {id(outgoing) for outgoing in refused}
        self._records = [
            (partition, shortened(outgoing, fits) if id(outgoing) in too_large else outgoing)
            for partition, outgoing in self._records
        ]
