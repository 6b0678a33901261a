"""Fields that the model never sees: what names a record, and what nothing looks at."""

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass
from itertools import pairwise

from typing_extensions import override

from worker.features.kinds.base import FLAG, MIN_ROWS, Check, Evidence, Field, NotAnObject, Sample, Strength

NEARLY_ALL = 0.95  # share of distinct values; a retry repeats an id
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
        values, why = sample.values, None
        if len(values) < MIN_ROWS or sample.distinct <= NEARLY_ALL * len(values):
            return None
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


@dataclass(frozen=True)
class Ignore(Field):
    """A label, a constant, an array: part of the record in the alert, and of nothing else."""

    kind = "ignore"
    has_categories = False

    @classmethod
    @override
    def checks(cls) -> Mapping[str, Check]:
        return {"redact": FLAG}
