"""Record formats: the bytes of a record to its fields."""

from worker.formats.base import DECODERS
from worker.formats.json_objects import JsonDecoder

__all__ = ["DECODERS"]

DECODERS.register("json", JsonDecoder)
