"""Fields that hold numbers."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from worker.errors import ErrorCode, SchemaError
from worker.features.kinds.base import Column, Failures, Field, is_whole
from worker.features.kinds.evidence import Evidence, Sample, Strength
from worker.features.kinds.options import TEXTS, Check, one_of, option
from worker.features.learned import NumericColumn
from worker.features.number_forms import DECIMALS, MAX_UNIT, PLAIN, THOUSANDS, NumberForm, doubles, read_values
from worker.features.scaling import Scaling, fit_scaling
from worker.features.values import MISSING
from worker.records import FloatArray

TRANSFORMS = ("auto", "linear", "log1p")
FACTORS = (100, 1000)  # cents for euros, grams for kilograms
CONCEALED_STEPS = 16  # in a scale: how finely a redacted number is kept


def _is_range(value: Any) -> bool:
    pair = isinstance(value, list) and len(value) == 2 and all(type(end) in (int, float) for end in value)
    return pair and -1e300 <= value[0] < value[1] <= 1e300


RANGE = Check("[low, high], two finite numbers with low below high", _is_range, lambda ends: tuple(map(float, ends)))

SEPARATOR = Check("one of " + " ".join(map(repr, THOUSANDS)), lambda value: value in THOUSANDS)
UNIT = Check(
    f"1 to {MAX_UNIT} characters, more than an e, none of them a digit, a sign, a separator or a space",
    lambda value: (
        isinstance(value, str)
        and re.fullmatch(rf"(?![eE]$)[^0-9.,_'\u2019\s+\u2212-]{{1,{MAX_UNIT}}}", value) is not None
    ),
)


@dataclass(frozen=True)
class Numeric(Field):
    """A number, also one that stands in a string.

    transform   "log1p" takes sign(x) log(1 + |x|) first, "auto" decides from the data
    range       smallest and largest value that can occur, for models that scale to [0, 1]; None = as fitted
    decimal     what begins the fraction in strings (default: a point, a comma where points stand
                between groups of digits)
    thousands   what stands between groups of digits in strings (default: nothing)
    unit        what stands before or behind the digits in strings, such as EUR or ms (default: nothing)
    missing     strings that stand for no value; None = those of worker.features.values.MISSING
    """

    kind, accepts, expected = "numeric", frozenset({int, float, str}), "a number"
    parts = ("value",)
    has_categories = False
    cell = "number"
    anomaly = "scaled_number"
    usual_gaps = MISSING
    is_level = True

    transform: str = option("auto", one_of(TRANSFORMS))
    range: tuple[float, float] | None = option(None, RANGE)
    decimal: str | None = option(None, Check('"." or ","', lambda value: value in DECIMALS))
    thousands: str | None = option(None, SEPARATOR)
    unit: str | None = option(None, UNIT)
    missing: tuple[str, ...] | None = option(None, TEXTS)

    def __post_init__(self) -> None:
        if self.form.decimal == self.form.thousands:
            raise SchemaError(f"field {self.name!r}: decimal and thousands are both {self.form.decimal!r}")

    @cached_property
    def form(self) -> NumberForm:
        """How strings are read."""
        usual = "," if self.thousands == "." else "."
        return NumberForm(self.decimal or usual, self.thousands or "", self.unit or "")

    @override
    def cell_sort(self) -> str:
        return self.cell if self.form == PLAIN else "text"

    @classmethod
    @override
    def infer(cls, sample: Sample) -> Evidence | None:
        sample = sample.present
        reading = sample.reading
        if reading is None:
            return None
        why = "whole numbers" if is_whole(reading.numbers) else "numbers"
        if str in sample.types:
            why += " in strings" if sample.types == {str} else ", some in strings"
        options = reading.form.options()
        if reading.gaps:
            options["missing"] = (*MISSING, *reading.gaps)
        return Evidence(Strength.TYPES, why, options, reading.doubt)

    @override
    def parse(self, column: Column) -> tuple[NDArray[np.float64], Failures]:
        values, missing = column.values, column.missing
        if str in column.types:
            x = read_values(values, self.form)
        elif missing is None:
            try:
                x = np.fromiter(values, np.float64, len(values))
            except OverflowError:
                x = doubles(values)
        else:
            x = doubles(values)
        if missing is not None:
            x[missing] = 0.0
        failures = {}
        for index in np.flatnonzero(~np.isfinite(x)).tolist():
            if np.isnan(x[index]) and type(values[index]) is str:
                failures[index] = self.wrong_type(values[index])
            else:
                detail = "expected a finite number, got one that a double can't hold"
                failures[index] = self.failure(ErrorCode.NOT_FINITE, detail)
        return x, failures

    @override
    def scaling(self, x: FloatArray, preprocessing: str) -> Scaling:
        return fit_scaling(x, self.transform, preprocessing, self.range)

    @override
    def conceal(self, column: Column, columns: Sequence[NumericColumn], token: Callable[[Any], str]) -> Sequence[Any]:
        if len(columns) != 1 or not self.accepts & {int, float}:
            return [None] * len(column.values)
        (learned,) = columns
        z = np.round(learned.scaling.apply(self.numbers(column)[0]) * CONCEALED_STEPS) / CONCEALED_STEPS
        steps = [round(x) if learned.whole else x for x in map(learned.scaling.invert, z.tolist())]
        return [None if value is None else step for value, step in zip(column.values, steps, strict=True)]

    @override
    def drift(self, learned: Sequence[Any], recent: Sequence[Any]) -> tuple[float, float]:
        return drift_of_numbers(self, 0, learned, recent)

    @override
    def can_plant(self, value: Any) -> bool:
        column, failures = self.read([value])
        return not failures and column.missing is None and bool(column.numbers[0])

    @override
    def plant(self, value: Any, rng: Random) -> Any:
        factor = rng.choice(FACTORS)
        return self.form.scaled(value, factor) if isinstance(value, str) else scaled(value, factor)


def drift_of_numbers(field: Field, part: int, learned: Sequence[Any], recent: Sequence[Any]) -> tuple[float, float]:
    """What `drift` says by one of a field's numbers: the two-sample Kolmogorov-Smirnov test; without any number on a
    side, how far the shares of missing ones lie apart.
    """
    from scipy.stats import ks_2samp

    sides = []
    for values in (learned, recent):
        column, failures = field.read(values)
        there = [index not in failures and value is not None for index, value in enumerate(column.values)]
        sides.append(field.numbers(column)[part][there])
    if not all(map(len, sides)):
        return Field.drift(field, [value is None for value in learned], [value is None for value in recent])
    result = ks_2samp(*sides, method="asymp")
    return float(result.statistic), float(result.pvalue)


def scaled(value: float, factor: float) -> float:
    """A number times a factor; a whole number stays one where the result is whole."""
    product = value * factor
    return int(product) if isinstance(value, int) and product == int(product) else product
