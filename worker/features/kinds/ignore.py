"""Fields that nothing looks at."""

from collections.abc import Mapping
from dataclasses import dataclass

from typing_extensions import override

from worker.features.kinds.base import FLAG, Check, Field


@dataclass(frozen=True)
class Ignore(Field):
    """A label, a constant, an array: part of the record in the alert, and of nothing else."""

    kind = "ignore"
    has_categories = False

    @classmethod
    @override
    def checks(cls) -> Mapping[str, Check]:
        return {"redact": FLAG}
