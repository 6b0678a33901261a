"""Fields whose values are names: of categories, of the record itself, or of nothing at all."""

import re
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from worker.features.kinds.base import Column, Failures, Field
from worker.features.kinds.evidence import MIN_ROWS, Evidence, Sample, Strength
from worker.features.kinds.options import TEXTS, option, size
from worker.features.learned import NumericColumn
from worker.features.number_forms import PLAIN
from worker.features.number_names import find_names, spread_evenly
from worker.features.paths import NotAnObject
from worker.features.values import MISSING, PAIRS, read_boolean
from worker.redaction import Pseudonym

NEARLY_ALL = 0.95  # share of distinct values; a retry repeats an id
MAX_SPELLINGS = 8  # of true and false in one field, True and TRUE among them
AS_NAMES = "read as names; where they are amounts, write numeric"
UPWARDS = 0.9  # share of steps that go up in a counter; parallel writers swap neighbours

_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")


@dataclass(frozen=True)
class Boolean(Field):
    """True or false: a category of two. Read are booleans, 0 and 1, and the words for them in whatever case, such as
    "yes" and "N".

    missing   strings that stand for no value; None = those of worker.features.values.MISSING
    """

    kind, accepts, expected = "boolean", frozenset({bool, int, str}), "a boolean"
    cell = "boolean"
    usual_gaps = MISSING

    missing: tuple[str, ...] | None = option(None, TEXTS)

    @classmethod
    @override
    def infer(cls, sample: Sample) -> Evidence | None:
        if sample.types == {bool}:
            return Evidence(Strength.TYPES, "true or false")
        present = sample.present
        if not present.types <= {bool, str} or not 0 < present.distinct <= MAX_SPELLINGS:
            return None
        words = {value.strip().lower() for value in set(present.values) if type(value) is str}
        pair = next((pair for pair in PAIRS if words <= set(pair)), None)
        if pair is None or (words != set(pair) and bool not in present.types):
            return None
        return Evidence(Strength.FORM, f"strings with {pair[0]} and {pair[1]}")

    @override
    def parse(self, column: Column) -> tuple[NDArray[Any], Failures]:
        failures: Failures = {}
        if column.types - {bool, Pseudonym}:
            for index, value in enumerate(column.values):
                if value is not None and type(value) is not Pseudonym and read_boolean(value) is None:
                    failures[index] = self.wrong_type(value)
        return np.empty(0), failures

    @override
    def categories(self, column: Column) -> Sequence[Any]:
        if not column.types - {bool, Pseudonym}:
            return column.values
        return [value if type(value) is Pseudonym else read_boolean(value) for value in column.values]

    @override
    def conceal(self, column: Column, columns: Sequence[NumericColumn], token: Callable[[Any], str]) -> Sequence[Any]:
        plain = replace(column, values=self.categories(column), types=column.types - {int, str} | {bool})
        return super().conceal(plain, columns, token)

    @override
    def compared(self, values: Sequence[Any]) -> Sequence[Any]:
        return self.categories(self.read(values)[0])


@dataclass(frozen=True)
class Categorical(Field):
    """One of a set of values, such as a country or an error code.

    max_values     size of the vocabulary; rarer values share one id, or `hash_buckets` ids
    hash_buckets   number of ids over which the rarer values spread by their hash; 0 = they share one
    missing        strings that stand for no value (default: none does, "" is a category)
    """

    kind, accepts = "categorical", frozenset({str, int, bool})
    expected = "a string, a whole number or a boolean"
    anomaly = "unseen_category"
    is_level = True

    max_values: int = option(1024, size(1))
    hash_buckets: int = option(0, size(0))
    missing: tuple[str, ...] | None = option(None, TEXTS)

    @classmethod
    @override
    def infer(cls, sample: Sample) -> Evidence | None:
        reading = sample.present.reading if sample.types <= {int, str} else None
        if reading is not None and reading.form == PLAIN and not reading.gaps:
            numbers, in_strings = reading.numbers, str in sample.present.types
            names = find_names(numbers, in_strings=in_strings)
            if names is not None:
                return Evidence(
                    Strength.REPETITION, f"{names or 'numbers'} that repeat", doubt="" if names else AS_NAMES
                )
            if in_strings and len(numbers) >= MIN_ROWS and spread_evenly(numbers):
                why = "strings with whole numbers, spread evenly from the lowest on"
                return Evidence(Strength.REPETITION, why, doubt=AS_NAMES)
        if sample.types != {str}:
            return None
        return Evidence(Strength.TYPES, "strings that repeat")

    @override
    def type_name(self, value: Any) -> str:
        return "a fraction" if type(value) is float else super().type_name(value)

    @override
    def vocabulary_limit(self) -> tuple[int | None, int]:
        return self.max_values, self.hash_buckets

    @override
    def can_plant(self, value: Any) -> bool:
        return type(value) in (str, int)

    @override
    def plant(self, value: Any, rng: Random) -> Any:
        number = rng.randrange(10**9, 10**10)
        return f"unseen-{number}" if isinstance(value, str) else number


@dataclass(frozen=True)
class Id(Field):
    """A name of the record itself: carried into the alert, never encoded. Any value will do."""

    kind, expected = "id", "an id"
    has_categories = False
    is_id = True

    @classmethod
    @override
    def infer(cls, sample: Sample) -> Evidence | None:
        sample = sample.present
        values, reading, why = sample.values, sample.reading, None
        if len(values) < MIN_ROWS or sample.distinct <= NEARLY_ALL * len(values):
            return None
        if reading is None:
            if sample.types == {str}:
                why = "UUIDs that hardly repeat" if all(map(_UUID.fullmatch, values)) else "strings that hardly repeat"
        elif float not in sample.types and not reading.form.options() and bool((reading.numbers % 1 == 0).all()):
            if int((np.diff(reading.numbers) > 0).sum()) >= UPWARDS * (len(values) - 1):
                why = "whole numbers that count up and hardly repeat"
            elif reading.numbers.min() >= 10**12:
                why = "very large whole numbers that hardly repeat"
        return Evidence(Strength.REPETITION, why) if why is not None else None

    @override
    def refused(self, types: Set[type]) -> Set[type]:
        return types & {NotAnObject}


@dataclass(frozen=True)
class Ignore(Field):
    """A label, a constant, an array: part of the record in the alert, and of nothing else."""

    kind = "ignore"
    has_categories = False
    required: bool = False  # no option: it is never read
