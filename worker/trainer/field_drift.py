"""Which fields have moved: the rows that the model learned from against recent ordinary ones, field by field.

Each kind of field says how far two samples of its values lie apart. With thousands of rows every difference is
significant, so a field has drifted only where the distance is large as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from worker.features.columns import value_of
from worker.features.schema import Field, Schema
from worker.formats.base import Row

SIGNIFICANCE = 1e-3
"""Chance of a false alarm over all fields together (Bonferroni)."""

DISTANCE = 0.1
"""Least distance of a drifted field, in [0, 1]: the largest gap between the two cumulative distributions of a number,
the total variation distance of a category."""

MIN_ROWS = 50


@dataclass(frozen=True, slots=True)
class FieldDrift:
    """distance: see DISTANCE. p_value: chance of such a distance where nothing moved."""

    field: str
    distance: float
    p_value: float


def drifted(learned: Sequence[Row], recent: Sequence[Row], schema: Schema) -> list[FieldDrift]:
    """The fields that have moved, furthest first; none where either side has fewer than MIN_ROWS rows.

    Fields of time are left out: time always moves.
    """
    if min(len(learned), len(recent)) < MIN_ROWS:
        return []
    fields = [field for field in schema.encoded if not field.is_time]
    compared = [_compare(field, learned, recent) for field in fields]
    moved = [drift for drift in compared if drift.distance >= DISTANCE and drift.p_value < SIGNIFICANCE / len(fields)]
    return sorted(moved, key=lambda drift: -drift.distance)


def _compare(field: Field, learned: Sequence[Row], recent: Sequence[Row]) -> FieldDrift:
    before, after = ([value_of(row, field.name) for row in rows] for rows in (learned, recent))
    return FieldDrift(field.name, *field.drift(before, after))
