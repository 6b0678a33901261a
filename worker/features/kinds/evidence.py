"""What speaks for a kind in the values of a field that nobody has described."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

from worker.features.number_forms import Reading, find_reading
from worker.features.values import MISSING, without_missing

MIN_ROWS = 20  # fewer prove neither a constant nor an id


class Strength(IntEnum):
    """How much speaks for a kind. The strongest evidence decides, of equal ones that of the kind registered first."""

    TYPES = 1  # the JSON types of the values
    REPETITION = 2  # how often values come again
    FORM = 3  # what each single value looks like


class Evidence(NamedTuple):
    """What speaks for a kind.

    why       the reason, in words
    options   options of the schema file that the field needs
    doubt     what a person should know before they rely on it; empty where there is nothing
    """

    strength: Strength
    why: str
    options: Mapping[str, Any] = MappingProxyType({})
    doubt: str = ""


@dataclass(frozen=True)
class Sample:
    """Values of a field, in the order of their records: at least one, none of them None, an array or an object."""

    values: Sequence[Any]
    types: Set[type]
    distinct: int

    @cached_property
    def present(self) -> "Sample":
        """Those that don't say that there is no value, such as N/A; the sample itself where none does."""
        values = without_missing(self.values, self.types, MISSING)
        if values is self.values:  # so that what this sample has found out of its values is not found out again
            return self
        there = [value for value in values if value is not None]
        return Sample(there, set(map(type, there)), len({(type(value), value) for value in there}))

    @cached_property
    def reading(self) -> Reading | None:
        """How its values are numbers, also where they stand in strings; None where one is none."""
        return find_reading(self.values) if self.values and self.types <= {int, float, str} else None
