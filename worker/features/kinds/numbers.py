"""Fields that hold several numbers at once."""

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from worker.features.kinds.base import Column, Failures, Field
from worker.features.kinds.numeric import FACTORS, drift_of_numbers, scaled
from worker.features.learned import CategoryColumn, FieldStats, NumericColumn
from worker.features.number_forms import PLAIN
from worker.features.paths import MAX_MEMBERS, NotAnObject
from worker.records import FloatArray
from worker.texts import significant

_MAX = float(np.finfo(np.float64).max)


@dataclass(frozen=True)
class Numbers(Field):
    """Several numbers at once, such as the prices of an order's lines: the model sees the lowest, the highest, and how
    many there are.

    What is no finite number among them, nor a string that is one, is passed over; a record without any is one where the
    field is missing. It works badly where the order matters, as in a signal, or where a number in the middle is the
    strange one. Of a record the first 1,000 are read.

    >>> prices = Numbers("lines[].price")
    >>> column, _ = prices.read([[12.5, 3, None], [7]])
    >>> [part.tolist() for part in prices.numbers(column)]
    [[3.0, 7.0], [12.5, 7.0], [2.0, 1.0]]
    """

    kind, accepts, expected = "numbers", frozenset({list, int, float}), "an array of numbers"
    parts = ("lowest", "highest", "length")
    has_categories = False
    anomaly = "scaled_number"

    @override
    def read(self, values: Sequence[Any]) -> tuple[Column, Failures]:
        return super().read([value if type(value) is NotAnObject else _numbers(value) for value in values])

    @override
    def refused(self, types: Set[type]) -> Set[type]:
        return types & {NotAnObject}

    @override
    def parse(self, column: Column) -> tuple[NDArray[Any], Failures]:
        ends = np.zeros((len(column.values), 3))
        for at, value in enumerate(column.values):
            if value is not None:
                ends[at] = min(value), max(value), len(value)
        return ends, {}

    @override
    def numbers(self, column: Column) -> list[FloatArray]:
        return [column.numbers[:, at] for at in range(3)]

    @override
    def statistics(self, column: Column, vocabulary: CategoryColumn | None) -> FieldStats:
        lowest, highest, _ = column.present(self.numbers(column))
        if not len(lowest):
            return FieldStats(self.name)
        low, high = np.quantile(lowest, 0.01, method="inverted_cdf"), np.quantile(highest, 0.99, method="inverted_cdf")
        median = np.quantile(highest, 0.5, method="inverted_cdf")
        return FieldStats(self.name, low=float(low), high=float(high), median=float(median))

    @override
    def describe(self, stats: FieldStats, vocabulary: CategoryColumn | None) -> str:
        return "" if stats.low is None else f"{stats.low:g} to {stats.high:g}, the highest of a record {stats.median:g}"

    @override
    def observed(self, value: Any, vocabulary: CategoryColumn | None) -> Any:
        numbers = _numbers(value)
        return value if numbers is None else [min(numbers), max(numbers)]

    @override
    def read_back(self, columns: Sequence[NumericColumn], z: Sequence[float]) -> Any:
        """The lowest and the highest."""
        values = {column.part: (column, column.scaling.invert(at)) for column, at in zip(columns, z, strict=True)}
        ends = (values["lowest"], values["highest"])
        return [round(end) if column.whole else significant(end, 4) for column, end in ends]

    @override
    def conceal(self, column: Column, columns: Sequence[NumericColumn], token: Callable[[Any], str]) -> Sequence[Any]:
        """Nothing is kept: two ends of a scale tell too much of two numbers."""
        return [None] * len(column.values)

    @override
    def drift(self, learned: Sequence[Any], recent: Sequence[Any]) -> tuple[float, float]:
        """Of the highest numbers."""
        return drift_of_numbers(self, self.parts.index("highest"), learned, recent)

    @override
    def can_plant(self, value: Any) -> bool:
        return _numbers(value) is not None

    @override
    def plant(self, value: Any, rng: Random) -> Any:
        factor = rng.choice(FACTORS)
        return [scaled(number, factor) for number in _numbers(value) or ()]


def _numbers(value: Any) -> list[float] | None:
    """The finite numbers in a value; None where there are none."""
    values = value[:MAX_MEMBERS] if type(value) is list else [value]
    if str in set(map(type, values)):
        values = [PLAIN.read(number) if type(number) is str else number for number in values]
    return [number for number in values if type(number) in (int, float) and -_MAX <= number <= _MAX] or None
