"""What is said of a record above its threshold: how severe it is, and why, field by field, in the record's units."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.features.learned import UNKNOWN_ID, Special
from worker.features.paths import read_field, value_of
from worker.features.patterns import Patterns, missing_sets
from worker.features.schema import read_columns
from worker.features.vectorize import Vectors
from worker.formats.base import Row, type_name
from worker.model.scoring.score import SCORES
from worker.model.scoring.scorer import Reconstructor
from worker.model.scoring.usual import Columns
from worker.model.store.bundle import Bundle, field_weights
from worker.records import Alert, BoolArray, FloatArray, RawMessage, Reason, Scores
from worker.redaction import MASK, Redaction
from worker.texts import MAX_SHOWN, shortened
from worker.thresholds.severity import SEVERITIES

SHARE_DIGITS = 4
MIN_SHARE = 0.01
UNREAD = "a value that can't be read"


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
        self._schema_fields = {field.name: field for field in bundle.schema.fields}
        self._reconstructor = Reconstructor(bundle.network)
        self._columns, self._is_relative = Columns(bundle.fitted), SCORES[bundle.score.kind].is_relative
        factors = field_weights(bundle.score, self._fields)  # (F,) on the errors, as in the score
        self._weights = factors / bundle.usual.spread if self._is_relative else factors
        self._usual = bundle.usual.mean * self._weights
        self._unknown = factors / np.sqrt(bundle.usual.unknown)
        numbers = bundle.fitted.numeric_fields
        self._numeric_at = {name: [j for j, field in enumerate(numbers) if field == name] for name in self._fields}
        self._category_at = {name: j for j, name in enumerate(bundle.fitted.category_fields)}

    def explain(
        self,
        numeric: NDArray[np.float32],
        category_ids: NDArray[np.int32],
        rows: Sequence[Row],
        unexpected: Mapping[str, BoolArray] = MappingProxyType({}),
    ) -> list[tuple[Reason, ...]]:
        """Reasons of each row, largest share first; rows (A, N), (A, C) and the A JSON objects they came from.

        unexpected   by field, bool (A,): where its value can't be read
        """
        if not rows:
            return []
        rebuilt = self._reconstructor.rows(numeric, category_ids)
        by_field = rebuilt.field_errors(self._fitted.numeric_fields, self._fitted.category_fields)
        errors = np.stack([by_field[name] for name in self._fields], 1) * self._weights
        if self._is_relative:
            errors = self._relative(errors, numeric, category_ids)
        parts = shares(errors, self._usual)
        order = np.argsort(-parts, axis=1, kind="stable")  # the same reasons on every machine, also where shares tie
        columns = (category_ids, rebuilt.numeric, rebuilt.expected_ids, parts, order)
        patterns: list[tuple[str, str] | None] = [None] * len(rows)
        telling = np.flatnonzero(parts[:, self._fields.index(self._fitted.missing_pattern)] >= MIN_SHARE)
        if len(telling):
            chosen = [rows[at] for at in telling.tolist()], category_ids[telling, -1], rebuilt.expected_ids[telling, -1]
            for at, words in zip(telling.tolist(), self._patterns(*chosen), strict=True):
                patterns[at] = words
        # Plain lists: in an alert storm, element by element access to arrays would cost as much as all the rest.
        return list(
            map(self._reasons, rows, _by_row(unexpected, len(rows)), patterns, *(column.tolist() for column in columns))
        )

    def _relative(
        self, errors: FloatArray, numeric: NDArray[np.float32], category_ids: NDArray[np.int32]
    ) -> FloatArray:
        """What fields add to a relative score, (A, F): nothing where they are absent, more where a value is new."""
        errors = np.where(self._columns.present(numeric, category_ids), errors, 0.0)
        for name, column in self._category_at.items():
            at = self._fields.index(name)
            errors[:, at] += (category_ids[:, column] == UNKNOWN_ID) * self._unknown[at]
        return errors

    def _reasons(
        self,
        row: Row,
        unexpected: Collection[str],
        pattern: tuple[str, str] | None,
        category_ids: list[int],
        numbers: list[float],
        expected_ids: list[int],
        parts: list[float],
        order: list[int],
    ) -> tuple[Reason, ...]:
        """Of one row: the fields whose values can't be read, its missing pattern as observed and expected, its category
        ids (C,), expected numbers (N,) and ids (C,), shares (F,) and their order."""
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
            if name in unexpected:
                observed, note, is_same = _shown(observed), self._complaint(row, name), False
            elif observed is None:
                note, is_same = Special.MISSING.value, expected == Special.MISSING.value
            else:  # True == 1 in Python, not in JSON
                observed = self._fitted.observed(name, observed)
                is_same = observed == expected and isinstance(observed, bool) == isinstance(expected, bool)
                if category is not None and category_ids[category] == UNKNOWN_ID:
                    note = Special.UNKNOWN.value
            typical = None if stats is None or stats.low is None or category is not None else (stats.low, stats.high)
            is_read = observed is not None and name not in unexpected
            if name in self._redacted and is_read and category is not None:  # what is expected is a token
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
        places = (of_row, category_ids, expected_ids - first)
        for row, at, own, place in zip(rows, *(column.tolist() for column in places), strict=True):
            is_near = own != UNKNOWN_ID or differences[at, place] == differences[at].min()
            nearest = place if is_near else int(differences[at].argmin())
            words.append(in_words(patterns, sets[at], nearest, partial(self._complaint, row)))
        return words

    def _complaint(self, row: Row, name: str) -> str:
        """Why the value of a field can't be read; of a redacted one only that it can't."""
        if name not in self._redacted:
            complaint = self._schema_fields[name].complaint(read_field(row, name))
            if complaint is not None:
                return complaint
        return UNREAD


def in_words(
    patterns: Patterns, bits: BoolArray, pattern: int, complaint_of: Callable[[str], str] = lambda _: UNREAD
) -> tuple[str, str]:
    """A set, (F,) or (2 F,), against a pattern: what is observed, and what was expected.

    complaint_of   why the value of a field can't be read
    """
    usual, against = patterns.patterns[pattern], patterns.against(bits, pattern)
    lacks, extra = shortened(against.lacks), shortened(against.extra)
    observed = [f"without {lacks}"] * bool(lacks) + [f"with {extra}"] * bool(extra)
    observed += [f"{name}: {complaint_of(name)}" for name in against.unexpected[:MAX_SHOWN]]
    if len(against.unexpected) > MAX_SHOWN:
        observed.append(f"{len(against.unexpected) - MAX_SHOWN:,} more that can't be read")
    if not observed:
        return str(usual), str(usual)
    expected = [f"with {lacks}"] * bool(lacks) + [f"without {extra}"] * bool(extra)
    expected += [f"{shortened(against.unexpected)} as usual"] * bool(against.unexpected)
    return "; ".join(observed), str(usual) if usual.is_whole else "; ".join(expected)


def _by_row(unexpected: Mapping[str, BoolArray], count: int) -> Sequence[Collection[str]]:
    """Of each of `count` rows the fields whose value can't be read."""
    if not unexpected:
        return [()] * count
    names: list[set[str]] = [set() for _ in range(count)]
    for name, bits in unexpected.items():
        for at in np.flatnonzero(bits).tolist():
            names[at].add(name)
    return names


def _shown(value: Any) -> Any:
    """What is shown of a value that can't be read: of an array or object only that it is one."""
    return type_name(value) if isinstance(value, list | dict) else value


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
        unexpected = {name: bits[missing] for name, bits in vectors.unexpected.items()}
        reasons = self._explainer.explain(vectors.numeric[missing], vectors.category_ids[missing], records, unexpected)
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
