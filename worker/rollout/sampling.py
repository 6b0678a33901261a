"""Which records are tried on two models, and how one field of each is exchanged for another record's.

The choice depends on a record's offset alone, so that it is the same whatever the batching.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from worker.features.fitted import MISSING_PATTERN
from worker.features.vectorize import Vectors
from worker.model.store.bundle import Bundle
from worker.records import BoolArray, RawMessage

SAMPLE_EVERY = 8
"""One record in so many is tried: it is decoded again, encoded by both models and scored three times more, 13 us each
where the whole path takes 10 us a record: a sixth on top."""

_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_START = np.uint64(0x9E3779B97F4A7C15)


def hashes(messages: Sequence[RawMessage]) -> NDArray[np.uint64]:
    """A well-mixed number for each offset, uint64 (B,). Offsets themselves would do for no producer with a rhythm."""
    return mixed_up(np.fromiter((message.offset for message in messages), np.uint64, len(messages)))


def mixed_up(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Numbers (B,) to well-mixed ones, uint64 (B,) (the finaliser of splitmix64, Steele et al. 2014)."""
    mixed = numbers * _START + _START  # wraps around, as it should
    for shift, multiplier in zip((30, 27), _MULTIPLIERS, strict=True):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * multiplier
    return mixed ^ (mixed >> np.uint64(31))


def sampled(mixed: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Positions of the records that are tried, ascending."""
    return np.flatnonzero(mixed % np.uint64(SAMPLE_EVERY) == 0)


def chosen_fields(mixed: NDArray[np.uint64], fields: int) -> NDArray[np.int64]:
    """The field that is exchanged in each record, int64 (S,), 0 <= field < fields."""
    return ((mixed >> np.uint64(32)) % np.uint64(fields)).astype(np.int64)


def exchangeable(bundle: Bundle) -> tuple[str, ...]:
    """The fields whose values can be taken from another record: all but the pattern of missing ones."""
    return tuple(name for name in bundle.fields if name != MISSING_PATTERN)


class Exchange:
    """Puts one field of another record into each row, in one model's own columns."""

    def __init__(self, bundle: Bundle, fields: Sequence[str]) -> None:
        fitted = bundle.fitted
        self._numeric = [[j for j, name in enumerate(fitted.numeric_fields) if name == field] for field in fields]
        self._codes = [[j for j, name in enumerate(fitted.category_fields) if name == field] for field in fields]

    def rows(
        self, vectors: Vectors, field: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int32], BoolArray]:
        """Rows 1 to S of vectors (S + 1,), each with field (S,) of the row before it; and which of them it changed."""
        numeric, category_ids = vectors.numeric[1:].copy(), vectors.category_ids[1:].copy()
        for number in np.unique(field).tolist():
            at = np.flatnonzero(field == number)
            for column in self._numeric[number]:
                numeric[at, column] = vectors.numeric[at, column]
            for column in self._codes[number]:
                category_ids[at, column] = vectors.category_ids[at, column]
        changed = (numeric != vectors.numeric[1:]).any(1) | (category_ids != vectors.category_ids[1:]).any(1)
        return numeric, category_ids, changed
