"""The published formats as documents for the teams that read them: JSON Schema and AsyncAPI, generated from here.

python -m devtools.contracts deploy/      writes alert.schema.json, score.schema.json and asyncapi.json
"""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

import orjson
from pydantic import ConfigDict, Field, TypeAdapter
from typing_extensions import TypedDict

from worker.alerts.encode import CONTENT_TYPE, SCHEMA_VERSION
from worker.errors import ErrorCode

Share = Annotated[float, Field(ge=0, le=1)]
Truncated = Annotated[bool, Field(description="cut down, since the topic takes no larger record")]


class Source(TypedDict):
    """Where the record stands in the input topic."""

    topic: str
    partition: Annotated[int, Field(ge=0)]
    offset: Annotated[int, Field(ge=0)]
    timestamp_ms: Annotated[
        int, Field(ge=-1, description="milliseconds since the epoch, UTC; -1 = the record has none")
    ]
    key: Annotated[str | None, Field(description="UTF-8, other bytes escaped; null = no key")]
    member: NotRequired[
        Annotated[int, Field(ge=0, description="its place in a record that wraps others and was unfolded")]
    ]


class ReasonDocument(TypedDict):
    """One field that stands out, in the record's own units."""

    field: str
    observed: Annotated[Any, Field(description="as in the record, null where it is missing, a mark where redacted")]
    expected: Annotated[Any, Field(description="what the model would have expected beside the other fields")]
    share: Annotated[Share, Field(description="part of the score that this field explains; all fields add up to 1")]
    typical: NotRequired[
        Annotated[list[float], Field(description="range of 98% of the values in calibration", min_length=2)]
    ]
    note: NotRequired[Annotated[str, Field(description="such as: never seen before, missing")]]


class GroupDocument(TypedDict):
    """Alerts with the same key as one group: an opening alert, updates at 10, 100, 1000 … alerts, a closing alert."""

    state: Annotated[
        Literal["opening", "update", "closing"],
        Field(description="closing: the cooldown has passed, `source` and `score` are those of the strongest"),
    ]
    key: Annotated[dict[str, Any], Field(description="values of the fields that alerts are grouped by, long ones cut")]
    opening_id: Annotated[str, Field(description="alert_id of the opening alert")]
    count: Annotated[int, Field(ge=1, description="records above their threshold so far")]
    first_seen: Annotated[str | None, Field(description="event time of the first of them, RFC 3339, UTC")]
    last_seen: Annotated[str | None, Field(description="event time of the latest of them, RFC 3339, UTC")]
    strongest_score: float


class SummaryDocument(TypedDict):
    """Alerts over the rate limit; `source`, `score` and what belongs to them are those of the strongest."""

    minute: Annotated[str | None, Field(description="start of the minute of event time, RFC 3339, UTC")]
    rate_limited: Annotated[int, Field(ge=1, description="alerts that were not published")]


class AlertDocument(TypedDict):
    """A record above its partition's threshold, and why.

    `group` where alerts are grouped, `summary` where some were over the rate limit. A summary and a closing alert speak
    of several records and name the strongest: their `explanation` and `ids` are empty, their `record` is null.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]  # pydantic reads it off the class

    alert_id: Annotated[str, Field(pattern="^[0-9a-f]{32}$", description="the same record has the same id, always")]
    schema_version: Literal[1]
    detected_at: Annotated[str, Field(description="RFC 3339, UTC; in a replay the event time")]
    event_time: Annotated[str | None, Field(description="RFC 3339, UTC")]
    source: Source
    score: Annotated[
        float, Field(ge=0, description="how badly the model reconstructs the record, in the model's own unit")
    ]
    threshold: Annotated[float, Field(ge=0, description="what the score was compared with")]
    severity: Annotated[
        Literal["info", "warning", "critical"], Field(description="by the tail probability, in order within an hour")
    ]
    tail_probability: Annotated[
        float | None, Field(description="share of inliers with a score at least as high; null: not known")
    ]
    model_version: str
    explanation: Annotated[list[ReasonDocument], Field(description="largest share first")]
    ids: Annotated[dict[str, Any], Field(description="the schema's id fields")]
    record: Annotated[dict[str, Any] | None, Field(description="the original JSON, fields can be redacted")]
    group: NotRequired[GroupDocument]
    summary: NotRequired[SummaryDocument]
    truncated: NotRequired[Truncated]


class ScoreDocument(TypedDict):
    """The score of one record."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]  # pydantic reads it off the class

    source: Source
    score: Annotated[float, Field(ge=0)]
    threshold: Annotated[float | None, Field(description="null before there is one")]
    alert: Annotated[bool, Field(description="by the threshold alone")]
    model_version: str
    truncated: NotRequired[Truncated]


def json_schema(document: type) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a document."""
    schema = TypeAdapter(document).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0 description of what the worker publishes, with its default topic names."""
    error_codes = [code.value for code in ErrorCode]
    texts = {
        "alerts": ("alert.schema.json", "Records above their threshold. Kafka key = the record's key."),
        "scores": ("score.schema.json", "The score of every record, where a scores topic is set."),
    }
    channels: dict[str, Any] = {
        name: {
            "address": name,
            "description": text,
            "messages": {
                name: {"contentType": CONTENT_TYPE.decode(), "payload": {"$ref": f"./{file}"}, "title": name},
            },
        }
        for name, (file, text) in texts.items()
    }
    channels["dead-letters"] = {
        "address": "dead-letters",
        "description": "Records that can't be scored; bytes, key and headers unchanged. "
        f"error.code: {', '.join(error_codes)}.",
        "messages": {
            "dead-letter": {
                "title": "dead letter",
                "headers": {
                    "type": "object",
                    "properties": {
                        "error.code": {"type": "string", "enum": error_codes},
                        "error.detail": {"type": "string"},
                        "source.topic": {"type": "string"},
                        "source.partition": {"type": "string"},
                        "source.offset": {"type": "string"},
                        "source.member": {"type": "string"},
                        "truncated": {"type": "string"},
                        "truncated.parts": {"type": "string"},
                    },
                },
            },
        },
    }
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "kafka-anomaly-worker", "version": str(SCHEMA_VERSION)},
        "channels": channels,
        "operations": {
            f"publish-{name}": {"action": "send", "channel": {"$ref": f"#/channels/{name}"}} for name in channels
        },
    }


def documents() -> dict[str, bytes]:
    """File name to content of everything that is kept in deploy/."""
    contents = {
        "alert.schema.json": json_schema(AlertDocument),
        "score.schema.json": json_schema(ScoreDocument),
        "asyncapi.json": asyncapi(),
    }
    return {name: orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n" for name, content in contents.items()}


if __name__ == "__main__":
    for name, content in documents().items():
        (Path(sys.argv[1]) / name).write_bytes(content)
