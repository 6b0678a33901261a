"""Records that form a picture, drawn beside what the model expected of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from worker.features.columns import value_of
from worker.features.image import Image
from worker.features.kinds import Numeric
from worker.features.vectorize import Vectorizer
from worker.formats.base import Decoded
from worker.model.network.reconstruct import Reconstructor
from worker.model.store.bundle import Bundle
from worker.records import FloatArray, Message

FAINTEST = 0.02
"""Ink below this share is not drawn: most pixels of a picture are background."""


class Pictures:
    """Draws records of one model's schema as inline SVG: nothing to load, and sharp at any size."""

    def __init__(self, bundle: Bundle, image: Image) -> None:
        self._image = image
        self._fitted = bundle.fitted
        self._vectorizer = Vectorizer(bundle.schema, bundle.fitted)
        self._reconstructor = Reconstructor(bundle.network)
        self._columns = [(name, bundle.fitted.numeric_fields.index(name)) for name in image.fields]
        self._low, self._high = _range(bundle, image)

    def pair(self, record: Mapping[str, Any]) -> str:
        """The record and its reconstruction as HTML; empty where the record can't be scored (a redacted pixel)."""
        row = dict(record)
        vectors = self._vectorizer.transform(Decoded([Message("", 0, 0, -1, None, b"")], [row], [], 0))
        if not vectors.rows:
            return ""
        found = self._reconstructor.rows(vectors.numeric, vectors.category_ids).numeric[0]
        observed = [value_of(row, name) for name in self._image.fields]
        expected = [self._fitted.expected(name, [found[column]]) for name, column in self._columns]
        return f'<div class="pictures">{self._svg(observed, "observed")}{self._svg(expected, "expected")}</div>'

    def _svg(self, values: Sequence[float | None], label: str) -> str:
        width, height = self._image.width, len(self._image.fields) // self._image.width
        ink = self._ink(values)
        pixels = "".join(
            f'<rect x="{place % width}" y="{place // width}" width="1" height="1" fill-opacity="{ink[place]:.2g}"/>'
            for place in np.flatnonzero(ink > FAINTEST).tolist()
        )
        return (
            f'<figure><svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{pixels}</svg>'
            f"<figcaption>{label}</figcaption></figure>"
        )

    def _ink(self, values: Sequence[float | None]) -> FloatArray:
        numbers = np.array([self._low if value is None else value for value in values], np.float64)
        scaled: FloatArray = np.clip((numbers - self._low) / ((self._high - self._low) or 1.0), 0.0, 1.0)
        return scaled


def _range(bundle: Bundle, image: Image) -> tuple[float, float]:
    """The values of an empty and of a full pixel: the schema's ranges, else what was ordinary at fit."""
    known = {field.name: field.range for field in bundle.schema.fields if isinstance(field, Numeric)}
    stats = bundle.fitted.stats_of
    lows, highs = [], []
    for name in image.fields:
        ends = known.get(name) or (stats[name].low or 0.0, stats[name].high or 0.0)
        lows.append(ends[0])
        highs.append(ends[1])
    return min(lows), max(highs)
