"""Change events as Debezium writes them: `op`, `before`, `after`, `source`, with or without Connect's schema around.

    {"schema": {...}, "payload": {"op": "d", "before": {"amount": "B4s="}, "after": null, ...}}

becomes, for a scale of 2 in the schema,

    {"payload": {"op": "d", "before": {"amount": 19.31}, "after": {"amount": 19.31}, ...}}
"""

import re
from collections.abc import Sequence
from typing import Any, Final

import orjson
from typing_extensions import override

from worker.formats.base import Row
from worker.formats.envelopes.base import Envelope
from worker.formats.envelopes.connect import reader_of
from worker.formats.json_objects import check_nesting

_SIDES: Final = ("before", "after")
MAX_KEYS = 32  # beside schema and payload; a converter writes no others, a person's tools may add some
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4}){0,5}(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})")
MAX_ROWS, MIN_DECIMALS, MIN_PADDED = 500, 20, 0.2


class Debezium(Envelope):
    """A deleted row stands in `after`, too; decimals and times are read by the schema beside the payload, which is then
    left out, for it is the same in all records. Documents of MongoDB, which come as texts, become objects.
    """

    names = ("after", "before", "payload")
    mark = b""

    @override
    def open(self, row: Row) -> Row:
        payload = row.get("payload")
        if isinstance(payload, dict) and _is_schema(row.get("schema")) and len(row) <= MAX_KEYS:
            if (read := reader_of(row["schema"])) is not None:
                payload = read(payload)
            row = {key: payload if key == "payload" else value for key, value in row.items() if key != "schema"}
        event = payload if isinstance(payload, dict) else row
        for side in _SIDES:
            document = event.get(side)
            if isinstance(document, str) and document[:1] == "{" and "op" in event:
                event[side] = _document(document)
        if event.get("op") == "d" and event.get("after") is None and isinstance(event.get("before"), dict):
            event["after"] = event["before"]
        return row


def _is_schema(value: Any) -> bool:
    return isinstance(value, dict) and value.get("type") == "struct"


def _document(text: str) -> Any:
    """The object in a text; the text where it is none."""
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    check_nesting({"document": document}, text.encode())
    return document


def undecoded_decimals(rows: Sequence[Row]) -> list[str]:
    """Fields whose texts are what Connect makes of decimals, in records that say no scale: short bytes in base64.

    All of a field's texts must be that, at least 20 of them, and a fifth of them padded, which words are not.

    >>> undecoded_decimals([{"after": {"amount": "B4s=", "shop": "abcd"}}] * 20)
    ['after.amount']
    """
    texts: dict[str, list[str]] = {}
    for row in rows[:MAX_ROWS]:
        _collect(row, "", texts, 0)
    return [
        name
        for name, values in texts.items()
        if len(values) >= MIN_DECIMALS
        and sum(value.endswith("=") for value in values) >= MIN_PADDED * len(values)
        and all(_BASE64.fullmatch(value) for value in values)
    ]


def _collect(row: Row, prefix: str, texts: dict[str, list[str]], level: int) -> None:
    for key, value in row.items():
        if isinstance(value, str) and value:
            texts.setdefault(f"{prefix}{key}", []).append(value)
        elif isinstance(value, dict) and level < 4:
            _collect(value, f"{prefix}{key}.", texts, level + 1)
