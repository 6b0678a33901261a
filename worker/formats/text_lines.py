"""Records that are plain text, such as a log's lines."""

from typing import ClassVar, Final

from typing_extensions import override

from worker.errors import UsageError
from worker.formats.base import Decoder, Row
from worker.formats.guess import MARK

MESSAGE: Final = "message"


class LinesDecoder(Decoder):
    """Each value is one text, in UTF-8: the field `message`. Nothing is refused.

    Line ends behind it and a byte order mark in front of it are left out; lines within, as those of a stack trace, stay
    in it. Bytes that are no UTF-8 become U+FFFD each.
    """

    is_flat: ClassVar[bool] = True

    @override
    def parse(self, value: bytes) -> Row:
        return {MESSAGE: value.removeprefix(MARK).rstrip(b"\r\n").decode("utf-8", "replace")}

    @override
    def encode(self, row: Row) -> bytes:
        if row.keys() != {MESSAGE}:
            raise UsageError("a line of text has no other field than its message")
        text = row[MESSAGE]
        return b"" if text is None else str(text).encode("utf-8", "replace")
