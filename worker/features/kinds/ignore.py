"""Fields that nothing looks at."""

from collections.abc import Mapping
from dataclasses import dataclass

from typing_extensions import override

from worker.features.kinds.base import Check, Field


@dataclass(frozen=True)
class Ignore(Field):
    """A label, a constant, an array: part of the record in the alert, and of nothing else."""

    kind = "ignore"

    @classmethod
    @override
    def checks(cls) -> Mapping[str, Check]:
        checks = dict(super().checks())
        del checks["required"]
        return checks

    @property
    @override
    def encoded(self) -> bool:
        return False
