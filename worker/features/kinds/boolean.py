"""Fields that are true or false."""

from dataclasses import dataclass

from typing_extensions import override

from worker.features.kinds.base import Evidence, Field, Sample, Strength


@dataclass(frozen=True)
class Boolean(Field):
    """True or false: a category of two."""

    kind = "boolean"
    accepts = frozenset({bool})
    expected = "a boolean"
    cell = "boolean"

    @classmethod
    @override
    def infer(cls, sample: Sample) -> Evidence | None:
        return Evidence(Strength.TYPES, "true or false") if sample.types == {bool} else None
