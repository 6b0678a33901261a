"""Records that begin with the id of the schema they were written with, as Confluent's serializers put it there."""

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar, Final, Self

import orjson
from typing_extensions import override

from worker.errors import ErrorCode, RecordError, SettingsError
from worker.formats.base import Decoder, FormatOptions, Row, Schemas, WriterSchema
from worker.formats.guess import CONFLUENT, HEADER_BYTES, looks_like, schema_id
from worker.formats.json_objects import check_nesting

Read = Callable[[bytes], Row]

MAX_READERS = 1_000
FORMAT_OF: Final = {"AVRO": "avro", "PROTOBUF": "protobuf", "JSON": "json-schema"}


class RegisteredDecoder(Decoder):
    """Each value is five bytes, a zero and a schema's id, and then what the schema describes.

    It is read with the writer's schema, whatever a record before it had. A JSON object without the five bytes is read
    as it is: so are masked records kept, and so a topic can change over to a registry.

    Subclasses say which sort of schema they read, and make a reader of one.
    """

    sort: ClassVar[str]

    def __init__(self, max_record_bytes: int | None = None) -> None:
        super().__init__(max_record_bytes)
        self._schemas: Schemas | None = None
        self._readers: dict[int, Read | RecordError] = {}

    @override
    def configured(self, options: FormatOptions) -> Self:
        if options.schemas is None:
            raise SettingsError(
                f"[registry.url] is not set: [kafka.format] = {FORMAT_OF[self.sort]} asks it for schemas"
            )
        self._schemas = options.schemas
        return self

    @abstractmethod
    def reader(self, schema: WriterSchema) -> Read:
        """What reads the records of a schema. RecordError alone is raised, here and by it."""

    @override
    def parse(self, value: bytes) -> Row:
        if not value.startswith(CONFLUENT) or len(value) < HEADER_BYTES:
            return _json_object(value)
        number = schema_id(value)
        reader = self._readers.get(number) or self._new_reader(number)
        if isinstance(reader, RecordError):
            raise reader
        try:
            return reader(value[HEADER_BYTES:])
        except RecordError as error:
            raise RecordError(error.error_code, f"schema id {number}: {error.detail}") from None

    @override
    def encode(self, row: Row) -> bytes:
        return orjson.dumps(row)

    def _new_reader(self, number: int) -> Read | RecordError:
        assert self._schemas is not None  # noqa: S101  # `configured` has seen to it
        schema = self._schemas.schema(number)
        try:
            if schema.sort != self.sort:
                other = FORMAT_OF.get(schema.sort)
                advice = f", which [kafka.format] = {other} reads" if other else ""
                raise RecordError(ErrorCode.UNKNOWN_SCHEMA, f"is of the sort {schema.sort}{advice}")  # noqa: TRY301
            reader: Read | RecordError = self.reader(schema)
        except RecordError as error:
            reader = RecordError(ErrorCode.UNKNOWN_SCHEMA, f"schema id {number}: {error.detail}")
        if len(self._readers) >= MAX_READERS:
            self._readers.clear()
        self._readers[number] = reader
        return reader


def _json_object(value: bytes) -> Row:
    try:
        row = orjson.loads(value)
    except orjson.JSONDecodeError:
        row = None
    if type(row) is not dict:
        raise RecordError(ErrorCode.INVALID_RECORD, f"no schema's id in front; {looks_like(value)}")
    check_nesting(row, value)
    return row
