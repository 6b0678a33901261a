"""Avro records, read with the schema they were written with."""

import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from io import BytesIO
from struct import error as StructError  # noqa: N812  # it is named like a function
from typing import Any, Final
from uuid import UUID

from typing_extensions import override

from worker.errors import ErrorCode, FatalError, Hint, RecordError
from worker.formats.base import Row, WriterSchema, type_name
from worker.formats.json_objects import check_depth
from worker.formats.plain_values import date_text, plain_bytes, plain_decimal, plain_float, time_reader
from worker.formats.registered import Read, RegisteredDecoder

OURS: Final = "worker-"
"""In front of the names of logical types that are read here, so that those of the library stay untouched."""

_ARRAYS_OF_NOTHING = "it has arrays of items that take no bytes, of which a few bytes can claim billions"
# Whatever bytes that are none of the schema lead to in the reader.
_BROKEN: Final = (
    *(EOFError, LookupError, ValueError, TypeError, ArithmeticError, AttributeError),
    *(StructError, RecursionError, MemoryError),
)


class AvroDecoder(RegisteredDecoder):
    """Records as Avro's binary encoding has them.

    Decimals are numbers, dates and times ISO 8601, times of day seconds, bytes text or base64, NaN null.
    """

    sort = "AVRO"

    @override
    def reader(self, schema: WriterSchema) -> Read:
        fastavro = _library()
        try:
            names: dict[str, Any] = {}
            for text in schema.references.values():
                fastavro.parse_schema(_ours(json.loads(text)), named_schemas=names)
            parsed = fastavro.parse_schema(_ours(json.loads(schema.text)), named_schemas=names)
            bounds = _Bounds(names)
            bounds.min_bytes(parsed)
        except RecursionError:
            raise RecordError(ErrorCode.UNKNOWN_SCHEMA, "the schema is nested too deeply") from None
        except (*_BROKEN, fastavro.SchemaParseException, fastavro.UnknownType) as error:
            raise RecordError(ErrorCode.UNKNOWN_SCHEMA, f"the schema is no Avro: {error}") from None
        # The fast reader calls itself in C: a list that is linked a million times would end the process.
        is_recursive = bounds.is_recursive
        read = fastavro.slow_read if is_recursive else fastavro.fast_read

        def read_row(body: bytes) -> Row:
            stream = BytesIO(body)
            try:
                row = read(stream, parsed, None)
            except (*_BROKEN, fastavro.SchemaResolutionError):  # whose words may quote what is redacted
                raise _refused("the bytes don't fit the schema") from None
            if stream.read(1):
                raise _refused("more bytes than the schema has")
            if not isinstance(row, dict):
                raise RecordError(ErrorCode.NOT_AN_OBJECT, f"expected a record, got {type_name(row)}")
            if is_recursive:
                check_depth(row)
            return row

        return read_row


def _refused(detail: str) -> RecordError:
    return RecordError(ErrorCode.INVALID_RECORD, detail)


class _Library:
    """What is used of fastavro. FatalError where it is not installed."""

    def __init__(self) -> None:
        try:
            from fastavro import _read, _read_py, parse_schema
            from fastavro.read import SchemaResolutionError
            from fastavro.schema import SchemaParseException, UnknownType
        except ImportError as error:
            raise FatalError("reading Avro needs the fastavro package", hint=Hint.INSTALL_REGISTRY) from error
        for module in (_read, _read_py):
            vars(module)["LOGICAL_READERS"].update(_LOGICAL)
        self.parse_schema = parse_schema
        self.fast_read: Callable[..., Any] = _read.schemaless_reader
        self.slow_read: Callable[..., Any] = _read_py.schemaless_reader
        self.SchemaParseException, self.UnknownType = SchemaParseException, UnknownType
        self.SchemaResolutionError = SchemaResolutionError


_loaded: list[_Library] = []


def _library() -> _Library:
    if not _loaded:
        _loaded.append(_Library())
    return _loaded[0]


def _ours(schema: Any) -> Any:
    """The schema with logical types that are read here, and without those that nobody reads."""
    if isinstance(schema, str):
        return {"type": schema, "logicalType": OURS + schema} if schema in {"bytes", "float", "double"} else schema
    if isinstance(schema, list):
        return [_ours(branch) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    kind = schema.get("type")
    changed = {key: value for key, value in schema.items() if key not in {"logicalType", "default"}}
    if isinstance(kind, dict | list):
        return {**changed, "type": _ours(kind)}
    if isinstance(entries := schema.get("fields"), list):
        changed["fields"] = [_ours_field(entry) for entry in entries]
    for part in ("items", "values"):
        if part in schema:
            changed[part] = _ours(schema[part])
    logical = schema.get("logicalType") or (kind if kind in {"bytes", "fixed", "float", "double"} else None)
    for name in (logical, kind):
        if f"{kind}-{OURS}{name}" in _LOGICAL:
            return {**changed, "logicalType": f"{OURS}{name}"}
    return changed


def _ours_field(entry: Any) -> Any:
    if not isinstance(entry, dict) or "type" not in entry:
        return entry
    return {**{key: value for key, value in entry.items() if key != "default"}, "type": _ours(entry["type"])}


class _Bounds:
    """How few bytes a schema's values can take, and whether a type holds itself.

    names   the named types
    """

    def __init__(self, names: Mapping[str, Any]) -> None:
        self._names = names
        self.is_recursive = False

    def min_bytes(self, part: Any, inside: tuple[str, ...] = ()) -> int:
        """Of a value of this type; ValueError where an array's items take none."""
        if isinstance(part, list):
            for branch in part:
                self.min_bytes(branch, inside)
            return 1
        if isinstance(part, str):
            if part in inside:
                self.is_recursive = True
                return 1
            return self.min_bytes(self._names[part], inside) if part in self._names else int(part != "null")
        kind = part["type"]
        if kind in {"record", "error"}:
            inside = (*inside, part["name"])
            return sum([self.min_bytes(entry["type"], inside) for entry in part["fields"]])
        if kind in {"array", "map"}:
            if not self.min_bytes(part["items" if kind == "array" else "values"], inside) and kind == "array":
                raise ValueError(_ARRAYS_OF_NOTHING)
            return 1
        return int(part["size"]) if kind == "fixed" else 1 if kind == "enum" else self.min_bytes(kind, inside)


def _decimal(value: bytes, schema: Mapping[str, Any], _: Any = None) -> Any:
    return plain_decimal(value, schema.get("scale", 0))


def _duration(value: bytes, *_: Any) -> Any:
    """Months, days and milliseconds as seconds, a month as 30 days."""
    months, days, milliseconds = (int.from_bytes(value[at : at + 4], "little") for at in (0, 4, 8))
    return timedelta(days=months * 30 + days, milliseconds=milliseconds).total_seconds()


def _uuid(value: bytes, *_: Any) -> Any:
    return str(UUID(bytes=value)) if len(value) == 16 else plain_bytes(value)


def _times(per_second: int) -> Callable[..., Any]:
    read = time_reader(per_second)
    return lambda value, *_: read(value)


def _seconds(per_second: int) -> Callable[..., Any]:
    return lambda value, *_: value / per_second


_UNITS: Final = {"millis": 1_000, "micros": 1_000_000, "nanos": 1_000_000_000}
_LOGICAL: Final[Mapping[str, Callable[..., Any]]] = {
    f"bytes-{OURS}bytes": lambda value, *_: plain_bytes(value),
    f"fixed-{OURS}fixed": lambda value, *_: plain_bytes(value),
    f"float-{OURS}float": lambda value, *_: plain_float(value),
    f"double-{OURS}double": lambda value, *_: plain_float(value),
    f"bytes-{OURS}decimal": _decimal,
    f"fixed-{OURS}decimal": _decimal,
    f"fixed-{OURS}duration": _duration,
    f"fixed-{OURS}uuid": _uuid,
    f"int-{OURS}date": lambda value, *_: date_text(value),
    f"int-{OURS}time-millis": _seconds(1_000),
    f"long-{OURS}time-micros": _seconds(1_000_000),
    **{f"long-{OURS}timestamp-{unit}": _times(count) for unit, count in _UNITS.items()},
    **{f"long-{OURS}local-timestamp-{unit}": _times(count) for unit, count in _UNITS.items()},
}
