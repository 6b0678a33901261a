"""What goes onto the alerts, scores and dead-letter topics, byte for byte."""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import orjson

from worker.formats.base import Row
from worker.records import Alert, DeadLetter, Headers, RawMessage, Reason, Scores

SCHEMA_VERSION = 1
CONTENT_TYPE = b"application/json"
REDACTED = "[redacted]"


def alert_id(topic: str, partition: int, offset: int) -> str:
    """The same record has the same id, always: 128 bits of a hash of where it stands."""
    return hashlib.blake2b(f"{topic}\0{partition}\0{offset}".encode(), digest_size=16).hexdigest()


def derived_id(alert: str, what: str) -> str:
    """The id of an alert that follows from another one: its closing, the summary of a minute that it began."""
    return hashlib.blake2b(f"{alert}\0{what}".encode(), digest_size=16).hexdigest()


def source(message: RawMessage) -> dict[str, Any]:
    """Where a record stands. A key that isn't UTF-8 is given with its bytes escaped."""
    key = None if message.key is None else message.key.decode(errors="backslashreplace")
    return {
        "topic": message.topic,
        "partition": message.partition,
        "offset": message.offset,
        "timestamp_ms": message.timestamp,
        "key": key,
    }


def _reason(reason: Reason) -> dict[str, Any]:
    document = {
        "field": reason.field,
        "observed": reason.observed,
        "expected": reason.expected,
        "share": reason.share,
    }
    if reason.typical is not None:
        document["typical"] = list(reason.typical)
    if reason.note is not None:
        document["note"] = reason.note
    return document


def alert_document(alert: Alert) -> dict[str, Any]:
    """The alert as plain data, as its JSON Schema describes it."""
    document: dict[str, Any] = {
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
        "explanation": [_reason(reason) for reason in alert.explanation],
        "ids": alert.ids,
        "record": alert.record if alert.of_one_record else None,
    }
    if alert.group is not None:
        document["group"] = asdict(alert.group)
    if alert.summary is not None:
        document["summary"] = asdict(alert.summary)
    return document


def encode_alert(alert: Alert) -> bytes:
    """The alert's JSON, compact, keys always in the same order."""
    return orjson.dumps(alert_document(alert))


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
            "threshold": None if threshold != threshold else threshold,  # noqa: PLR0124  # NaN: there is none yet
            "alert": alert,
            "model_version": scores.model_version,
        }
        yield message, orjson.dumps(document)


def dead_letter_headers(dead: DeadLetter) -> Headers:
    """The record's own headers, then why and where from."""
    return (
        *dead.message.headers,
        ("error.code", dead.error_code.encode()),
        ("error.detail", dead.detail.encode(errors="backslashreplace")),
        ("source.topic", dead.message.topic.encode()),
        ("source.partition", str(dead.message.partition).encode()),
        ("source.offset", str(dead.message.offset).encode()),
    )


def redact(record: Row, fields: frozenset[str]) -> Row:
    """The record with a mark in place of these fields' values; dots reach into nested objects."""
    if not fields:
        return record
    copy = dict(record)
    for name in fields:
        if name in copy:
            copy[name] = REDACTED
            continue
        head, _, rest = name.partition(".")
        if rest and isinstance(copy.get(head), dict):
            copy[head] = redact(copy[head], frozenset({rest}))
    return copy
