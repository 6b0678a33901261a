"""What the first records of a worker show: fields of the schema that they spell otherwise."""

from collections.abc import Sequence

from worker.errors import TransientError
from worker.features.schema import Schema
from worker.features.unread import unread_note
from worker.formats.base import Decoder, Row, decoded_bytes
from worker.records import RawMessage

RECORDS = 1_000
MAX_BYTES = 16 * 1024 * 1024  # decoded


class FirstRecords:
    """Looks at the first scored records once more, until there are enough to say something; then at none.

    schema    the fields that the worker reads
    decoder   of the records' format
    """

    def __init__(self, schema: Schema, decoder: Decoder) -> None:
        self._schema = schema
        self._decoder = decoder
        self._rows: list[Row] = []
        self._bytes = 0
        self._done = False

    def note(self, messages: Sequence[RawMessage]) -> str | None:
        """What to say, once; None as long as, or because, there is nothing."""
        if self._done:
            return None
        for message in messages:
            try:
                self._rows += self._decoder.decode([message]).rows
            except TransientError:  # a schema that was forgotten since, and a registry that is away: others will do
                return None
            self._bytes += decoded_bytes(message.value)
            if len(self._rows) >= RECORDS or self._bytes >= MAX_BYTES:
                self._done = True
                rows, self._rows = self._rows, []
                return unread_note(self._schema, rows, misspelt=True)
        return None
