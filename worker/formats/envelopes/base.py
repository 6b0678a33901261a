"""What an envelope is: a way in which producers wrap fields and spell values, undone after a record is decoded.

An opened record has its fields where they stood, as plain values: a schema that names them by path goes on to fit.
"""

from collections.abc import Sequence
from itertools import repeat
from operator import contains
from typing import Protocol

from typing_extensions import override

from worker.errors import RecordError
from worker.formats.base import Decoder, Row, WrappingDecoder
from worker.registry import Registry


class Envelope(Protocol):
    """One convention. Records pass untouched that have none of its names, or whose JSON has not its mark in it.

    names   keys of a record, of which a wrapped one has one; none: they say nothing
    mark    bytes that stand in the JSON of a wrapped record
    """

    names: tuple[str, ...]
    mark: bytes

    def open(self, row: Row) -> Row:
        """The record with plain values; the row itself, which may be changed, or where it is not wrapped, as it is.

        RecordError where what it says of itself can't be.
        """


ENVELOPES: Registry[Envelope] = Registry("envelope")
"""By the name in the settings; `auto` is all of them, in this order."""


class OpeningDecoder(WrappingDecoder):
    """What another decoder reads, opened.

    decoder     reads the bytes
    envelopes   opened one after the other
    by_bytes    whether the decoder reads JSON, whose bytes tell sooner than its fields whether there is an envelope
    """

    def __init__(self, decoder: Decoder, envelopes: Sequence[Envelope], *, by_bytes: bool) -> None:
        super().__init__(decoder)
        self._envelopes = [(entry, entry.mark if by_bytes else b"") for entry in envelopes]

    @override
    def parse(self, value: bytes) -> Row:
        row = super().parse(value)
        for envelope, mark in self._envelopes:
            if mark in value and _is_named(row, envelope.names):
                row = envelope.open(row)
        return row

    # Whether a record is opened must not depend on its neighbours, so each is asked by itself. But in a topic without
    # envelopes all are asked at once, in one search of a copy of their bytes, which takes a tenth of reading them.
    @override
    def parse_batch(self, values: Sequence[bytes], size: int) -> list[Row] | None:
        rows = super().parse_batch(values, size)
        if rows is None:
            return None
        together = b"\n".join(values)
        for envelope, mark in self._envelopes:
            if mark not in together or not _any_named(rows, envelope.names):
                continue
            try:
                rows = [
                    envelope.open(row) if mark in value and _is_named(row, envelope.names) else row
                    for row, value in zip(rows, values, strict=True)
                ]
            except RecordError:
                return None
        return rows


def _is_named(row: Row, names: tuple[str, ...]) -> bool:
    return not names or any(name in row for name in names)


def _any_named(rows: Sequence[Row], names: tuple[str, ...]) -> bool:
    return not names or any(any(map(contains, rows, repeat(name))) for name in names)
