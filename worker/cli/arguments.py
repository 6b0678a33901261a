"""Numbers among the arguments: converters that say what is allowed."""

import argparse
import math
from collections.abc import Callable


def whole_number(low: int, high: int | None = None) -> Callable[[str], int]:
    """A converter to a whole number from `low`, up to `high` where there is an end."""
    allowed = f"a whole number from {low}" + (" on" if high is None else f" to {high}")

    def convert(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1  # what is no number is refused in the words of one that is too small
        if number < low or (high is not None and number > high):
            raise argparse.ArgumentTypeError(f"{text!r} is not {allowed}")
        return number

    return convert


def number(low: float, high: float = math.inf, *, above: bool = False) -> Callable[[str], float]:
    """A converter to a finite number from `low`, or above it, up to `high`."""
    allowed = f"a number {'above' if above else 'from'} {low:g}" + (f" up to {high:g}" if high < math.inf else "")

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan  # in no range, for it compares as false: hence `not value <= high`, and not `value > high`
        if not (low < value if above else low <= value) or not value <= high or math.isinf(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {allowed}")
        return value

    return convert
