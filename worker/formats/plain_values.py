"""Values of typed formats as JSON has them."""

from base64 import b64encode
from decimal import Decimal
from math import isfinite
from typing import Any

from worker.formats.envelopes.connect import plain_number

MAX_DECIMAL_BYTES = 64
MAX_SCALE = 1_000


def plain_bytes(value: bytes) -> str:
    """Text where they are UTF-8, else base64, as of Parquet's bytes."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return b64encode(value).decode()


def plain_float(value: float) -> float | None:
    """The number; None for NaN and an infinite one."""
    return value if isfinite(value) else None


def plain_decimal(value: bytes, scale: Any) -> int | float | str | None:
    """The number of a two's complement, big-endian; base64 of one of more than 64 bytes, or without a usable scale."""
    if len(value) > MAX_DECIMAL_BYTES or not isinstance(scale, int) or abs(scale) > MAX_SCALE:
        return b64encode(value[:MAX_DECIMAL_BYTES]).decode()
    return plain_number(Decimal(int.from_bytes(value, "big", signed=True)).scaleb(-scale))
