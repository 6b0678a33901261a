"""Records that form a picture, and what the model expected of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from worker.features.kinds import Numeric
from worker.features.schema import Image, value_of
from worker.features.vectorize import Vectorizer
from worker.formats.base import Decoded
from worker.model.network.reconstruct import Reconstructor
from worker.model.store.bundle import Bundle
from worker.records import Message

MIN_INK = 0.02
"""Ink below this share is not drawn: most pixels of a picture are background."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of width x height pixels; pixels: (x, y, ink from 0 to 1) of those that have ink."""

    label: str
    width: int
    height: int
    pixels: list[tuple[int, int, float]]


class Pictures:
    """Draws records of one model's schema."""

    def __init__(self, bundle: Bundle, image: Image) -> None:
        self._image = image
        self._fitted = bundle.fitted
        self._vectorizer = Vectorizer(bundle.fitted)
        self._reconstructor = Reconstructor(bundle.network)
        self._columns = [(name, bundle.fitted.numeric_fields.index(name)) for name in image.fields]
        # An empty and a full pixel: the schema's ranges, else what was usual at fit.
        known = {field.name: field.range for field in bundle.schema.fields if isinstance(field, Numeric)}
        stats = bundle.fitted.stats_of
        ranges = [known.get(name) or (stats[name].low or 0.0, stats[name].high or 0.0) for name in image.fields]
        self._low, self._high = min(low for low, _ in ranges), max(high for _, high in ranges)

    def pair(self, record: Mapping[str, Any]) -> list[Picture]:
        """The record and its reconstruction; none where the record can't be scored (a redacted pixel)."""
        row = dict(record)
        vectors = self._vectorizer.transform(Decoded([Message("", 0, 0, -1, None, b"")], [row], [], 0))
        if not vectors.rows:
            return []
        rebuilt = self._reconstructor.rows(vectors.numeric, vectors.category_ids).numeric[0]
        observed = [value_of(row, name) for name in self._image.fields]
        expected = [self._fitted.expected(name, [rebuilt[column]]) for name, column in self._columns]
        return [self._draw(observed, "observed"), self._draw(expected, "expected")]

    def _draw(self, values: Sequence[float | None], label: str) -> Picture:
        numbers = np.array([self._low if value is None else value for value in values], np.float64)
        ink = np.clip((numbers - self._low) / ((self._high - self._low) or 1.0), 0.0, 1.0)
        width = self._image.width
        pixels = [(at % width, at // width, float(ink[at])) for at in np.flatnonzero(ink > MIN_INK).tolist()]
        return Picture(label, width, len(self._image.fields) // width, pixels)
