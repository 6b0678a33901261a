"""A candidate: fitted on recent inliers and on rows that the current version learned from, calibrated on others.

The threshold flags inliers, too, so leaving out all that was flagged would take a little more off the tail with every
refit: of those the candidate itself finds least anomalous, as many come back as the quantile flags of inliers. Its
scores come in the current version's unit, so that numbers in alerts do not jump with a swap.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from worker.features.vectorize import Vectors
from worker.formats.base import Decoded, Row
from worker.model.learn import fit_bundle, rescaled
from worker.model.network.fit import FitOptions, Progress
from worker.model.store.bundle import Bundle
from worker.pipeline import Model
from worker.records import BoolArray, FloatArray, Message
from worker.thresholds.quantile import calibrated_quantile
from worker.trainer.drift import DriftAssessment, assess_drift

T = TypeVar("T")
FIT, CALIBRATE = 0.7, 0.85
"""Split draws: below FIT a record is fitted on, below CALIBRATE it calibrates, above it the gate judges by it."""

MAX_REHEARSED = 0.25
"""Share of a fit that comes from the current version's own rows."""


@dataclass(frozen=True, slots=True)
class RecentRows:
    """Recent rows as one model sees them, in order of arrival.

    rows             their fields, length R
    score            the model's, float64 (R,)
    split_draw       uniform in (0, 1), float64 (R,)
    flagged          above the threshold, bool (R,)
    new_population   beyond the cut-off, bool (R,)
    """

    rows: Sequence[Row]
    score: FloatArray
    split_draw: FloatArray
    flagged: BoolArray
    new_population: BoolArray

    @property
    def inlier(self) -> BoolArray:
        """Neither flagged nor of a new population, bool (R,)."""
        return ~(self.flagged | self.new_population)

    def all_inliers(self) -> "RecentRows":
        """The same with a new population, and all that was flagged, taken as inliers."""
        none = np.zeros(len(self.rows), np.bool_)
        return replace(self, flagged=none, new_population=none)

    def pick(self, mask: BoolArray) -> list[Row]:
        """The rows where `mask` (R,) holds."""
        return [self.rows[position] for position in np.flatnonzero(mask).tolist()]


def encode_rows(model: Model, rows: Sequence[Row]) -> Vectors:
    """Rows as a model's vectors, whose messages have the rows' positions as offsets; those that don't fit its schema
    are left out."""
    messages = [Message("", 0, position, -1, None, b"") for position in range(len(rows))]
    return model.vectorizer.transform(Decoded(list(messages), list(rows), [], 0))


def scores_of(model: Model, rows: Sequence[Row]) -> FloatArray:
    """A model's scores of rows (R,) that fit its schema, float64 (R,)."""
    vectors = encode_rows(model, rows)
    return model.scorer.score(vectors.numeric, vectors.category_ids)


def recent_rows(model: Model, rows: Sequence[Row], split_draw: FloatArray, drift: DriftAssessment) -> RecentRows:
    """These rows (R,) as a model sees them; rows that don't fit the schema are dropped."""
    vectors = encode_rows(model, rows)
    kept = np.fromiter((message.offset for message in vectors.messages), np.int64, len(vectors.messages))
    score = model.scorer.score(vectors.numeric, vectors.category_ids)
    return RecentRows(vectors.rows, score, split_draw[kept], score > drift.threshold, score >= drift.cutoff)


def fit_candidate(
    current: Bundle,
    recent: RecentRows,
    options: FitOptions,
    *,
    quantile: float,
    keep_rows: int,
    created_at: str,
    progress: Progress | None = None,
) -> Bundle:
    """Fit on recent inliers and the current version's rehearsal rows, calibrate on rows that were not fitted on.

    Two fits: where traffic has drifted, the current version is a poor judge of what is an inlier in it, so the first
    fit picks the rows of the second. keep_rows: of those it was fitted on, for later fits. DataError where too few rows
    are left.
    """

    def fit(chosen: RecentRows, keep: int) -> Bundle:
        rows = chosen.pick(chosen.inlier & (chosen.split_draw < FIT))
        rehearsed = spread(current.rehearsal, round(len(rows) * MAX_REHEARSED / (1 - MAX_REHEARSED)))
        bundle = fit_bundle(
            current.schema,
            [*rehearsed, *rows],
            options,
            created_at=created_at,
            progress=progress,
            keep_rows=keep,
        )
        return replace(bundle, calibration=np.sort(calibration_of(Model(bundle), chosen, quantile)))

    first = fit(recent, 0)
    model = Model(first)
    drift = assess_drift(scores_of(model, recent.rows), first.calibration, quantile)
    second = fit(recent_rows(model, recent.rows, recent.split_draw, drift), keep_rows)
    return in_units_of(current, second, quantile)


def in_units_of(current: Bundle, candidate: Bundle, quantile: float) -> Bundle:
    """The candidate with scores multiplied so that its calibrated quantile is the current version's.

    A score then means the same before and after a swap. Not where the model's own threshold is a number.
    """
    before, after = (calibrated_quantile(side.calibration, quantile) for side in (current, candidate))
    if candidate.rule.name != "rolling" or before <= 0 or after <= 0:
        return candidate
    return rescaled(candidate, before / after)


def calibration_of(model: Model, recent: RecentRows, quantile: float) -> FloatArray:
    """A model's scores of inliers that it was not fitted on, float64 (n,), with the tail put back."""
    calibrating = (recent.split_draw >= FIT) & (recent.split_draw < CALIBRATE)
    inliers = scores_of(model, recent.pick(calibrating & recent.inlier))
    return np.concatenate([inliers, restore_tail(model, recent, calibrating, quantile, len(inliers))])


def restore_tail(model: Model, recent: RecentRows, mask: BoolArray, quantile: float, inliers: int) -> FloatArray:
    """Scores of the flagged rows that a model finds least anomalous, as many as the quantile flags of `inliers`.

    mask: bool (R,), the rows in question.
    """
    flagged = np.sort(scores_of(model, recent.pick(mask & recent.flagged & ~recent.new_population)))
    return flagged[: round(inliers * (1 - quantile) / quantile)]


def spread(rows: Sequence[T], count: int) -> list[T]:
    """At most `count` of them, evenly from all."""
    positions: NDArray[np.int64] = np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(np.int64)
    return [rows[position] for position in positions.tolist()]
