"""Why a record was alerted: the fields whose error stands out, with observed and expected in the record's own units.

A field's part is its squared error beyond what this field's error usually is (its mean over the calibration rows), so a
field that nobody can predict is not blamed for it. The parts of all fields add up to 1. A field whose expected value is
the observed one explains nothing to a reader: it keeps its part, and is named only where no other field is.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from worker.alerts.encode import REDACTED
from worker.features.columns import value_of
from worker.features.fitted import MISSING_PATTERN, UNKNOWN_ID, Fitted, Special
from worker.formats.base import Row
from worker.model.network.reconstruct import Reconstructor
from worker.records import FloatArray, Reason

SHARE_DIGITS = 4
SMALLEST_SHARE = 0.01


def shares(errors: FloatArray, usual: FloatArray) -> FloatArray:
    """Each field's part, (A, F) rows that add up to 1, of squared errors (A, F) beyond the usual ones (F,).

    A row without any excess is divided by its plain errors; one without any error at all is divided evenly.
    """
    parts = np.maximum(errors - usual, 0.0)
    for fallback in (errors, np.ones_like(errors)):
        parts = np.where(parts.sum(1, keepdims=True) > 0, parts, fallback)
    result: FloatArray = parts / parts.sum(1, keepdims=True)
    return result


class Explainer:
    """Explains rows by one fitted model.

    usual: mean squared error of each field on calibration rows, (F,), in the order of `fields`; weights: the factor on
    each field's error in the score, (F,).
    max_reasons: most fields in one explanation; fields below 1% of the whole are left out, where another is named.
    """

    def __init__(
        self,
        fitted: Fitted,
        reconstructor: Reconstructor,
        *,
        fields: tuple[str, ...],
        usual: FloatArray,
        weights: FloatArray | None = None,
        redacted: frozenset[str] = frozenset(),
        max_reasons: int = 5,
    ) -> None:
        self._fitted = fitted
        self._reconstructor = reconstructor
        self._fields = fields
        self._weights = np.ones(len(fields)) if weights is None else weights
        self._usual = usual * self._weights
        self._redacted = redacted
        self._max_reasons = max_reasons
        self._numeric_at = {name: [j for j, f in enumerate(fitted.numeric_fields) if f == name] for name in fields}
        self._category_at = {name: j for j, name in enumerate(fitted.category_fields)}

    def explain(
        self, numeric: NDArray[np.float32], category_ids: NDArray[np.int32], rows: Sequence[Row]
    ) -> list[tuple[Reason, ...]]:
        """Reasons of each row, largest share first; rows (A, N), (A, C) and the A JSON objects they came from."""
        if not rows:
            return []
        found = self._reconstructor.rows(numeric, category_ids)
        by_field = found.field_errors(self._fitted.numeric_fields, self._fitted.category_fields)
        parts = shares(np.stack([by_field[name] for name in self._fields], 1) * self._weights, self._usual)
        order = np.argsort(-parts, axis=1, kind="stable")
        columns = (category_ids, found.numeric, found.expected_ids, parts, order)
        # Plain lists: in an alert storm, element by element access to arrays would cost as much as all the rest.
        lines = map(_Line, rows, *(column.tolist() for column in columns))
        return [self._reasons(line) for line in lines]

    def _reasons(self, line: "_Line") -> tuple[Reason, ...]:
        telling: list[Reason] = []
        silent: list[Reason] = []
        for rank, at in enumerate(line.order):
            if (rank > 0 and line.parts[at] < SMALLEST_SHARE) or len(telling) == self._max_reasons:
                break
            name, share = self._fields[at], line.parts[at]
            observed, expected = self._observed(line, name), self._expected(line, name)
            reason = self._reason(line, name, observed, expected, share)
            (silent if _is_same(observed, expected) else telling).append(reason)
        return tuple(telling) or (silent[0],)

    def _reason(self, line: "_Line", name: str, observed: Any, expected: Any, share: float) -> Reason:
        at = self._category_at.get(name)
        stats = self._fitted.stats_of.get(name)
        ranged = stats is not None and stats.low is not None and at is None
        return Reason(
            field=name,
            observed=REDACTED if name in self._redacted else observed,
            expected=expected,
            share=round(share, SHARE_DIGITS),
            typical=(stats.low, stats.high) if stats is not None and ranged else None,
            note=self._note(observed, at, line.category_ids),
        )

    def _expected(self, line: "_Line", name: str) -> Any:
        at = self._category_at.get(name)
        numbers = [line.numeric[j] for j in self._numeric_at[name]]
        expected = self._fitted.expected(name, numbers, None if at is None else line.expected_ids[at])
        return expected.value if isinstance(expected, Special) else expected

    def _observed(self, line: "_Line", name: str) -> Any:
        if name == MISSING_PATTERN:
            at = self._category_at[MISSING_PATTERN]
            if line.category_ids[at] != UNKNOWN_ID:
                return self._fitted.category(at, line.category_ids[at])
            absent = [f for f in self._fields if f != MISSING_PATTERN and value_of(line.row, f) is None]
            return f"without {', '.join(absent)}" if absent else "all fields present"
        return value_of(line.row, name)

    def _note(self, observed: Any, at: int | None, category_ids: list[int]) -> str | None:
        if observed is None:
            return Special.MISSING.value
        if at is not None and category_ids[at] == UNKNOWN_ID:
            return Special.UNKNOWN.value
        return None


class _Line(NamedTuple):
    """One row: its JSON object, category ids (C,), expected numbers (N,) and ids (C,), parts (F,) and their order."""

    row: Row
    category_ids: list[int]
    numeric: list[float]
    expected_ids: list[int]
    parts: list[float]
    order: list[int]


def _is_same(observed: Any, expected: Any) -> bool:
    if observed is None:
        return bool(expected == Special.MISSING.value)
    return bool(observed == expected) and isinstance(observed, bool) == isinstance(expected, bool)
