"""What the options of a kind may be in the schema file: a dataclass field each, with a check."""

from collections.abc import Callable, Sequence
from dataclasses import field
from typing import Any, NamedTuple


class Check(NamedTuple):
    """What an option's value in the schema file must be: in words, as a test, and what becomes of it."""

    expected: str
    accepts: Callable[[Any], bool]
    convert: Callable[[Any], Any] = lambda value: value


FLAG = Check("true or false", lambda value: isinstance(value, bool))


def one_of(names: Sequence[str]) -> Check:
    """One of these words."""
    return Check("one of " + ", ".join(names), lambda value: value in names)


def size(minimum: int) -> Check:
    """A whole number of at least this size."""
    expected = f"a whole number from {minimum} to 1000000"
    # By its very type, for True is an int to isinstance, and a schema file that says true means a switch.
    return Check(expected, lambda value: type(value) is int and minimum <= value <= 1_000_000)


TEXTS = Check(
    "a list of strings",
    lambda value: isinstance(value, list) and all(isinstance(text, str) for text in value),
    tuple,
)


def option(default: Any, check: Check) -> Any:
    """A dataclass field that a schema file may set."""
    # The check stands with the field, so that a kind's class is all there is to know of its options: the reader of
    # schema files, the page of options and the errors go by it.
    return field(default=default, metadata={"check": check})
