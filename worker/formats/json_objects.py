"""Bytes to JSON objects; a record that is none becomes a dead letter and its neighbours go on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from worker.errors import ErrorCode, RecordError
from worker.records import DeadLetter, RawMessage

Row = dict[str, Any]

# orjson reads 1024 levels and writes 254: a record must still fit into the alert that carries it.
MAX_DEPTH = 200


@dataclass(frozen=True, slots=True)
class Decoded:
    """Every input message is in `messages`, in `rejects`, or counted in `skipped` (tombstones), exactly once.

    rows[i] is the JSON object of messages[i]; both keep the input order.
    """

    messages: list[RawMessage]
    rows: list[Row]
    rejects: list[DeadLetter]
    skipped: int


def decode(messages: Sequence[RawMessage], *, max_bytes: int) -> Decoded:
    """Parse every value as a JSON object (UTF-8). Never raises for what a message contains.

    Duplicate keys: the last one wins. Integers outside 64 bits become floats. Rejected: `too_large` (over
    `max_bytes` bytes), `invalid_json` (also empty, a byte order mark, NaN, deeper than 200 levels), `not_finite`
    (a number beyond the range of a double), `not_an_object`.
    """
    values = [message.value for message in messages]
    try:
        largest = max(map(len, values), default=0)  # type: ignore[arg-type]
        if largest <= max_bytes and (largest <= 2 * MAX_DEPTH or not any(map(_may_be_deep, values))):  # type: ignore[arg-type]
            rows = list(map(orjson.loads, values))  # type: ignore[arg-type]
            if set(map(type, rows)) <= {dict}:
                return Decoded(list(messages), rows, [], 0)
    except (TypeError, orjson.JSONDecodeError):
        pass  # a tombstone or a broken record: find out which, one by one
    return _decode_one_by_one(messages, max_bytes)


def _decode_one_by_one(messages: Sequence[RawMessage], max_bytes: int) -> Decoded:
    decoded = Decoded([], [], [], 0)
    skipped = 0
    for message in messages:
        if message.value is None:
            skipped += 1
            continue
        try:
            row = decode_one(message.value, max_bytes)
        except RecordError as error:
            decoded.rejects.append(DeadLetter(message, error.error_code, error.detail))
        else:
            decoded.messages.append(message)
            decoded.rows.append(row)
    return Decoded(decoded.messages, decoded.rows, decoded.rejects, skipped)


def decode_one(value: bytes, max_bytes: int) -> Row:
    """The JSON object in these bytes; RecordError says why there is none."""
    if len(value) > max_bytes:
        raise RecordError(ErrorCode.TOO_LARGE, f"{len(value)} bytes, the limit is {max_bytes}")
    try:
        row = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        code = ErrorCode.NOT_FINITE if "infinity" in str(error) else ErrorCode.INVALID_JSON
        raise RecordError(code, str(error)) from None
    if type(row) is not dict:
        raise RecordError(ErrorCode.NOT_AN_OBJECT, f"expected a JSON object, got {type_name(row)}")
    if _may_be_deep(value) and _depth(row) > MAX_DEPTH:
        raise RecordError(ErrorCode.INVALID_JSON, f"nested deeper than {MAX_DEPTH} levels")
    return row


def type_name(value: Any) -> str:
    """What JSON calls the type of this value, with its article."""
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "an array"}
    return "null" if value is None else names.get(type(value), "an object")


def _may_be_deep(value: bytes) -> bool:
    # Each level takes two bytes, so a short record needs no count.
    return len(value) > 2 * MAX_DEPTH and value.count(b"{") + value.count(b"[") > MAX_DEPTH


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        children = (item for box in level for item in (box.values() if isinstance(box, dict) else box))
        level = [item for item in children if isinstance(item, dict | list)]
    return depth
