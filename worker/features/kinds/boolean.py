"""Fields that are true or false."""

from dataclasses import dataclass

from typing_extensions import override

from worker.features.kinds.base import Evidence, Field, Sample, Strength


@dataclass(frozen=True)
class Boolean(Field):
    """A category of two."""

    kind, accepts, expected = "boolean", frozenset({bool}), "a boolean"
    cell = "boolean"

    @classmethod
    @override
    def infer(cls, sample: Sample) -> Evidence | None:
        return (Strength.TYPES, "true or false") if sample.types == {bool} else None
