"""Fields that hold text: of each the model sees its sort, as a template, and how unusual it is."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from worker.features.kinds.base import Column, Failures
from worker.features.kinds.evidence import MIN_ROWS, Evidence, Sample, Strength
from worker.features.kinds.lexicon import TextReader, fit_lexicon
from worker.features.kinds.masks import masked
from worker.features.kinds.nominal import Categorical
from worker.features.learned import CategoryColumn, Lexicon
from worker.records import FloatArray
from worker.redaction import Pseudonym


@dataclass(frozen=True)
class Text(Categorical):
    """Free text, of which the model sees the template as a category, and as numbers its length, its novelty and its
    rarity, see `TextReading`. Where nothing was learned, which is so of a redacted field, the template is what the
    text's form alone shows, and the length the only number.
    """

    kind, accepts, expected = "text", frozenset({str}), "a string"
    parts = ("length", "novelty", "rarity")
    is_level = False

    lexicon: Lexicon | None = field(default=None, repr=False, compare=False)  # no option: what a fit learned

    @classmethod
    @override
    def infer(cls, sample: Sample) -> Evidence | None:
        if sample.types != {str} or sample.distinct < MIN_ROWS:
            return None
        spaces = sum(value.count(" ") for value in sample.values) / len(sample.values)
        letters = sum(map(len, sample.values)) / len(sample.values)
        is_text = spaces >= 2 and letters >= 20
        return Evidence(Strength.FORM, f"sentences, {letters:.0f} characters on average") if is_text else None

    @staticmethod
    def reduce(text: str) -> tuple[str, list[str]]:
        """The text with placeholders, and what stands at each of them."""
        return masked(text)

    @cached_property
    def _reader(self) -> TextReader | None:
        return None if self.lexicon is None else TextReader(self.lexicon, self.reduce)

    @override
    def learn(self, column: Column) -> Lexicon | None:
        return fit_lexicon(
            self.name, [text for text in column.values if type(text) is str], self.max_values, self.reduce
        )

    @override
    def knowing(self, lexicon: Lexicon) -> "Text":
        return replace(self, lexicon=lexicon)

    @override
    def parse(self, column: Column) -> tuple[NDArray[np.float64], Failures]:
        """Length, template, novelty and rarity, float64 (B, 4); without a lexicon no template, and zeros."""
        reader, nothing = self._reader, (-1, 0.0, 0.0)
        rows = []
        for text in column.values:
            length = text.length if type(text) is Pseudonym else len(text or "")
            rows.append((length, *(nothing if reader is None or type(text) is not str else reader.read(text))))
        return np.array(rows, np.float64).reshape(-1, 4), {}

    @override
    def part_names(self) -> tuple[str, ...]:
        return self.parts if self.lexicon is not None else self.parts[:1]

    @override
    def numbers(self, column: Column) -> list[FloatArray]:
        return [column.numbers[:, at] for at in (0, 2, 3)[: len(self.part_names())]]

    @override
    def categories(self, column: Column) -> Sequence[str | None]:
        if self.lexicon is None or self._reader is None:
            return [self.reduce(text)[0] if type(text) is str else text for text in column.values]
        templates, reader = self.lexicon.templates, self._reader
        return [
            templates[place] if place >= 0 else reader.line(text) if type(text) is str else text
            for place, text in zip(column.numbers[:, 1].astype(int).tolist(), column.values, strict=True)
        ]

    @override
    def fit_categories(self, categories: Sequence[str | None]) -> CategoryColumn | None:
        if self.lexicon is None:
            return super().fit_categories(categories)
        templates = self.lexicon.templates
        others = Counter(text for text in categories if text is not None)
        for text in templates:
            others.pop(text, None)
        spare = max(self.hash_buckets, 1) if max(others.values(), default=0) > 1 else 0
        return CategoryColumn(self.name, self.kind, templates, spare)

    @override
    def compared(self, values: Sequence[str | None]) -> Sequence[str | None]:
        return self.categories(self.read(values)[0])
