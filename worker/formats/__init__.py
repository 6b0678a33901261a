"""Record formats: the bytes of a record to its fields."""

from worker.formats.avro import AvroDecoder
from worker.formats.base import DECODERS
from worker.formats.delimited import DelimitedDecoder
from worker.formats.json_objects import JsonDecoder
from worker.formats.json_schema import JsonSchemaDecoder
from worker.formats.protobuf import ProtobufDecoder
from worker.formats.text_lines import LinesDecoder

__all__ = ["DECODERS"]

DECODERS.register("json", JsonDecoder)
DECODERS.register("lines", LinesDecoder)
DECODERS.register("csv", DelimitedDecoder)
DECODERS.register("avro", AvroDecoder)
DECODERS.register("protobuf", ProtobufDecoder)
DECODERS.register("json-schema", JsonSchemaDecoder)
