"""What goes onto the alerts, scores and dead-letter topics, byte for byte."""

import hashlib
from collections.abc import Iterator
from typing import Any

import orjson

from worker.records import Alert, DeadLetter, Headers, RawMessage, Scores, member_of

SCHEMA_VERSION = 1
CONTENT_TYPE = b"application/json"
DEAD_LETTER_HEADERS = ("error.code", "error.detail", "source.topic", "source.partition", "source.offset")


def alert_id(*origin: object) -> str:
    """The id of what comes of this origin, the same each time: 128 bits of a hash.

    origin   topic, partition and offset of a record, its place among those that were unfolded from that offset, and the
             topic's id where the group has read an earlier topic of this name; or the id of an alert, and what follows
             from it: its closing, the summary of its minute
    """
    return hashlib.blake2b("\0".join(map(str, origin)).encode(), digest_size=16).hexdigest()


def source(message: RawMessage) -> dict[str, Any]:
    """Where a record stands. A key that isn't UTF-8 is given with its bytes escaped."""
    key = None if message.key is None else message.key.decode(errors="backslashreplace")
    member = member_of(message)
    return {
        "topic": message.topic,
        "partition": message.partition,
        "offset": message.offset,
        "timestamp_ms": message.timestamp,
        "key": key,
    } | ({} if member is None else {"member": member})


def encode_alert(alert: Alert) -> bytes:
    """The alert's JSON, as its JSON Schema describes it: compact, keys always in the same order."""
    explanation = []
    for reason in alert.explanation:
        entry = {"field": reason.field, "observed": reason.observed, "expected": reason.expected, "share": reason.share}
        if reason.typical is not None:
            entry["typical"] = reason.typical
        if reason.note is not None:
            entry["note"] = reason.note
        explanation.append(entry)
    document = {
        "alert_id": alert.alert_id,
        "schema_version": SCHEMA_VERSION,
        "detected_at": alert.detected_at,
        "event_time": alert.event_time,
        "source": source(alert.message),
        "score": alert.score,
        "threshold": alert.threshold,
        "severity": alert.severity,
        "tail_probability": alert.tail_probability,
        "model_version": alert.model_version,
        "explanation": explanation,
        "ids": alert.ids,
        "record": alert.record if alert.of_one_record else None,
    }
    document |= {} if alert.group is None else {"group": alert.group}
    document |= {} if alert.summary is None else {"summary": alert.summary}
    return orjson.dumps(document)


def alert_headers(alert: Alert) -> Headers:
    """Content type, schema version and model version, so that a reader can route without parsing."""
    return (
        ("content-type", CONTENT_TYPE),
        ("schema.version", str(SCHEMA_VERSION).encode()),
        ("model.version", alert.model_version.encode()),
    )


def encode_scores(scores: Scores) -> Iterator[tuple[RawMessage, bytes]]:
    """Each scored record with the JSON of its score."""
    columns = zip(scores.messages, scores.score.tolist(), scores.threshold.tolist(), scores.alert.tolist(), strict=True)
    for message, score, threshold, alert in columns:
        document = {
            "source": source(message),
            "score": score,
            "threshold": threshold,  # where there is none yet, orjson writes NaN as null
            "alert": alert,
            "model_version": scores.model_version,
        }
        yield message, orjson.dumps(document)


def dead_letter_headers(dead: DeadLetter) -> Headers:
    """The record's own headers, then why and where from."""
    message = dead.message
    values = (dead.error_code, dead.detail, message.topic, str(message.partition), str(message.offset))
    reasons = [value.encode(errors="backslashreplace") for value in values]
    member = member_of(message)
    place = () if member is None else (("source.member", str(member).encode()),)
    return (*message.headers, *zip(DEAD_LETTER_HEADERS, reasons, strict=True), *place)
