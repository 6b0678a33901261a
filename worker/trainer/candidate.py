"""A candidate: fitted on recent inliers and on rows that the current version learned from, calibrated on others, and
compared with that version by the gate, on recent rows that neither was fitted on.

The threshold flags inliers, too, so leaving out all that was flagged would take a little more off the tail with every
refit: of those the candidate itself finds least anomalous, as many come back as the quantile flags of inliers. Its
scores come in the current version's unit, so that numbers in alerts do not jump with a swap.

The gate is asked only where traffic has drifted (worker.trainer.drift): by planted anomalies alone it is blind to real
anomalies that leaked into the fit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from worker.errors import DataError
from worker.features.inject import inject
from worker.features.vectorize import Vectors
from worker.formats.base import Decoded, Row
from worker.model.learn import fit_bundle, rescaled
from worker.model.network.fit import FitOptions, Progress
from worker.model.store.bundle import Bundle
from worker.pipeline import Model
from worker.ranking import roc_auc_of_scores
from worker.records import BoolArray, FloatArray
from worker.redaction import NOTHING, Redaction
from worker.texts import significant
from worker.thresholds.quantile import calibrated_quantile
from worker.trainer.drift import DriftAssessment, assess_drift

T = TypeVar("T")
FIT, CALIBRATE = (
    0.7,
    0.85,
)  # split draws: below FIT a record is for the fit, below CALIBRATE for calibration, else for the gate
MAX_REHEARSED = 0.25  # share of a fit that comes from the current version's own rows
PLANTED_SHARE = 0.5  # of the judged rows, which anomalies are planted into a copy of
MAX_DETECTION_LOST = 0.01  # ROC-AUC of planted anomalies
MAX_ALERT_RATIO = 2.0  # alerts of inliers by the challenger's own calibration, in nominal rates
ALERT_STANDARD_ERRORS = 2.0  # ... and of that rate on top, since few rows prove little
MIN_OFF_RATIO = 1.5  # alert rate of the champion, in nominal rates, from which bringing it back is an improvement
MAX_BULK_RATIO = 1.5  # of the challenger's median score of inliers to its calibrated one, up or down
MIN_AGREEMENT = 0.8  # share of the champion's strongest alerts that the challenger has to alert on, too
STRONG_TIMES = 2.0  # thresholds from which on a row is one of the strongest; so is all that lies beyond the cut-off
MAX_STRONGEST = 200
MIN_STRONGEST = 20
MIN_ROWS = 200


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
    return model.vectorizer.transform(Decoded.of_rows(rows))


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
    redaction: Redaction = NOTHING,
) -> Bundle:
    """Fit on recent inliers and the current version's rehearsal rows, calibrate on rows that were not fitted on.

    keep_rows: of those it was fitted on, for later fits; redaction: fields of which it must hold no value. DataError
    where too few rows are left.
    """

    def fit(chosen: RecentRows, keep: int) -> Bundle:
        rows = chosen.pick(chosen.inlier & (chosen.split_draw < FIT))
        rehearsed = spread(current.rehearsal, round(len(rows) * MAX_REHEARSED / (1 - MAX_REHEARSED)))
        learned = [*rehearsed, *rows]
        bundle = fit_bundle(
            *(current.schema, learned, options),
            created_at=created_at,
            progress=progress,
            keep_rows=keep,
            redaction=redaction,
        )
        model = Model(bundle, redaction=redaction)
        return replace(bundle, calibration=np.sort(calibration_of(model, chosen, quantile)))

    # Two fits: where traffic has drifted, the current version is a poor judge of what is an inlier in it, so the first
    # fit picks the rows of the second.
    first = fit(recent, 0)
    model = Model(first, redaction=redaction)
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


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """Why a challenger is refused, what it does better, and plain data for JSON."""

    failures: list[str]
    gains: list[str]
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """No worse anywhere, better somewhere."""
        return not self.failures and bool(self.gains)


class _Side(NamedTuple):
    """One model on the judged rows.

    alert_rate   of inliers, by its own calibration
    bulk_ratio   median of the inliers' scores over the calibrated median
    detection    ROC-AUC of planted anomalies against inliers
    recall       share of planted anomalies above the quantile of the inliers
    agreement    share of the champion's strongest alerts that it alerts on; 1 where there are none
    """

    alert_rate: float
    bulk_ratio: float
    detection: float
    recall: float
    agreement: float


def judge(
    champion: Model, challenger: Model, recent: RecentRows, *, threshold: float, quantile: float, seed: int
) -> GateVerdict:
    """Compare two models on the recent rows that neither was fitted or calibrated on.

    A challenger has to be no worse, within a stated margin, in every respect that can be measured without labels, and
    better in one: a refit that changes nothing is only a risk.

    It works badly with fewer than about 1,000 rows, where the margins of the alert rate are wide, and for anomalies
    unlike those that can be planted: how well these are detected, it can't see.

    champion     the current model
    challenger   the candidate
    recent       as the champion sees them; judged are the rows whose split draw is CALIBRATE or above
    threshold    the champion's in these rows
    quantile     share of inliers below a threshold
    seed         of what is planted

    >>> from worker.features.schema import parse_schema
    >>> from worker.model.learn import fit_bundle
    >>> from worker.model.network.fit import FitOptions
    >>> schema = parse_schema('[fields.a]\\nkind = "numeric"\\n[fields.b]\\nkind = "numeric"\\n')
    >>> rows = [{"a": float(i % 7), "b": float(i % 7)} for i in range(400)]
    >>> twin = Model(fit_bundle(schema, rows, FitOptions(hidden=(4,), steps=9), created_at="2026-01-01T00:00:00Z"))
    >>> none = np.zeros(400, np.bool_)
    >>> recent = RecentRows(rows, scores_of(twin, rows), np.full(400, 0.9), none, none)
    >>> judge(twin, twin, recent, threshold=1.0, quantile=0.99, seed=0).failures
    ['it is no better in anything']

    Planted anomalies in the place of labels: Steinbuss and Böhm, Benchmarking unsupervised outlier detection with
    realistic synthetic data (2021).
    """
    judged = recent.split_draw >= CALIBRATE
    inliers = recent.pick(judged & recent.inlier)
    if len(inliers) < MIN_ROWS:
        return GateVerdict([f"only {len(inliers)} inliers to judge by, {MIN_ROWS} are needed"], [])
    try:
        changed, truth = inject(inliers, champion.bundle.schema, share=PLANTED_SHARE, seed=seed)
    except DataError as error:
        return GateVerdict([str(error)], [])
    planted = [changed[entry.index] for entry in truth]
    strong = np.flatnonzero((recent.score >= STRONG_TIMES * threshold) | recent.new_population)
    strong = strong[np.argsort(-recent.score[strong], kind="stable")][:MAX_STRONGEST]
    strongest = [recent.rows[position] for position in strong.tolist()]
    sides = []
    for model in (champion, challenger):
        tail = restore_tail(model, recent, judged, quantile, len(inliers))
        normal, anomalous = np.concatenate([scores_of(model, inliers), tail]), scores_of(model, planted)
        calibration = model.bundle.calibration
        limit, median = calibrated_quantile(calibration, quantile), float(np.median(calibration))
        sides.append(
            _Side(
                alert_rate=float((normal > limit).mean()),
                bulk_ratio=float(np.median(normal)) / median if median > 0 else 1.0,
                detection=roc_auc_of_scores(normal, anomalous),
                recall=float((anomalous > float(np.quantile(normal, quantile))).mean()),
                agreement=float((scores_of(model, strongest) > limit).mean()) if strongest else 1.0,
            )
        )
    calibrated = len(challenger.bundle.calibration)
    max_rate = max_alert_rate(quantile, rows=len(inliers), calibrated=calibrated)
    return _compare(*sides, nominal=1 - quantile, max_rate=max_rate, rows=len(inliers), strongest=len(strongest))


def max_alert_rate(quantile: float, *, rows: int, calibrated: int) -> float:
    """Share of so many inliers up to which a challenger may alert that was calibrated on so many others.

    Both are samples: the threshold lies as far from its true place as few scores put it, and the share of the judged
    rows beyond it varies as much again.

    >>> [round(max_alert_rate(0.99, rows=800, calibrated=count), 4) for count in (800, 80_000)]
    [0.0299, 0.0271]
    """
    nominal = 1 - quantile
    error = math.sqrt(nominal * quantile * (1 / rows + 1 / calibrated))
    return MAX_ALERT_RATIO * nominal + ALERT_STANDARD_ERRORS * error


def _compare(
    champion: _Side, challenger: _Side, *, nominal: float, max_rate: float, rows: int, strongest: int
) -> GateVerdict:
    detection = f"planted anomalies: ROC-AUC {challenger.detection:.3f}, the current model {champion.detection:.3f}"
    failures, gains = [], []
    if challenger.detection < champion.detection - MAX_DETECTION_LOST:
        failures.append(detection)
    if challenger.alert_rate > max_rate:
        failures.append(f"alerts on {challenger.alert_rate:.2%} of the inliers, up to {max_rate:.2%} are nominal")
    if not 1 / MAX_BULK_RATIO <= challenger.bulk_ratio <= MAX_BULK_RATIO:
        failures.append(f"scores inliers at {challenger.bulk_ratio:.3g} times what it was calibrated to")
    if strongest >= MIN_STRONGEST and challenger.agreement < MIN_AGREEMENT:
        lost = f"alerts on {challenger.agreement:.0%} of the current model's {strongest} strongest alerts"
        failures.append(f"{lost}, {MIN_AGREEMENT:.0%} are needed")
    is_quieter = challenger.alert_rate <= max_rate and challenger.alert_rate < champion.alert_rate
    if champion.alert_rate >= MIN_OFF_RATIO * nominal and is_quieter:
        rate = f"alerts on {challenger.alert_rate:.2%} of the inliers"
        gains.append(f"{rate}, the current model on {champion.alert_rate:.2%}")
    if challenger.detection > champion.detection + MAX_DETECTION_LOST:
        gains.append(detection)
    if not gains and not failures:
        failures = ["it is no better in anything"]
    figures = {
        name: {"current": significant(now, 4), "candidate": significant(then, 4)}
        for name, now, then in zip(_Side._fields, champion, challenger, strict=True)
    }
    return GateVerdict(failures, gains, {"rows": rows, "strongest": strongest, **figures})
