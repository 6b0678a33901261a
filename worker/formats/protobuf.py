"""Protobuf messages, read with the schema they were written with."""

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from typing_extensions import override

from worker.errors import ErrorCode, FatalError, Hint, RecordError
from worker.formats.base import Row, WriterSchema
from worker.formats.guess import message_place
from worker.formats.plain_values import plain_bytes, plain_decimal, plain_float, time_text
from worker.formats.proto_text import file_descriptor
from worker.formats.registered import Read, RegisteredDecoder

MAX_VALUES = 200_000  # of one record: an empty message takes two bytes, and a row of all its fields in memory
MAX_LEVELS = 90  # of messages; with the lists between them no deeper than a row may be
_MAIN: Final = "main.proto"
_BUILT_IN: Final = {
    "confluent/meta.proto": 'syntax = "proto3"; package confluent; message Meta { string doc = 1; }',
    "confluent/type/decimal.proto": (
        'syntax = "proto3"; package confluent.type; '
        "message Decimal { bytes value = 1; uint32 precision = 2; int32 scale = 3; }"
    ),
}
_WELL_KNOWN: Final = (
    *("any", "api", "duration", "empty", "field_mask", "source_context", "struct", "timestamp", "type", "wrappers"),
    "descriptor",
)


class ProtobufDecoder(RegisteredDecoder):
    """Messages of the type that the indexes behind the schema's id name.

    Fields have the names of the schema; what is not set is null where Protobuf can tell, else its default. Enums are
    their names, timestamps ISO 8601, durations seconds, wrappers and decimals their values, bytes text or base64.
    """

    sort = "PROTOBUF"

    @override
    def reader(self, schema: WriterSchema) -> Read:
        file = _compiled(schema)
        readers: dict[tuple[int, ...], _Messages] = {}

        def read_row(body: bytes) -> Row:
            place = message_place(body)
            if place is None:
                raise _refused("no indexes of a message's type in front")
            indexes, at = place
            if indexes not in readers:
                readers[indexes] = _Messages(_message_type(file, indexes))
            return readers[indexes].row(body[at:])

        return read_row


def _message_type(file: Any, indexes: tuple[int, ...]) -> Any:
    types = list(file.message_types_by_name.values())
    descriptor = None
    for index in indexes:
        if index >= len(types):
            raise _refused(f"the schema has no message type {indexes}")
        descriptor = types[index]
        types = [nested for nested in descriptor.nested_types if not nested.GetOptions().map_entry]
    return descriptor


def _compiled(schema: WriterSchema) -> Any:
    """The FileDescriptor of a schema, with all that it imports in a pool of its own."""
    try:
        from google.protobuf.descriptor_pb2 import FileDescriptorProto
        from google.protobuf.descriptor_pool import DescriptorPool
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise FatalError("reading Protobuf needs its packages", hint=Hint.INSTALL_REGISTRY) from error
    pool, known = DescriptorPool(), set[str]()
    texts = {**schema.references, _MAIN: schema.text}
    try:
        for name, text in texts.items():
            file = _serialized(FileDescriptorProto, name, text) or file_descriptor(name, text)
            _add(pool, file, known, texts)
        return pool.FindFileByName(_MAIN)
    except (TypeError, ValueError, KeyError, DecodeError) as error:
        raise RecordError(ErrorCode.UNKNOWN_SCHEMA, f"the schema can't be used: {error}") from None


def _serialized(make: Callable[[], Any], name: str, text: str) -> Any:
    """The descriptor that a registry has sent in place of the text; None where it is text."""
    if any(mark in text for mark in "{;"):
        return None
    try:
        file = make()
        file.ParseFromString(b64decode(text, validate=True))
    except (Base64Error, ValueError):
        return None
    file.name = name
    return file


def _add(pool: Any, file: Any, known: set[str], texts: Mapping[str, str]) -> None:
    """Adds a file behind those that it imports. Of imports that nobody has the name is left out: options need them, and
    a type that is really used is missed by the pool.
    """
    for name in list(file.dependency):
        if name not in known and (dependency := _built_in(name)) is not None:
            known.add(name)
            _add(pool, dependency, known, texts)
    kept = [(at, name) for at, name in enumerate(file.dependency) if name in known]
    public = [new for new, (old, _) in enumerate(kept) if old in file.public_dependency]
    del file.dependency[:], file.public_dependency[:]
    file.dependency.extend(name for _, name in kept)
    file.public_dependency.extend(public)
    pool.Add(file)
    known.add(file.name)


def _built_in(name: str) -> Any:
    if name in _BUILT_IN:
        return file_descriptor(name, _BUILT_IN[name])
    stem = name.removeprefix("google/protobuf/").removesuffix(".proto")
    if name != f"google/protobuf/{stem}.proto" or stem not in _WELL_KNOWN:
        return None
    from importlib import import_module

    from google.protobuf.descriptor_pb2 import FileDescriptorProto

    file = FileDescriptorProto()
    import_module(f"google.protobuf.{stem}_pb2").DESCRIPTOR.CopyToProto(file)
    return file


class _Messages:
    """Reads the messages of one type."""

    def __init__(self, descriptor: Any) -> None:
        from google.protobuf.message import DecodeError
        from google.protobuf.message_factory import GetMessageClass

        self._make, self._errors = GetMessageClass(descriptor), DecodeError
        self._plans: dict[str, list[Plan]] = {}

    def row(self, body: bytes) -> Row:
        """The fields of a message."""
        message = self._make()
        try:
            message.ParseFromString(body)
        except self._errors as error:
            raise _refused(f"the bytes don't fit the schema: {error}") from None
        return _Values(self._plans).fields(message, 0)


class _Values:
    """Makes plain values of one record. plans: how the fields of each type are read, kept over records."""

    def __init__(self, plans: "dict[str, list[Plan]]") -> None:
        self._plans = plans
        self._left = MAX_VALUES

    def fields(self, message: Any, level: int) -> Row:
        """All fields of a message."""
        descriptor = message.DESCRIPTOR
        if (plan := self._plans.get(descriptor.full_name)) is None:
            plan = self._plans[descriptor.full_name] = [_planned(field) for field in descriptor.fields]
        self._count(len(plan) + 1)
        _checked(level)
        return {
            name: read(self, getattr(message, name), level) if not tells or message.HasField(name) else None
            for name, read, tells in plan
        }

    def message(self, message: Any, level: int) -> Any:
        """A message as its fields; one of a well-known type as what it stands for."""
        special = _SPECIAL.get(message.DESCRIPTOR.full_name)
        return self.fields(message, level + 1) if special is None else special(self, message, level + 1)

    def items(self, items: Any) -> Iterator[Any]:
        """The same items, counted."""
        self._count(len(items))
        return iter(items)

    def _count(self, values: int) -> None:
        self._left -= values
        if self._left < 0:
            raise RecordError(ErrorCode.TOO_LARGE, f"more than {MAX_VALUES:,} values in one record")


ReadValue = Callable[[_Values, Any, int], Any]
Plan = tuple[str, ReadValue, bool]


def _planned(field: Any) -> Plan:
    """A field's name, what reads its value, and whether it can tell that it is not set."""
    read = _read_of(field)
    nested = field.message_type
    if nested is not None and nested.GetOptions().map_entry:
        of_value = _read_of(nested.fields_by_name["value"])

        def read_map(values: _Values, entries: Any, level: int) -> Any:
            return {_key(key): of_value(values, entries[key], level) for key in values.items(entries)}

        return field.name, read_map, False
    if field.is_repeated:

        def read_list(values: _Values, items: Any, level: int) -> Any:
            return [read(values, item, level) for item in values.items(items)]

        return field.name, read_list, False
    return field.name, read, field.has_presence


def _key(key: Any) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)


def _read_of(field: Any) -> ReadValue:
    if field.message_type is not None:
        return _Values.message
    if field.enum_type is not None:
        names = {value.number: value.name for value in reversed(field.enum_type.values)}  # of aliases the first
        return lambda _, number, __: names.get(number, number)
    if field.type == field.TYPE_BYTES:
        return lambda _, value, __: plain_bytes(value)
    if field.type in {field.TYPE_DOUBLE, field.TYPE_FLOAT}:
        return lambda _, value, __: plain_float(value)
    return lambda _, value, __: value


def _timestamp(_: _Values, message: Any, __: int) -> Any:
    text = time_text(message.seconds * 1_000_000 + message.nanos // 1000)
    return message.seconds if text is None else text


def _value(values: _Values, message: Any, level: int) -> Any:
    """One of Struct's values."""
    kind = message.WhichOneof("kind")
    if kind is None or kind == "null_value":
        return None
    part = getattr(message, kind)
    if kind == "number_value":
        return plain_float(part)
    return values.message(part, level) if kind in {"struct_value", "list_value"} else part


def _checked(level: int) -> int:
    if level > MAX_LEVELS:
        raise _refused(f"nested deeper than {MAX_LEVELS} levels")
    return level


_WRAPPED: Final = ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
_SPECIAL: Final[Mapping[str, ReadValue]] = {
    "google.protobuf.Timestamp": _timestamp,
    "google.protobuf.Duration": lambda _, message, __: message.seconds + message.nanos / 1e9,
    "google.protobuf.FieldMask": lambda _, message, __: list(message.paths),
    "google.protobuf.Struct": lambda values, message, level: {
        key: _value(values, message.fields[key], _checked(level)) for key in values.items(message.fields)
    },
    "google.protobuf.ListValue": lambda values, message, level: [
        _value(values, item, _checked(level)) for item in values.items(message.values)
    ],
    "google.protobuf.Value": _value,
    "confluent.type.Decimal": lambda _, message, __: plain_decimal(message.value, message.scale),
    **{f"google.protobuf.{sort}Value": lambda _, message, __: _unwrapped(message.value) for sort in _WRAPPED},
}


def _unwrapped(value: Any) -> Any:
    if isinstance(value, bytes):
        return plain_bytes(value)
    return plain_float(value) if isinstance(value, float) else value


def _refused(detail: str) -> RecordError:
    return RecordError(ErrorCode.INVALID_RECORD, detail)
