"""Fields that name a record."""

import re
from collections.abc import Set
from dataclasses import dataclass
from itertools import pairwise

from typing_extensions import override

from worker.features.kinds.base import Evidence, Field, NotAnObject, Sample, Strength

UPWARDS = 0.9
"""Share of steps that go up in a counter; parallel writers swap neighbours."""

_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")


@dataclass(frozen=True)
class Id(Field):
    """A name of the record itself: carried into the alert, never encoded. Any value will do."""

    kind = "id"
    expected = "an id"
    is_id = True

    @classmethod
    @override
    def infer(cls, sample: Sample) -> Evidence | None:
        values, types = sample.values, sample.types
        if not sample.hardly_repeats:
            return None
        if types == {str}:
            why = "UUIDs that hardly repeat" if all(map(_UUID.fullmatch, values)) else "strings that hardly repeat"
            return Evidence(Strength.REPETITION, why)
        if types != {int}:
            return None
        if sum(after > before for before, after in pairwise(values)) >= UPWARDS * (len(values) - 1):
            return Evidence(Strength.REPETITION, "whole numbers that count up and hardly repeat")
        if min(values) >= 10**12:
            return Evidence(Strength.REPETITION, "very large whole numbers that hardly repeat")
        return None

    @property
    @override
    def encoded(self) -> bool:
        return False

    @override
    def refused(self, types: Set[type]) -> Set[type]:
        return types & {NotAnObject}
