"""A challenger: fitted on recent ordinary traffic and on what the champion learned from, calibrated on other rows.

What must not be learned is left out: records beyond the valley, and records above the threshold. The threshold flags
ordinary records, too, so leaving all of them out would cut the tail off a little more with every refit. So of the
flagged records those that the challenger itself finds least odd come back into its calibration, as many as the quantile
flags of ordinary traffic.

The challenger's scores come in the champion's unit, so that numbers in alerts do not jump with a swap.
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
from worker.thresholds.inlier import calibrated_quantile
from worker.trainer.drift import Evidence, weigh

T = TypeVar("T")
FIT, CALIBRATE = 0.7, 0.85
"""Folds: below FIT a record is fitted on, below CALIBRATE it calibrates, above it the gate judges by it."""

REHEARSED = 0.25
"""Most of a fit that comes from the champion's own rows."""


@dataclass(frozen=True, slots=True)
class Window:
    """Recent rows as the champion sees them, in order of arrival.

    rows: length R. score: float64 (R,), the champion's. fold: uniform (R,). flagged: bool (R,), above the threshold;
    apart: bool (R,), beyond the valley.
    """

    rows: Sequence[Row]
    score: FloatArray
    fold: FloatArray
    flagged: BoolArray
    apart: BoolArray

    @property
    def ordinary(self) -> BoolArray:
        """Neither flagged nor apart, bool (R,)."""
        return ~(self.flagged | self.apart)

    def with_apart(self) -> "Window":
        """The same with what stands apart, and all that was flagged, taken as ordinary."""
        none = np.zeros(len(self.rows), np.bool_)
        return replace(self, flagged=none, apart=none)

    def pick(self, mask: BoolArray) -> list[Row]:
        """The rows where `mask` (R,) holds."""
        return [self.rows[place] for place in np.flatnonzero(mask).tolist()]


def see(model: Model, rows: Sequence[Row]) -> Vectors:
    """Rows as a model's vectors; those that don't fit its schema are left out."""
    messages = [Message("", 0, place, -1, None, b"") for place in range(len(rows))]
    return model.vectorizer.transform(Decoded(list(messages), list(rows), [], 0))


def scores_of(model: Model, rows: Sequence[Row]) -> FloatArray:
    """A model's scores of rows (R,) that fit its schema, float64 (R,)."""
    vectors = see(model, rows)
    return model.scorer.score(vectors.numeric, vectors.category_ids)


def look_at(champion: Model, rows: Sequence[Row], fold: FloatArray, evidence: Evidence) -> Window:
    """The window of these rows (R,) under the champion; rows that don't fit the schema are dropped."""
    vectors = see(champion, rows)
    kept = np.fromiter((message.offset for message in vectors.messages), np.int64, len(vectors.messages))
    score = champion.scorer.score(vectors.numeric, vectors.category_ids)
    return Window(vectors.rows, score, fold[kept], score > evidence.threshold, score >= evidence.cut)


def fit_challenger(
    champion: Bundle,
    window: Window,
    options: FitOptions,
    *,
    quantile: float,
    keep_rows: int,
    created_at: str,
    progress: Progress | None = None,
) -> Bundle:
    """Fit on the window's ordinary rows and the champion's rehearsal, calibrate on rows that were not fitted on.

    Two fits: where traffic has moved, the champion is a poor judge of what is ordinary in it, so the first fit picks
    the rows of the second. keep_rows: of those it was fitted on, for later fits. DataError where too few rows are left.
    """
    first = _fit(champion, window, options, quantile, 0, created_at, progress)
    judge = Model(first)
    chosen = look_at(judge, window.rows, window.fold, weigh(scores_of(judge, window.rows), first.calibration, quantile))
    second = _fit(champion, chosen, options, quantile, keep_rows, created_at, progress)
    return in_units_of(champion, second, quantile)


def _fit(
    champion: Bundle,
    window: Window,
    options: FitOptions,
    quantile: float,
    keep_rows: int,
    created_at: str,
    progress: Progress | None,
) -> Bundle:
    recent = window.pick(window.ordinary & (window.fold < FIT))
    rehearsed = spread(champion.rehearsal, round(len(recent) * REHEARSED / (1 - REHEARSED)))
    bundle = fit_bundle(
        champion.schema,
        [*rehearsed, *recent],
        options,
        created_at=created_at,
        progress=progress,
        keep_rows=keep_rows,
    )
    return replace(bundle, calibration=np.sort(calibration_of(Model(bundle), window, quantile)))


def in_units_of(champion: Bundle, challenger: Bundle, quantile: float) -> Bundle:
    """The challenger with scores multiplied so that its calibrated quantile is the champion's.

    A score then means the same before and after a swap. Not where the model's own threshold is a number.
    """
    before, after = (calibrated_quantile(side.calibration, quantile) for side in (champion, challenger))
    if challenger.rule.name != "rolling" or before <= 0 or after <= 0:
        return challenger
    return rescaled(challenger, before / after)


def calibration_of(challenger: Model, window: Window, quantile: float) -> FloatArray:
    """The challenger's scores of ordinary rows that it was not fitted on, float64 (n,), with the tail put back."""
    held = (window.fold >= FIT) & (window.fold < CALIBRATE)
    ordinary = scores_of(challenger, window.pick(held & window.ordinary))
    return np.concatenate([ordinary, tail_back(challenger, window, held, quantile, len(ordinary))])


def tail_back(challenger: Model, window: Window, held: BoolArray, quantile: float, ordinary: int) -> FloatArray:
    """Scores of the flagged rows that the challenger finds least odd, as many as the quantile flags of `ordinary`."""
    flagged = np.sort(scores_of(challenger, window.pick(held & window.flagged & ~window.apart)))
    return flagged[: round(ordinary * (1 - quantile) / quantile)]


def spread(rows: Sequence[T], count: int) -> list[T]:
    """At most `count` of them, evenly from all."""
    places: NDArray[np.int64] = np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(np.int64)
    return [rows[place] for place in places.tolist()]
