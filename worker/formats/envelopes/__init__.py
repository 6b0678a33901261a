"""Envelopes: how producers wrap fields and spell values, undone after a record is decoded."""

from worker.formats.envelopes.base import ENVELOPES, OpeningDecoder
from worker.formats.envelopes.debezium import Debezium, undecoded_decimals
from worker.formats.envelopes.mongo import ExtendedJson
from worker.formats.envelopes.otel import TypedValues

__all__ = ["ENVELOPES", "OpeningDecoder", "undecoded_decimals"]

ENVELOPES.register("debezium", Debezium())
ENVELOPES.register("mongo", ExtendedJson())
ENVELOPES.register("otel", TypedValues())
