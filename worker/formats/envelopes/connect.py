"""Kafka Connect's own schemas, which its JSON converter puts into each record: decimals by their scale, and times.

A schema is compiled once to a reader for each field that needs one, and kept by its bytes.
"""

import binascii
from base64 import b64decode
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import orjson

from worker.formats.plain_values import MAX_DECIMAL_BYTES, MAX_SCALE, Read, date_text, plain_decimal, time_reader

MAX_SCHEMA_BYTES = 1 << 20
MAX_LEVELS = 50


def decimal_reader(scale: int) -> Read:
    """Base64 of a two's complement, big-endian, to the number, with so many digits behind the point.

    >>> decimal_reader(2)("B4s=")
    19.31
    """

    def read(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            data = b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            return value
        if not data or len(data) > MAX_DECIMAL_BYTES:
            return value
        return plain_decimal(data, scale)

    return read


def _variable_scale(value: Any) -> Any:
    """A decimal that brings its scale along."""
    if not isinstance(value, dict) or not isinstance(scale := value.get("scale"), int) or abs(scale) > MAX_SCALE:
        return value
    return decimal_reader(scale)(value.get("value"))


# Milliseconds since 1970 stay what they are: every reader of times knows them.
_BY_NAME: Final[Mapping[str, Read]] = {
    "io.debezium.time.Date": date_text,
    "org.apache.kafka.connect.data.Date": date_text,
    "io.debezium.time.MicroTimestamp": time_reader(1_000_000),
    "io.debezium.time.NanoTimestamp": time_reader(1_000_000_000),
    "io.debezium.data.VariableScaleDecimal": _variable_scale,
}
_DECIMAL: Final = "org.apache.kafka.connect.data.Decimal"


def reader_of(schema: Any) -> Read | None:
    """What makes plain values of a record of this schema, in place; None where nothing has to be done, or the schema is
    none.
    """
    try:
        content = orjson.dumps(schema)
    except TypeError:
        return None
    return _compiled(content) if len(content) <= MAX_SCHEMA_BYTES else None


@lru_cache(256)
def _compiled(content: bytes) -> Read | None:
    return _reader(orjson.loads(content), 0)


def _reader(schema: Any, level: int) -> Read | None:
    if not isinstance(schema, dict) or level > MAX_LEVELS:
        return None
    name, kind = schema.get("name"), schema.get("type")
    if name == _DECIMAL:
        scale = _scale(schema)
        return None if scale is None else decimal_reader(scale)
    if isinstance(name, str) and name in _BY_NAME:
        return _BY_NAME[name]
    if kind == "struct":
        return _struct_reader(schema.get("fields"), level)
    if kind == "array":
        return _items_reader(_reader(schema.get("items"), level + 1))
    if kind == "map":
        return _values_reader(_reader(schema.get("values"), level + 1))
    return None


def _scale(schema: dict[str, Any]) -> int | None:
    parameters = schema.get("parameters")
    try:
        scale = int(parameters["scale"]) if isinstance(parameters, dict) else 0
    except (KeyError, TypeError, ValueError):
        return None
    return scale if abs(scale) <= MAX_SCALE else None


def _struct_reader(entries: Any, level: int) -> Read | None:
    known = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    readers = [(entry.get("field"), _reader(entry, level + 1)) for entry in known]
    needed = [(name, reader) for name, reader in readers if reader is not None]

    def read(value: Any) -> Any:
        if isinstance(value, dict):
            for name, reader in needed:
                if value.get(name) is not None:
                    value[name] = reader(value[name])
        return value

    return read if needed else None


def _items_reader(reader: Read | None) -> Read | None:
    if reader is None:
        return None
    return lambda value: list(map(reader, value)) if isinstance(value, list) else value


def _values_reader(reader: Read | None) -> Read | None:
    if reader is None:
        return None
    return lambda value: {key: reader(item) for key, item in value.items()} if isinstance(value, dict) else value
