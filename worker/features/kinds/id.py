"""Fields that name a record."""

import re
from collections.abc import Set
from dataclasses import dataclass
from itertools import pairwise

from typing_extensions import override

from worker.features.kinds.base import Evidence, Field, NotAnObject, Sample, Strength

UPWARDS = 0.9  # share of steps that go up in a counter; parallel writers swap neighbours
_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")


@dataclass(frozen=True)
class Id(Field):
    """A name of the record itself: carried into the alert, never encoded. Any value will do."""

    kind, expected = "id", "an id"
    has_categories = False
    is_id = True

    @classmethod
    @override
    def infer(cls, sample: Sample) -> Evidence | None:
        if not sample.hardly_repeats:
            return None
        values, why = sample.values, None
        if sample.types == {str}:
            why = "UUIDs that hardly repeat" if all(map(_UUID.fullmatch, values)) else "strings that hardly repeat"
        elif sample.types == {int}:
            if sum(after > before for before, after in pairwise(values)) >= UPWARDS * (len(values) - 1):
                why = "whole numbers that count up and hardly repeat"
            elif min(values) >= 10**12:
                why = "very large whole numbers that hardly repeat"
        return (Strength.REPETITION, why) if why is not None else None

    @override
    def refused(self, types: Set[type]) -> Set[type]:
        return types & {NotAnObject}
