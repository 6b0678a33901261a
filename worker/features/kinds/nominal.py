"""Fields whose values are names: of categories, of the record itself, or of nothing at all."""

import re
from collections.abc import Set
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
from typing_extensions import override

from worker.features.kinds.base import MIN_ROWS, Evidence, Field, Sample, Strength, option, size
from worker.features.number_forms import spread_evenly
from worker.features.paths import NotAnObject

NEARLY_ALL = 0.95  # share of distinct values; a retry repeats an id
UPWARDS = 0.9  # share of steps that go up in a counter; parallel writers swap neighbours

_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")


@dataclass(frozen=True)
class Boolean(Field):
    """A category of two."""

    kind, accepts, expected = "boolean", frozenset({bool}), "a boolean"
    cell = "boolean"

    @classmethod
    @override
    def infer(cls, sample: Sample) -> Evidence | None:
        return Evidence(Strength.TYPES, "true or false") if sample.types == {bool} else None


@dataclass(frozen=True)
class Categorical(Field):
    """One of a set of values, such as a country or an error code.

    max_values     size of the vocabulary; rarer values share one id, or `hash_buckets` ids
    hash_buckets   number of ids over which the rarer values spread by their hash; 0 = they share one
    """

    kind, accepts = "categorical", frozenset({str, int, bool})
    expected = "a string, a whole number or a boolean"
    anomaly = "unseen_category"

    max_values: int = option(1024, size(1))
    hash_buckets: int = option(0, size(0))

    @classmethod
    @override
    def infer(cls, sample: Sample) -> Evidence | None:
        if sample.types != {str}:
            return None
        reading = sample.present.reading
        if reading is not None and len(reading.numbers) >= MIN_ROWS and spread_evenly(reading.numbers):
            why = f"strings with whole numbers, spread evenly up to {reading.numbers.max():.0f}"
            return Evidence(Strength.REPETITION, why, doubt="read as names; where they are amounts, write numeric")
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
