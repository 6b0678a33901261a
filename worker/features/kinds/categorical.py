"""Fields that hold one of a set of values."""

from dataclasses import dataclass
from random import Random
from typing import Any

from typing_extensions import override

from worker.features.kinds.base import Evidence, Field, Sample, Strength, option, whole_number


@dataclass(frozen=True)
class Categorical(Field):
    """One of a set of values, such as a country or an error code.

    max_values     size of the vocabulary; rarer values share one id, or `hash_buckets` ids
    hash_buckets   number of ids over which the rarer values spread by their hash; 0 = they share one
    """

    kind, accepts = "categorical", frozenset({str, int, bool})
    expected = "a string, a whole number or a boolean"
    anomaly = "unseen_category"

    max_values: int = option(1024, whole_number(1))
    hash_buckets: int = option(0, whole_number(0))

    @classmethod
    @override
    def infer(cls, sample: Sample) -> Evidence | None:
        return (Strength.TYPES, "strings that repeat") if sample.types == {str} else None

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
