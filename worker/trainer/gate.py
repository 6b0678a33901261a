"""The gate: champion against challenger on recent traffic that neither was fitted on.

A challenger has to be no worse, within a stated margin, in every respect that can be measured without labels, and
better in one. It is asked only where traffic drifted (worker.trainer.drift): one by planted anomalies alone is blind to
real anomalies that leaked into the fit.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from worker.errors import DataError
from worker.features.inject import inject
from worker.pipeline import Model
from worker.ranking import roc_auc_of_scores
from worker.records import FloatArray
from worker.texts import significant
from worker.thresholds.inlier import calibrated_quantile
from worker.trainer.candidate import CALIBRATE, Window, scores_of, tail_back

PLANTED_SHARE = 0.5
"""Share of the judged rows that anomalies are planted into a copy of."""

DETECTION_MARGIN = 0.01
"""Most ROC-AUC of planted anomalies that a challenger may lose."""

RATE_LIMIT = 2.0
"""Most alerts of ordinary rows by the challenger's own calibration, in nominal rates."""

RATE_ERRORS = 2.0
"""... and standard errors of that rate on top, since few rows prove little."""

OFF_RATE = 1.5
"""Alert rate of the champion, in nominal rates, from which bringing it back is an improvement."""

BODY_LIMIT = 1.5
"""Factor within which the challenger's median score of ordinary rows must lie of its calibrated one."""

AGREEMENT = 0.8
"""Least share of the champion's strongest alerts that the challenger alerts, too."""

STRONGEST = 200
STRONG = 2.0
"""What counts as strongest: so many rows, each beyond the valley or at this multiple of the threshold."""

FEW_ROWS = 200
FEW_STRONG = 20


@dataclass(frozen=True, slots=True)
class Judged:
    """What the gate found. failures: why it is refused; gains: what it does better; figures: plain data for JSON."""

    failures: list[str]
    gains: list[str]
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """No worse anywhere, better somewhere."""
        return not self.failures and bool(self.gains)


@dataclass(frozen=True, slots=True)
class _Side:
    """One model on the judged rows. median: of the ordinary rows over the calibrated median."""

    rate: float
    median: float
    detection: float
    recall: float
    alerts_of_strongest: float


def judge(
    champion: Model, challenger: Model, window: Window, *, threshold: float, quantile: float, seed: int
) -> Judged:
    """Compare on the rows of the window that are above CALIBRATE. threshold: the champion's in this window."""
    held = window.fold >= CALIBRATE
    ordinary = window.pick(held & window.ordinary)
    if len(ordinary) < FEW_ROWS:
        return Judged([f"only {len(ordinary)} ordinary rows to judge by, {FEW_ROWS} are needed"], [])
    try:
        changed, truth = inject(ordinary, champion.bundle.schema, share=PLANTED_SHARE, seed=seed)
    except DataError as error:
        return Judged([str(error)], [])
    planted = [changed[entry.index] for entry in truth]
    strong = (window.score >= STRONG * threshold) | window.apart
    places = np.flatnonzero(strong)
    places = places[np.argsort(-window.score[places], kind="stable")][:STRONGEST]
    strongest = [window.rows[place] for place in places.tolist()]
    sides = [
        _side(model, ordinary, tail_back(model, window, held, quantile, len(ordinary)), planted, strongest, quantile)
        for model in (champion, challenger)
    ]
    return _compare(*sides, quantile=quantile, rows=len(ordinary), strongest=len(strongest))


def _side(
    model: Model, ordinary: list[Any], tail: FloatArray, planted: list[Any], strongest: list[Any], quantile: float
) -> _Side:
    own, odd = np.concatenate([scores_of(model, ordinary), tail]), scores_of(model, planted)
    calibration = model.bundle.calibration
    line = calibrated_quantile(calibration, quantile)
    here = float(np.quantile(own, quantile))
    middle = float(np.median(calibration))
    return _Side(
        rate=float((own > line).mean()),
        median=float(np.median(own)) / middle if middle > 0 else 1.0,
        detection=roc_auc_of_scores(own, odd),
        recall=float((odd > here).mean()),
        alerts_of_strongest=float((scores_of(model, strongest) > line).mean()) if strongest else 1.0,
    )


def _compare(champion: _Side, challenger: _Side, *, quantile: float, rows: int, strongest: int) -> Judged:
    nominal = 1 - quantile
    most = RATE_LIMIT * nominal + RATE_ERRORS * math.sqrt(nominal * quantile / rows)
    failures, gains = [], []
    if challenger.detection < champion.detection - DETECTION_MARGIN:
        failures.append(f"planted anomalies: ROC-AUC {challenger.detection:.3f}, champion {champion.detection:.3f}")
    if challenger.rate > most:
        failures.append(f"alerts {challenger.rate:.2%} of ordinary records, at most {most:.2%} are nominal")
    if not 1 / BODY_LIMIT <= challenger.median <= BODY_LIMIT:
        failures.append(f"scores ordinary records at {challenger.median:.3g} times what it was calibrated to")
    if strongest >= FEW_STRONG and challenger.alerts_of_strongest < AGREEMENT:
        failures.append(
            f"alerts {challenger.alerts_of_strongest:.0%} of the champion's {strongest} strongest alerts, "
            f"at least {AGREEMENT:.0%} are needed"
        )
    if champion.rate >= OFF_RATE * nominal and challenger.rate <= most:
        gains.append(f"alerts {challenger.rate:.2%} of ordinary records, champion {champion.rate:.2%}")
    if challenger.detection > champion.detection + DETECTION_MARGIN:
        gains.append(f"planted anomalies: ROC-AUC {challenger.detection:.3f}, champion {champion.detection:.3f}")
    if not gains and not failures:
        failures.append("it is no better in anything")
    figures = {
        name: {
            side: significant(getattr(of, name), 4) for side, of in (("champion", champion), ("challenger", challenger))
        }
        for name in _Side.__slots__
    }
    return Judged(failures, gains, {"rows": rows, "strongest": strongest, **figures})
