"""Why a record was alerted: the fields whose error stands out, with observed and expected in the record's own units.

A field's part is its squared error beyond what this field's error usually is (its mean over the calibration rows), so a
field that nobody can predict is not blamed for it. The parts of all fields add up to 1.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.detect.alert import REDACTED
from worker.features.columns import value_of
from worker.features.decode import Row
from worker.features.fitted import PRESENCE, UNKNOWN_CODE, Fitted, Special
from worker.model.reconstruct import Reconstruction, Reconstructor
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

    usual: mean squared error of each field on calibration rows, (F,), in the order of `fields`.
    max_reasons: most fields in one explanation; fields below 1% of the whole are left out, except the first.
    """

    def __init__(
        self,
        fitted: Fitted,
        reconstructor: Reconstructor,
        *,
        fields: tuple[str, ...],
        usual: FloatArray,
        redacted: frozenset[str] = frozenset(),
        max_reasons: int = 5,
    ) -> None:
        self._fitted = fitted
        self._reconstructor = reconstructor
        self._fields = fields
        self._usual = usual
        self._redacted = redacted
        self._max_reasons = max_reasons
        self._numeric_at = {name: [j for j, f in enumerate(fitted.numeric_fields) if f == name] for name in fields}
        self._code_at = {name: j for j, name in enumerate(fitted.code_fields)}

    def explain(
        self, numeric: NDArray[np.float32], codes: NDArray[np.int32], rows: Sequence[Row]
    ) -> list[tuple[Reason, ...]]:
        """Reasons of each row, largest share first; rows (A, N), (A, C) and the A JSON objects they came from."""
        if not rows:
            return []
        found = self._reconstructor.rows(numeric, codes)
        by_field = found.field_errors(self._fitted.numeric_fields, self._fitted.code_fields)
        parts = shares(np.stack([by_field[name] for name in self._fields], 1), self._usual)
        order = np.argsort(-parts, axis=1, kind="stable")[:, : self._max_reasons]
        return [
            tuple(
                self._reason(found, row, index, codes[index], self._fields[at], float(parts[index, at]))
                for rank, at in enumerate(order[index].tolist())
                if rank == 0 or parts[index, at] >= SMALLEST_SHARE
            )
            for index, row in enumerate(rows)
        ]

    def _reason(
        self, found: Reconstruction, row: Row, index: int, codes: NDArray[np.int32], name: str, share: float
    ) -> Reason:
        at = self._code_at.get(name)
        expected = self._fitted.expected(
            name,
            [float(found.numeric[index, j]) for j in self._numeric_at[name]],
            None if at is None else int(found.expected_codes[index, at]),
        )
        stats = self._fitted.stats_of.get(name)
        ranged = stats is not None and stats.low is not None and at is None
        observed = self._observed(row, name, codes)
        return Reason(
            field=name,
            observed=REDACTED if name in self._redacted else observed,
            expected=_plain(expected),
            share=round(share, SHARE_DIGITS),
            typical=(stats.low, stats.high) if stats is not None and ranged else None,
            note=self._note(observed, at, codes),
        )

    def _observed(self, row: Row, name: str, codes: NDArray[np.int32]) -> Any:
        if name == PRESENCE:
            at = self._code_at[PRESENCE]
            if codes[at] != UNKNOWN_CODE:
                return self._fitted.category(at, int(codes[at]))
            absent = [f for f in self._fields if f != PRESENCE and value_of(row, f) is None]
            return f"without {', '.join(absent)}" if absent else "all fields present"
        return value_of(row, name)

    def _note(self, observed: Any, at: int | None, codes: NDArray[np.int32]) -> str | None:
        if observed is None:
            return Special.MISSING.value
        if at is not None and codes[at] == UNKNOWN_CODE:
            return Special.UNKNOWN.value
        return None


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Special) else value
