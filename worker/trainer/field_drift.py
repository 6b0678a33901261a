"""Which fields have moved: the rows that the model learned from against recent ordinary ones, field by field.

Numbers by the two-sample Kolmogorov-Smirnov test, categories by the chi-square test of homogeneity, both of SciPy. With
thousands of rows every difference is significant, so a field has drifted only where the distance is large as well.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from worker.features.columns import value_of
from worker.features.schema import Field, Schema
from worker.formats.base import Row

SIGNIFICANCE = 1e-3
"""Chance of a false alarm over all fields together (Bonferroni)."""

DISTANCE = 0.1
"""Least distance of a drifted field, in [0, 1]: the largest gap between the two cumulative distributions of a number,
the total variation distance of a category."""

MOST_VALUES = 50
"""Values of a category that are compared one by one; the rarer ones count together."""

LEAST_ROWS = 50


@dataclass(frozen=True, slots=True)
class FieldDrift:
    """distance: see DISTANCE. p_value: chance of such a distance where nothing moved."""

    field: str
    distance: float
    p_value: float


def drifted(learned: Sequence[Row], recent: Sequence[Row], schema: Schema) -> list[FieldDrift]:
    """The fields that have moved, furthest first; none where either side has fewer than LEAST_ROWS rows.

    Fields of time are left out: time always moves.
    """
    if min(len(learned), len(recent)) < LEAST_ROWS:
        return []
    fields = [field for field in schema.encoded if field.kind != "timestamp"]
    found = [_compare(field, learned, recent) for field in fields]
    moved = [drift for drift in found if drift.distance >= DISTANCE and drift.p_value < SIGNIFICANCE / len(fields)]
    return sorted(moved, key=lambda drift: -drift.distance)


def _compare(field: Field, learned: Sequence[Row], recent: Sequence[Row]) -> FieldDrift:
    before, after = ([value_of(row, field.name) for row in rows] for rows in (learned, recent))
    if field.kind == "numeric":
        return _numbers(field.name, before, after)
    return _categories(field.name, before, after)


def _numbers(name: str, before: list[Any], after: list[Any]) -> FieldDrift:
    from scipy.stats import ks_2samp

    x, y = (
        np.array([value for value in side if isinstance(value, int | float)], np.float64) for side in (before, after)
    )
    if not len(x) or not len(y):
        return _categories(name, [value is None for value in before], [value is None for value in after])
    result = ks_2samp(x, y, method="asymp")
    return FieldDrift(name, float(result.statistic), float(result.pvalue))


def _categories(name: str, before: list[Any], after: list[Any]) -> FieldDrift:
    from scipy.stats import chi2_contingency

    counts = [Counter(map(repr, side)) for side in (before, after)]
    common = [value for value, _ in (counts[0] + counts[1]).most_common(MOST_VALUES)]
    table = np.array([[count[value] for value in common] for count in counts], np.float64)
    rest = np.array([[len(before)], [len(after)]]) - table.sum(1, keepdims=True)
    table = np.hstack([table, rest])[:, np.r_[np.full(len(common), True), rest.sum() > 0]]
    shares = table / table.sum(1, keepdims=True)
    distance = float(np.abs(shares[0] - shares[1]).sum() / 2)
    p_value = float(chi2_contingency(table).pvalue) if table.shape[1] > 1 else 1.0
    return FieldDrift(name, distance, p_value)
