"""JSON objects that were written with a JSON Schema of a registry."""

from typing import Any, Final

import orjson
from typing_extensions import override

from worker.errors import ErrorCode, RecordError
from worker.formats.base import Row, WriterSchema, type_name
from worker.formats.envelopes.connect import reader_of
from worker.formats.guess import looks_like
from worker.formats.json_objects import check_nesting
from worker.formats.registered import Read, RegisteredDecoder

MAX_LEVELS = 50
_KINDS: Final = {"object": "struct", "array": "array"}


class JsonSchemaDecoder(RegisteredDecoder):
    """JSON objects. Nothing is validated: a record that breaks its schema is scored for what it is.

    Decimals and dates of Kafka Connect, which its converter describes in the schema, are numbers and ISO 8601.
    """

    sort = "JSON"

    @override
    def reader(self, schema: WriterSchema) -> Read:
        try:
            plain = reader_of(_connect_schema(orjson.loads(schema.text), 0))
        except orjson.JSONDecodeError as error:
            raise RecordError(ErrorCode.UNKNOWN_SCHEMA, f"the schema is no JSON: {error}") from None

        def read_row(body: bytes) -> Row:
            try:
                row = orjson.loads(body)
            except orjson.JSONDecodeError as error:
                raise RecordError(ErrorCode.INVALID_JSON, f"{looks_like(body)}; {error}") from None
            if type(row) is not dict:
                raise RecordError(ErrorCode.NOT_AN_OBJECT, f"expected a JSON object, got {type_name(row)}")
            check_nesting(row, body)
            return row if plain is None else plain(row)

        return read_row


def _connect_schema(schema: Any, level: int) -> dict[str, Any]:
    """What Kafka Connect's own form of a schema says, as far as it bears on reading."""
    if not isinstance(schema, dict) or level > MAX_LEVELS:
        return {}
    for choice in schema.get("oneOf") or ():  # a value that may be null
        if isinstance(choice, dict) and choice.get("type") != "null":
            return _connect_schema(choice, level + 1)
    properties = schema.get("properties")
    entries = properties.items() if isinstance(properties, dict) else ()
    kind = schema.get("type")
    return {
        "type": _KINDS.get(kind, kind) if isinstance(kind, str) else None,
        "name": schema.get("title"),
        "parameters": schema.get("connect.parameters"),
        "fields": [{"field": name, **_connect_schema(below, level + 1)} for name, below in entries],
        "items": _connect_schema(schema.get("items"), level + 1),
    }
