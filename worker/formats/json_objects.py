"""Records that are JSON objects."""

from collections.abc import Sequence
from typing import Any

import orjson
from typing_extensions import override

from worker.errors import ErrorCode, RecordError
from worker.formats.base import Decoder, Row, type_name

# orjson reads 1024 levels and writes 254: a record must still fit into the alert that carries it.
MAX_DEPTH = 200


class JsonDecoder(Decoder):
    """Each value is one JSON object in UTF-8.

    Duplicate keys: the last one wins. Integers outside 64 bits become floats. Refused are `invalid_json` (also empty, a
    byte order mark, NaN, deeper than 200 levels), `not_finite` (a number beyond the range of a double) and
    `not_an_object`.
    """

    @override
    def parse(self, value: bytes) -> Row:
        try:
            row = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            error_code = ErrorCode.NOT_FINITE if "infinity" in str(error) else ErrorCode.INVALID_JSON
            raise RecordError(error_code, str(error)) from None
        if type(row) is not dict:
            raise RecordError(ErrorCode.NOT_AN_OBJECT, f"expected a JSON object, got {type_name(row)}")
        depth, level = 0, list[Any]([row] if _may_be_deep(value) else [])
        while level:  # level by level: recursion over a record from outside could end the process
            depth += 1
            children = (item for box in level for item in (box.values() if isinstance(box, dict) else box))
            level = [item for item in children if isinstance(item, dict | list)]
        if depth > MAX_DEPTH:
            raise RecordError(ErrorCode.INVALID_JSON, f"nested deeper than {MAX_DEPTH} levels")
        return row

    @override
    def parse_batch(self, values: Sequence[bytes], size: int) -> list[Row] | None:
        if size > 2 * MAX_DEPTH and any(map(_may_be_deep, values)):
            return None
        try:
            rows = list(map(orjson.loads, values))
        except orjson.JSONDecodeError:
            return None
        return rows if set(map(type, rows)) <= {dict} else None

    @override
    def encode(self, row: Row) -> bytes:
        return orjson.dumps(row)


def _may_be_deep(value: bytes) -> bool:
    # Each level takes two bytes, so a short record needs no count.
    return len(value) > 2 * MAX_DEPTH and value.count(b"{") + value.count(b"[") > MAX_DEPTH
