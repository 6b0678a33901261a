"""What the tests of this room share."""

from collections.abc import Sequence
from typing import Any

import orjson
from hypothesis import settings

from worker.features.fitted import Fitted
from worker.features.infer import infer_schema
from worker.features.kinds import KINDS, Field
from worker.features.schema import Schema
from worker.features.vectorize import Vectorizer, Vectors, fit_vectorizer
from worker.formats.base import Decoded, Row
from worker.records import Message

STEADY = settings(derandomize=True, max_examples=100, deadline=None)
"""Property tests that find the same on every machine, however busy."""


def raw(values: Sequence[bytes | None]) -> list[Message]:
    """Messages with offsets 0, 1, ... and timestamps 1000, 1001, ..."""
    return [Message("in", 0, offset, 1000 + offset, None, value) for offset, value in enumerate(values)]


def decoded(rows: Sequence[Row]) -> Decoded:
    """What `decode` would make of these objects, without the trip through bytes."""
    return Decoded(list(raw([b""] * len(rows))), list(rows), [], 0)


def one_field(kind: str, values: Sequence[Any], **options: Any) -> tuple[Schema, Fitted]:
    """A schema with the single field "x", fitted on these values; ... stands for an absent field."""
    schema = Schema((KINDS[kind]("x", **options),))
    return schema, fit_vectorizer(schema, rows_of(values))


def rows_of(values: Sequence[Any]) -> list[Row]:
    """Rows with the single field "x"; ... stands for an absent field."""
    return [{} if value is ... else {"x": value} for value in values]


def encode(schema: Schema, fitted: Fitted, values: Sequence[Any]) -> Vectors:
    """The vectors of rows with the single field "x"."""
    return Vectorizer(fitted).transform(decoded(rows_of(values)))


def through_json(rows: Sequence[Row]) -> list[Row]:
    """The rows as they come back from their own JSON text."""
    return [orjson.loads(orjson.dumps(row)) for row in rows]


def field_of(values: Sequence[Any]) -> Field:
    """The field that is proposed for these values."""
    fields = infer_schema([row | {"other": n % 7} for n, row in enumerate(rows_of(values))]).schema.fields
    return next(field for field in fields if field.name == "x")
