"""The gate: champion against challenger on recent traffic that neither was fitted on.

It is asked only where traffic has drifted (worker.trainer.drift): a gate by planted anomalies alone is blind to real
anomalies that leaked into the fit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from worker.errors import DataError
from worker.features.inject import inject
from worker.formats.base import Row
from worker.pipeline import Model
from worker.ranking import roc_auc_of_scores
from worker.records import FloatArray
from worker.texts import significant
from worker.thresholds.quantile import calibrated_quantile
from worker.trainer.candidate import CALIBRATE, RecentRows, restore_tail, scores_of

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
class GateVerdict:
    """Why a challenger is refused, what it does better, and plain data for JSON."""

    failures: list[str]
    gains: list[str]
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """No worse anywhere, better somewhere."""
        return not self.failures and bool(self.gains)


@dataclass(frozen=True, slots=True)
class _Side:
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
    sides = [
        _side(model, inliers, restore_tail(model, recent, judged, quantile, len(inliers)), planted, strongest, quantile)
        for model in (champion, challenger)
    ]
    return _compare(*sides, quantile=quantile, rows=len(inliers), strongest=len(strongest))


def _side(
    model: Model,
    inliers: Sequence[Row],
    tail: FloatArray,
    planted: Sequence[Row],
    strongest: Sequence[Row],
    quantile: float,
) -> _Side:
    normal, anomalous = np.concatenate([scores_of(model, inliers), tail]), scores_of(model, planted)
    calibration = model.bundle.calibration
    threshold, median = calibrated_quantile(calibration, quantile), float(np.median(calibration))
    return _Side(
        alert_rate=float((normal > threshold).mean()),
        bulk_ratio=float(np.median(normal)) / median if median > 0 else 1.0,
        detection=roc_auc_of_scores(normal, anomalous),
        recall=float((anomalous > float(np.quantile(normal, quantile))).mean()),
        agreement=float((scores_of(model, strongest) > threshold).mean()) if strongest else 1.0,
    )


def _compare(champion: _Side, challenger: _Side, *, quantile: float, rows: int, strongest: int) -> GateVerdict:
    nominal = 1 - quantile
    max_rate = MAX_ALERT_RATIO * nominal + ALERT_STANDARD_ERRORS * math.sqrt(nominal * quantile / rows)
    detection = f"planted anomalies: ROC-AUC {challenger.detection:.3f}, the current model {champion.detection:.3f}"
    failures, gains = [], []
    if challenger.detection < champion.detection - MAX_DETECTION_LOST:
        failures.append(detection)
    if challenger.alert_rate > max_rate:
        failures.append(f"alerts on {challenger.alert_rate:.2%} of the inliers, up to {max_rate:.2%} are nominal")
    if not 1 / MAX_BULK_RATIO <= challenger.bulk_ratio <= MAX_BULK_RATIO:
        failures.append(f"scores inliers at {challenger.bulk_ratio:.3g} times what it was calibrated to")
    if strongest >= MIN_STRONGEST and challenger.agreement < MIN_AGREEMENT:
        failures.append(
            f"alerts on {challenger.agreement:.0%} of the current model's {strongest} strongest alerts, "
            f"{MIN_AGREEMENT:.0%} are needed"
        )
    if champion.alert_rate >= MIN_OFF_RATIO * nominal and challenger.alert_rate <= max_rate:
        gains.append(
            f"alerts on {challenger.alert_rate:.2%} of the inliers, the current model on {champion.alert_rate:.2%}"
        )
    if challenger.detection > champion.detection + MAX_DETECTION_LOST:
        gains.append(detection)
    if not gains and not failures:
        failures.append("it is no better in anything")
    figures = {
        part.name: {
            side: significant(getattr(model, part.name), 4)
            for side, model in (("current", champion), ("candidate", challenger))
        }
        for part in fields(_Side)
    }
    return GateVerdict(failures, gains, {"rows": rows, "strongest": strongest, **figures})
