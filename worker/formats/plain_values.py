"""Values of typed formats as JSON has them."""

from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from math import isfinite
from typing import Any

Read = Callable[[Any], Any]
"""From a value as it is written to a plain one; what can't be read stays as it is."""

MAX_DECIMAL_BYTES = 64
MAX_SCALE = 1_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SAFE_INTEGER = 1 << 53


def plain_bytes(value: bytes) -> str:
    """Text where they are UTF-8, else base64, as of Parquet's bytes."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return b64encode(value).decode()


def plain_float(value: float) -> float | None:
    """The number; None for NaN and an infinite one."""
    return value if isfinite(value) else None


def plain_number(number: Decimal) -> int | float | None:
    """A decimal as a JSON number; None where it has no finite one."""
    if not number.is_finite():
        return None
    if number == (whole := number.to_integral_value()) and abs(whole) < _SAFE_INTEGER:
        return int(whole)
    value = float(number)
    return value if isfinite(value) else None


def plain_decimal(value: bytes, scale: Any) -> int | float | str | None:
    """The number of a two's complement, big-endian; base64 of one of more than 64 bytes, or without a usable scale."""
    if len(value) > MAX_DECIMAL_BYTES or not isinstance(scale, int) or abs(scale) > MAX_SCALE:
        return b64encode(value[:MAX_DECIMAL_BYTES]).decode()
    return plain_number(Decimal(int.from_bytes(value, "big", signed=True)).scaleb(-scale))


def date_text(days: Any) -> Any:
    """Days since 1970 as 2026-03-01."""
    try:
        return (date(1970, 1, 1) + timedelta(days=days)).isoformat()
    except (OverflowError, TypeError):
        return days


def time_text(microseconds: int) -> str | None:
    """Microseconds since 1970 as ISO 8601, UTC; None outside of the calendar."""
    try:
        return (_EPOCH + timedelta(microseconds=microseconds)).isoformat().replace("+00:00", "Z")
    except OverflowError:
        return None


def time_reader(per_second: int) -> Read:
    """A count since 1970 as ISO 8601, UTC."""

    def read(value: Any) -> Any:
        text = time_text(value * 1_000_000 // per_second) if type(value) is int else None
        return value if text is None else text

    return read
