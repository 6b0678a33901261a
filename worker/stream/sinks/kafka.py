"""An outcome as records to publish, kept by partition so that a revoked partition's part can still be dropped."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from worker.alerts.encode import CONTENT_TYPE, alert_headers, dead_letter_headers, encode_alert, encode_scores
from worker.errors import DeliveryError, SettingsError
from worker.records import Outcome, Outgoing, Partition, RawMessage

SHORT_TEXT = 200  # characters that a shortened alert keeps of each text
TRUNCATED = "truncated"


@dataclass(frozen=True, slots=True)
class Topics:
    """Where results go. `scores` None = scores are not published."""

    alerts: str
    dead_letter: str
    scores: str | None = None


@dataclass(frozen=True, slots=True)
class Pending:
    """A batch's results that are not delivered yet, and the state and offsets that follow them."""

    outgoing: Sequence[tuple[Partition, Outgoing]]
    next_offsets: Mapping[Partition, int]
    state: Sequence[tuple[Partition, Outgoing]] = ()

    def without(self, partitions: Collection[Partition]) -> "Pending":
        """What is left when these partitions belong to another member now."""
        return Pending(
            [entry for entry in self.outgoing if entry[0] not in partitions],
            {key: offset for key, offset in self.next_offsets.items() if key not in partitions},
            [entry for entry in self.state if entry[0] not in partitions],
        )

    def shortened(self, refused: Collection[Outgoing], topics: Topics) -> "Pending":
        """The same with the refused records cut down; DeliveryError if one can't be cut any further.

        SettingsError if one is state: that is never cut.
        """
        too_large = {id(outgoing) for outgoing in refused}
        for _, outgoing in self.state:
            if id(outgoing) in too_large:
                raise SettingsError(
                    f"the broker takes no record of {len(outgoing.value or b'')} bytes for {outgoing.topic}: raise its "
                    f"max.message.bytes or lower WORKER_THRESHOLD__STRIDE"
                )
        return replace(
            self,
            outgoing=[
                (key, shorten(outgoing, topics) if id(outgoing) in too_large else outgoing)
                for key, outgoing in self.outgoing
            ],
        )


def _at(message: RawMessage) -> Partition:
    return Partition(message.topic, message.partition)


def pending_of(outcome: Outcome, topics: Topics, state: Sequence[tuple[Partition, Outgoing]] = ()) -> Pending:
    """Everything that a batch leads to, alerts first."""
    outgoing = [
        (_at(alert.message), Outgoing(topics.alerts, alert.message.key, encode_alert(alert), alert_headers(alert)))
        for alert in outcome.alerts
    ]
    outgoing += [
        (_at(message), Outgoing(topics.dead_letter, message.key, message.value, dead_letter_headers(dead)))
        for dead in outcome.dead_letters
        for message in (dead.message,)
    ]
    if topics.scores is not None:
        headers = (("content-type", CONTENT_TYPE),)
        outgoing += [
            (_at(message), Outgoing(topics.scores, message.key, value, headers))
            for message, value in encode_scores(outcome.scores)
        ]
    return Pending(outgoing, outcome.next_offsets, state)


def shorten(outgoing: Outgoing, topics: Topics) -> Outgoing:
    """A record that the broker found too large, cut down and marked with a `truncated` header.

    An alert loses the record and long texts of its explanation; a dead letter keeps the first half of its bytes (cut
    again if that is still too much); whatever has nothing left but a long key loses the key.
    """
    if outgoing.topic == topics.alerts and outgoing.value and dict(outgoing.headers).get(TRUNCATED) is None:
        return _marked(replace(outgoing, value=_short_alert(outgoing.value)))
    if outgoing.topic == topics.dead_letter and outgoing.value:
        return _marked(replace(outgoing, value=outgoing.value[: len(outgoing.value) // 2]))
    if outgoing.key:
        return _marked(replace(outgoing, key=None))
    size = len(outgoing.value or b"")
    raise DeliveryError(f"the broker takes no record for {outgoing.topic}, not even one of {size} bytes")


def _marked(outgoing: Outgoing) -> Outgoing:
    rest = tuple(header for header in outgoing.headers if header[0] != TRUNCATED)
    return replace(outgoing, headers=(*rest, (TRUNCATED, b"true")))


def _short_alert(value: bytes) -> bytes:
    alert: dict[str, Any] = orjson.loads(value)
    alert |= {"record": None, "ids": {key: _short(text) for key, text in alert["ids"].items()}, TRUNCATED: True}
    alert["explanation"] = [{key: _short(part) for key, part in reason.items()} for reason in alert["explanation"]]
    alert["source"]["key"] = _short(alert["source"]["key"])
    return orjson.dumps(alert)


def _short(value: Any) -> Any:
    if isinstance(value, str) and len(value) > SHORT_TEXT:
        return value[:SHORT_TEXT] + "…"
    return _short(repr(value)) if isinstance(value, dict | list) else value
