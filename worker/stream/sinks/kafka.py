"""The Kafka topics of alerts, dead letters and scores."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
from typing_extensions import override

from worker.alerts.encode import CONTENT_TYPE, alert_headers, dead_letter_headers, encode_alert, encode_scores
from worker.errors import DeliveryError
from worker.records import Outcome, Outgoing, Partition, RawMessage
from worker.stream.sinks.base import Sink

MAX_SHORT_TEXT = 200  # characters that a shortened alert keeps of each text
TRUNCATED = "truncated"


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
            self._add(dead.message, self.dead_letter_topic, dead.message.value, dead_letter_headers(dead))
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

    def shorten(self, refused: Iterable[Outgoing]) -> None:
        """Cuts those of `records` down that are too large; DeliveryError where one can't be cut any further."""
        too_large = {id(outgoing) for outgoing in refused}
        self._records = [(key, self._shortened(out) if id(out) in too_large else out) for key, out in self._records]

    def _shortened(self, outgoing: Outgoing) -> Outgoing:
        """The record cut down, and marked with a `truncated` header.

        An alert loses the record and long texts of its explanation; a dead letter keeps the first half of its bytes
        (cut again if that is still too much); whatever has nothing left but a long key loses the key.
        """
        if outgoing.topic == self.alerts_topic and outgoing.value and dict(outgoing.headers).get(TRUNCATED) is None:
            short = replace(outgoing, value=_short_alert(outgoing.value))
        elif outgoing.topic == self.dead_letter_topic and outgoing.value:
            short = replace(outgoing, value=outgoing.value[: len(outgoing.value) // 2])
        elif outgoing.key:
            short = replace(outgoing, key=None)
        else:
            size = len(outgoing.value or b"")
            raise DeliveryError(f"the broker takes no record for {outgoing.topic}, not even one of {size} bytes")
        headers = tuple(header for header in short.headers if header[0] != TRUNCATED)
        return replace(short, headers=(*headers, (TRUNCATED, b"true")))


def _short_alert(value: bytes) -> bytes:
    alert: dict[str, Any] = orjson.loads(value)
    alert |= {"record": None, "ids": {key: _short(text) for key, text in alert["ids"].items()}, TRUNCATED: True}
    alert["explanation"] = [{key: _short(part) for key, part in reason.items()} for reason in alert["explanation"]]
    alert["source"]["key"] = _short(alert["source"]["key"])
    return orjson.dumps(alert)


def _short(value: Any) -> Any:
    if isinstance(value, str) and len(value) > MAX_SHORT_TEXT:
        return value[:MAX_SHORT_TEXT] + "…"
    return _short(repr(value)) if isinstance(value, dict | list) else value
