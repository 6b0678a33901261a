"""Fields that hold text: of each the model sees its sort, as a template."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from typing_extensions import override

from worker.features.kinds.base import MIN_ROWS, Column, Evidence, Sample, Strength
from worker.features.kinds.masks import template
from worker.features.kinds.nominal import Categorical
from worker.records import FloatArray
from worker.redaction import Pseudonym


@dataclass(frozen=True)
class Text(Categorical):
    """Free text, of which the model sees the template as a category, and the length."""

    kind, accepts, expected = "text", frozenset({str}), "a string"
    parts = ("length",)
    is_level = False

    @classmethod
    @override
    def infer(cls, sample: Sample) -> Evidence | None:
        if sample.types != {str} or sample.distinct < MIN_ROWS:
            return None
        spaces = sum(value.count(" ") for value in sample.values) / len(sample.values)
        letters = sum(map(len, sample.values)) / len(sample.values)
        is_text = spaces >= 2 and letters >= 20
        return Evidence(Strength.FORM, f"sentences, {letters:.0f} characters on average") if is_text else None

    @override
    def numbers(self, column: Column) -> list[FloatArray]:
        lengths: Iterable[int] = (len(value or "") for value in column.values)
        if Pseudonym in column.types:
            lengths = (value.length if type(value) is Pseudonym else len(value or "") for value in column.values)
        return [np.fromiter(lengths, np.float64, len(column.values))]

    @override
    def categories(self, column: Column) -> Sequence[str | None]:
        return [value if value is None or type(value) is Pseudonym else template(value) for value in column.values]
