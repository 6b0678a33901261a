"""Why a record was alerted: the fields whose error stands out, with observed and expected in the record's own units."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from worker.alerts.encode import REDACTED, redact
from worker.features.learned import MISSING_PATTERN, UNKNOWN_ID, Special
from worker.features.schema import value_of
from worker.features.vectorize import Fitted, Vectors
from worker.formats.base import Row
from worker.model.network.reconstruct import Reconstructor
from worker.records import Alert, FloatArray, Reason

SHARE_DIGITS = 4
MIN_SHARE = 0.01


def shares(errors: FloatArray, usual: FloatArray) -> FloatArray:
    """How much of each record's score its fields explain: float64 (A, F), each row adds up to 1.

    A field's part is its squared error beyond the one that it usually has, so that a field which nothing predicts is
    not blamed for it. A row without any excess is divided by its plain errors; one without any error evenly.

    This works badly where fields are strange only together: the error falls on those that the model finds hardest to
    rebuild, which need not be the ones that are wrong. And a share compares errors, not harm: twice the share is not
    twice as strange, for one field's errors may have a longer tail than another's.

    errors   squared errors of the fields, float64 (A, F)
    usual    their means over the calibration rows, float64 (F,)

    >>> shares(np.array([[4.0, 1.0, 1.0]]), np.array([1.0, 1.0, 0.0])).tolist()
    [[0.75, 0.0, 0.25]]
    """
    parts = np.maximum(errors - usual, 0.0)
    for fallback in (errors, np.ones_like(errors)):
        parts = np.where(parts.sum(1, keepdims=True) > 0, parts, fallback)
    result: FloatArray = parts / parts.sum(1, keepdims=True)
    return result


class Explainer:
    """Explains rows by one fitted model.

    A field whose expected value is the observed one tells a reader nothing: it keeps its share, and is named only where
    no other field is.

    fields        the model's fields (F,)
    usual         mean squared error of each field on the calibration rows, float64 (F,)
    weights       factor on the error of each field in the score, float64 (F,)
    redacted      fields that no alert may show
    ids           fields that an alert carries on their own
    max_reasons   fields in one explanation; those with less than MIN_SHARE are left out, where another is named
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
        ids: tuple[str, ...] = (),
        max_reasons: int = 5,
    ) -> None:
        self.redacted = redacted
        self.ids = ids
        self._fitted = fitted
        self._reconstructor = reconstructor
        self._fields = fields
        self._weights = np.ones(len(fields)) if weights is None else weights
        self._usual = usual * self._weights
        self._max_reasons = max_reasons
        self._numeric_at = {name: [j for j, f in enumerate(fitted.numeric_fields) if f == name] for name in fields}
        self._category_at = {name: j for j, name in enumerate(fitted.category_fields)}

    def explain(
        self, numeric: NDArray[np.float32], category_ids: NDArray[np.int32], rows: Sequence[Row]
    ) -> list[tuple[Reason, ...]]:
        """Reasons of each row, largest share first; rows (A, N), (A, C) and the A JSON objects they came from."""
        if not rows:
            return []
        rebuilt = self._reconstructor.rows(numeric, category_ids)
        by_field = rebuilt.field_errors(self._fitted.numeric_fields, self._fitted.category_fields)
        parts = shares(np.stack([by_field[name] for name in self._fields], 1) * self._weights, self._usual)
        order = np.argsort(-parts, axis=1, kind="stable")
        columns = (category_ids, rebuilt.numeric, rebuilt.expected_ids, parts, order)
        # Plain lists: in an alert storm, element by element access to arrays would cost as much as all the rest.
        lines = map(_Line, rows, *(column.tolist() for column in columns))
        return [self._reasons(line) for line in lines]

    def _reasons(self, line: "_Line") -> tuple[Reason, ...]:
        telling: list[Reason] = []
        silent: list[Reason] = []
        for rank, at in enumerate(line.order):
            if (rank > 0 and line.shares[at] < MIN_SHARE) or len(telling) == self._max_reasons:
                break
            name = self._fields[at]
            category = self._category_at.get(name)
            numbers = [line.numeric[j] for j in self._numeric_at[name]]
            expected = self._fitted.expected(name, numbers, None if category is None else line.expected_ids[category])
            if isinstance(expected, Special):
                expected = expected.value
            observed = self._observed(line, name)
            reason = self._reason(line, name, observed, expected, line.shares[at])
            (silent if _is_same(observed, expected) else telling).append(reason)
        return tuple(telling) or (silent[0],)

    def _reason(self, line: "_Line", name: str, observed: Any, expected: Any, share: float) -> Reason:
        category = self._category_at.get(name)
        stats = self._fitted.stats_of.get(name)
        note = None
        if observed is None:
            note = Special.MISSING.value
        elif category is not None and line.category_ids[category] == UNKNOWN_ID:
            note = Special.UNKNOWN.value
        return Reason(
            field=name,
            observed=REDACTED if name in self.redacted else observed,
            expected=expected,
            share=round(share, SHARE_DIGITS),
            typical=None if stats is None or stats.low is None or category is not None else (stats.low, stats.high),
            note=note,
        )

    def _observed(self, line: "_Line", name: str) -> Any:
        if name == MISSING_PATTERN:
            at = self._category_at[MISSING_PATTERN]
            if line.category_ids[at] != UNKNOWN_ID:
                return self._fitted.categorical[at].value(line.category_ids[at])
            absent = [f for f in self._fields if f != MISSING_PATTERN and value_of(line.row, f) is None]
            return f"without {', '.join(absent)}" if absent else "all fields present"
        return value_of(line.row, name)


class _Line(NamedTuple):
    """One row: its JSON object, category ids (C,), expected numbers (N,) and ids (C,), shares (F,) and their order."""

    row: Row
    category_ids: list[int]
    numeric: list[float]
    expected_ids: list[int]
    shares: list[float]
    order: list[int]


class Explanations:
    """The reasons of one batch's records, each computed once: a silence and an alert may ask for the same."""

    def __init__(self, explainer: Explainer, vectors: Vectors) -> None:
        self._explainer = explainer
        self._vectors = vectors
        self._reasons: dict[int, tuple[Reason, ...]] = {}

    def of(self, rows: Sequence[int]) -> list[tuple[Reason, ...]]:
        """The reasons of the records in these rows of the batch, largest share first."""
        missing = [row for row in rows if row not in self._reasons]
        vectors = self._vectors
        records = [vectors.rows[row] for row in missing]
        reasons = self._explainer.explain(vectors.numeric[missing], vectors.category_ids[missing], records)
        self._reasons.update(zip(missing, reasons, strict=True))
        return [self._reasons[row] for row in rows]

    def complete(self, alerts: Sequence[tuple[int, Alert]]) -> list[Alert]:
        """The alerts, those of one record with that record and its reasons, by their rows."""
        own = [(row, alert) for row, alert in alerts if alert.of_one_record]
        for (row, alert), reasons in zip(own, self.of([row for row, _ in own]), strict=True):
            alert.explanation = reasons
            alert.record = redact(self._vectors.rows[row], self._explainer.redacted)
            alert.ids = {name: value_of(alert.record, name) for name in self._explainer.ids}
        return [alert for _, alert in alerts]


def _is_same(observed: Any, expected: Any) -> bool:
    if observed is None:
        return bool(expected == Special.MISSING.value)
    return bool(observed == expected) and isinstance(observed, bool) == isinstance(expected, bool)
