"""What is said of a record above its threshold: how severe it is, and why, field by field, in the record's units."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from worker.features.learned import UNKNOWN_ID, Special, shortened
from worker.features.paths import value_of
from worker.features.patterns import Patterns, missing_sets
from worker.features.schema import read_columns
from worker.features.vectorize import Vectors
from worker.formats.base import Row
from worker.model.scoring.scorer import Reconstructor
from worker.model.store.bundle import Bundle
from worker.records import Alert, BoolArray, FloatArray, RawMessage, Reason, Scores
from worker.redaction import MASK, Redaction
from worker.thresholds.severity import SEVERITIES

SHARE_DIGITS = 4
MIN_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Exceedance:
    """A scored record above its partition's threshold.

    row                its position among the scored records of the batch
    message, record    as the broker handed it over, and decoded
    event_time_ms      milliseconds since the epoch, UTC; NO_TIME where there is none
    severity           info, warning or critical
    tail_probability   estimated share of inliers with a score at least as high; None where it is not known
    """

    row: int
    message: RawMessage
    record: Row
    event_time_ms: int
    score: float
    threshold: float
    severity: str
    tail_probability: float | None
    model_version: str


def exceedances(
    vectors: Vectors, scores: Scores, tail_probability: FloatArray, severity: NDArray[np.int8]
) -> list[Exceedance]:
    """The exceedances among the scored records of a batch, in input order.

    tail_probability   float64 (B,) or NaN
    severity           places in SEVERITIES (B,)
    """
    rows = np.flatnonzero(scores.alert)
    columns = (
        rows,
        scores.event_time_ms[rows],
        scores.score[rows],
        scores.threshold[rows],
        tail_probability[rows],
        severity[rows],
    )
    messages, records, version = vectors.messages, vectors.rows, scores.model_version
    return [
        Exceedance(
            *(row, messages[row], records[row], time_ms, score, threshold),
            *(SEVERITIES[level], None if math.isnan(tail) else tail, version),
        )
        for row, time_ms, score, threshold, tail, level in zip(*(column.tolist() for column in columns), strict=True)
    ]


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
    """Explains records by one fitted model.

    A field whose expected value is the observed one tells a reader nothing: it keeps its share, and is named only where
    no other field is.

    redaction     masks what no alert may show
    max_reasons   fields in one explanation; those with less than MIN_SHARE are left out, where another is named
    """

    def __init__(self, bundle: Bundle, *, redaction: Redaction, max_reasons: int) -> None:
        self.redaction, self.ids = redaction, bundle.schema.ids
        self._max_reasons = max_reasons
        self._redacted = frozenset(name for name in bundle.fields if redaction.touches(name))
        self._fitted, self._fields = bundle.fitted, bundle.fields
        self._reconstructor = Reconstructor(bundle.network)
        self._weights = bundle.field_weights  # (F,) factors on the errors, as in the score
        self._usual = bundle.field_errors * self._weights
        numbers = bundle.fitted.numeric_fields
        self._numeric_at = {name: [j for j, field in enumerate(numbers) if field == name] for name in self._fields}
        self._category_at = {name: j for j, name in enumerate(bundle.fitted.category_fields)}

    def explain(
        self, numeric: NDArray[np.float32], category_ids: NDArray[np.int32], rows: Sequence[Row]
    ) -> list[tuple[Reason, ...]]:
        """Reasons of each row, largest share first; rows (A, N), (A, C) and the A JSON objects they came from."""
        if not rows:
            return []
        rebuilt = self._reconstructor.rows(numeric, category_ids)
        by_field = rebuilt.field_errors(self._fitted.numeric_fields, self._fitted.category_fields)
        parts = shares(np.stack([by_field[name] for name in self._fields], 1) * self._weights, self._usual)
        order = np.argsort(-parts, axis=1, kind="stable")  # the same reasons on every machine, also where shares tie
        columns = (category_ids, rebuilt.numeric, rebuilt.expected_ids, parts, order)
        patterns: list[tuple[str, str] | None] = [None] * len(rows)
        telling = np.flatnonzero(parts[:, self._fields.index(self._fitted.missing_pattern)] >= MIN_SHARE)
        if len(telling):
            chosen = [rows[at] for at in telling.tolist()], category_ids[telling, -1], rebuilt.expected_ids[telling, -1]
            for at, words in zip(telling.tolist(), self._patterns(*chosen), strict=True):
                patterns[at] = words
        # Plain lists: in an alert storm, element by element access to arrays would cost as much as all the rest.
        return list(map(self._reasons, rows, patterns, *(column.tolist() for column in columns)))

    def _reasons(
        self,
        row: Row,
        pattern: tuple[str, str] | None,
        category_ids: list[int],
        numbers: list[float],
        expected_ids: list[int],
        parts: list[float],
        order: list[int],
    ) -> tuple[Reason, ...]:
        """Of one row: its missing pattern as observed and expected, its category ids (C,),
        expected numbers (N,) and ids (C,), shares (F,) and their order."""
        telling: list[Reason] = []
        silent: list[Reason] = []
        for rank, at in enumerate(order):
            if (rank > 0 and parts[at] < MIN_SHARE) or len(telling) == self._max_reasons:
                break
            name = self._fields[at]
            category, stats = self._category_at.get(name), self._fitted.stats_of.get(name)
            columns = [numbers[j] for j in self._numeric_at[name]]
            expected = self._fitted.expected(name, columns, None if category is None else expected_ids[category])
            if isinstance(expected, Special):
                expected = expected.value
            observed, note = value_of(row, name), None
            if name == self._fitted.missing_pattern and pattern is not None:
                observed, expected = pattern
            if observed is None:
                note, is_same = Special.MISSING.value, expected == Special.MISSING.value
            else:  # True == 1 in Python, not in JSON
                observed = self._fitted.observed(name, observed)
                is_same = observed == expected and isinstance(observed, bool) == isinstance(expected, bool)
                if category is not None and category_ids[category] == UNKNOWN_ID:
                    note = Special.UNKNOWN.value
            typical = None if stats is None or stats.low is None or category is not None else (stats.low, stats.high)
            if name in self._redacted and observed is not None and category is not None:  # what is expected is a token
                is_same = UNKNOWN_ID != category_ids[category] == expected_ids[category]
            reason = Reason(name, observed, expected, round(parts[at], SHARE_DIGITS), typical, note)
            (silent if is_same else telling).append(reason)
        return tuple(telling) or (silent[0],)

    def masked(self, reasons: tuple[Reason, ...]) -> tuple[Reason, ...]:
        """The reasons as an alert may show them; silences compare the values."""
        if not self._redacted:
            return reasons
        return tuple(
            replace(reason, observed=MASK, expected=MASK, typical=None) if reason.field in self._redacted else reason
            for reason in reasons
        )

    def _patterns(
        self, rows: Sequence[Row], category_ids: NDArray[np.int32], expected_ids: NDArray[np.int64]
    ) -> list[tuple[str, str]]:
        """What each row (A,) lacks or has against the missing pattern that was expected, as observed and expected; of a
        row that fits no pattern, against the nearest one. ids: of the pattern, (A,)."""
        patterns, first = self._fitted.patterns, self._fitted.categorical[-1].first
        columns, _ = read_columns(self._fitted.schema, rows)
        sets, of_row = missing_sets(columns, len(rows))
        differences = patterns.differences(sets)
        words = []
        for at, own, place in zip(of_row.tolist(), category_ids.tolist(), (expected_ids - first).tolist(), strict=True):
            is_near = own != UNKNOWN_ID or differences[at, place] == differences[at].min()
            words.append(in_words(patterns, sets[at], place if is_near else int(differences[at].argmin())))
        return words


def in_words(patterns: Patterns, missing: BoolArray, pattern: int) -> tuple[str, str]:
    """A set of missing fields (F,) against a pattern: what is observed, and what was expected."""
    usual = patterns.patterns[pattern]
    lacks, extra = (shortened(names) for names in patterns.against(missing, pattern))
    if not lacks and not extra:
        return str(usual), str(usual)
    observed = [f"without {lacks}"] * bool(lacks) + [f"with {extra}"] * bool(extra)
    expected = [f"with {lacks}"] * bool(lacks) + [f"without {extra}"] * bool(extra)
    is_whole = not usual.absent and not usual.free
    return "; ".join(observed), str(usual) if is_whole else "; ".join(expected)


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
        redaction = self._explainer.redaction
        own = [(row, alert) for row, alert in alerts if alert.of_one_record]
        for (row, alert), reasons in zip(own, self.of([row for row, _ in own]), strict=True):
            alert.explanation = self._explainer.masked(reasons)
            record = self._vectors.rows[row]
            if redaction:
                alert.message, record = redaction.message(alert.message, record), redaction.record(record)
            alert.record = record
            alert.ids = {name: value_of(alert.record, name) for name in self._explainer.ids}
        return [alert for _, alert in alerts]
