"""Record formats: the bytes of a record to its fields."""

from worker.formats.base import DECODERS
from worker.formats.delimited import DelimitedDecoder
from worker.formats.json_objects import JsonDecoder
from worker.formats.text_lines import LinesDecoder

__all__ = ["DECODERS"]

DECODERS.register("json", JsonDecoder)
DECODERS.register("lines", LinesDecoder)
DECODERS.register("csv", DelimitedDecoder)
