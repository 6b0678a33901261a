"""Records that are JSON objects."""

import json
import re
from collections.abc import Sequence
from typing import Any, Literal, Self

import orjson
from typing_extensions import override

from worker.errors import ErrorCode, RecordError
from worker.formats.base import Decoder, FormatOptions, Row, type_name
from worker.formats.guess import CONFLUENT, HEADER_BYTES, MARK, NOT_FINITE, looks_like, without_not_finite

# orjson reads 1024 levels and writes 254: a record must still fit into the alert that carries it.
MAX_DEPTH = 200
MAX_VALUES = 10_000  # in one record
_SCANNER = json.JSONDecoder()  # tells where a value ends
_BETWEEN = re.compile(r"[ \t\r\n,]*")


class JsonDecoder(Decoder):
    """Each value is one JSON object in UTF-8, or an array of one.

    With the option `array` a longer one, and several objects one after the other, are an object with this array.

    Passed over in front of it are a byte order mark and the five bytes of Confluent's serializers. Duplicate keys: the
    last one wins. Integers outside 64 bits become floats. Refused are `invalid_json` (also empty, NaN unless it is read
    as null, deeper than 200 levels), `not_finite` (a number beyond the range of a double) and `not_an_object`; the
    reason says what the value looks like, and which setting reads it.
    """

    _nan: Literal["refuse", "null"] = "refuse"
    _array: str | None = None

    @override
    def configured(self, options: FormatOptions) -> Self:
        self._nan, self._array = options.nan, options.array
        return self

    @override
    def parse(self, value: bytes) -> Row:
        row = self._loaded(bare(value), value)
        if type(row) is list:
            row = row[0] if len(row) == 1 else row if self._array is None else {self._array: row}
        if type(row) is not dict:
            guess = f"; {looks_like(value)}" if isinstance(row, list | str) else ""
            raise RecordError(ErrorCode.NOT_AN_OBJECT, f"expected a JSON object, got {type_name(row)}{guess}")
        check_nesting(row, value)
        return row

    def _loaded(self, content: bytes, value: bytes) -> Any:
        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError as error:
            if self._nan == "null" and any(word in content for word in NOT_FINITE):
                finite = without_not_finite(content)
                if finite != content:
                    return self._loaded(finite, value)
            if self._array is not None and (values := several_values(content)) is not None:
                return values
            error_code = ErrorCode.NOT_FINITE if "infinity" in str(error) else ErrorCode.INVALID_JSON
            guess = "" if error_code is ErrorCode.NOT_FINITE else f"{looks_like(value)}; "
            raise RecordError(error_code, f"{guess}{error}") from None

    @override
    def parse_batch(self, values: Sequence[bytes], size: int) -> list[Row] | None:
        if size > 2 * MAX_DEPTH and any(map(_may_be_deep, values)):
            return None
        if values and values[0][:1] in (CONFLUENT, MARK[:1]):  # the whole topic, then
            values = list(map(bare, values))
        try:
            rows = list(map(orjson.loads, values))
        except orjson.JSONDecodeError:
            return None
        return rows if set(map(type, rows)) <= {dict} else None

    @override
    def encode(self, row: Row) -> bytes:
        return orjson.dumps(row)


def several_values(content: bytes) -> list[Any] | None:
    """The objects that stand one after the other, with white space or a comma between them; None where there is only
    one, or more than 10,000, or something else stands there.

    >>> several_values(b'{"a": 1}{"a": 2}'), several_values(b'{"a": 1} x')
    ([{'a': 1}, {'a': 2}], None)
    """
    try:
        text = content.decode()
        values, at = list[Any](), 0
        while (at := _BETWEEN.match(text, at).end()) < len(text):  # type: ignore[union-attr]  # it matches nothing, too
            _, end = _SCANNER.raw_decode(text, at)
            values.append(orjson.loads(text[at:end]))
            at = end
            if len(values) > MAX_VALUES:
                return None
    except (ValueError, RecursionError):
        return None
    return values if len(values) > 1 and set(map(type, values)) == {dict} else None


def bare(value: bytes) -> bytes:
    """The JSON of a value, without Confluent's bytes and a mark in front of it."""
    return (value[HEADER_BYTES:] if value.startswith(CONFLUENT) else value).removeprefix(MARK)


def check_nesting(row: Row, value: bytes) -> None:
    """`check_depth`, where JSON of these bytes may be that deep."""
    if _may_be_deep(value):
        check_depth(row)


def _may_be_deep(value: bytes) -> bool:
    """Whether JSON of these bytes may be nested deeper than MAX_DEPTH: each level takes two bytes."""
    return len(value) > 2 * MAX_DEPTH and value.count(b"{") + value.count(b"[") > MAX_DEPTH


def check_depth(row: Row) -> None:
    """RecordError where a row is nested deeper than MAX_DEPTH; it is looked at level by level, for it may be deep."""
    depth, level = 0, list[Any]([row])
    while level:
        depth += 1
        children = (item for box in level for item in (box.values() if isinstance(box, dict) else box))
        level = [item for item in children if isinstance(item, dict | list)]
    if depth > MAX_DEPTH:
        raise RecordError(ErrorCode.INVALID_JSON, f"nested deeper than {MAX_DEPTH} levels")
