"""Has normal traffic drifted? Asked of the current model's scores alone, one check's scores at a time.

A refit on traffic that has not drifted gains nothing and lets unlabelled anomalies leak in, so this comes first. Which
fields have drifted is for people to read, and decides nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np

from worker.features.paths import value_of
from worker.features.schema import Schema
from worker.formats.base import Row
from worker.records import FloatArray
from worker.texts import significant
from worker.thresholds.quantile import InlierQuantile, calibrated_quantile

BULK = (0.5, 0.75, 0.9)  # quantiles of the calibration at which the bulk of the scores is compared with it
STANDARD_ERRORS = 2.0  # that a drift has to exceed: few calibration rows prove little
MIN_DRIFTED = 0.15  # share of the inliers that score beyond what the calibration explains, for traffic to have drifted
MIN_TAIL_RATIO = 1.25  # ... and the tail with it: the threshold over the calibrated one
MIN_REPLACED = 0.90  # share of all scores that have drifted, for the known traffic to be gone
MIN_NEW_POPULATION = 0.10  # share of all scores beyond the density valley that is worth a person's attention
STRIDE = 256  # scores between two updates of the threshold
MAX_SCORES = 20_000  # in a buffer, twice as many in between: enough to tell a per cent from none

SIGNIFICANCE = 1e-3  # probability of a false alarm over all fields together (Bonferroni)
MIN_DISTANCE = 0.1  # of a drifted field: between two cumulative distributions, or the total variation of categories
MIN_ROWS = 50  # below which no field is named


class DriftState(StrEnum):
    """What the traffic of one check is like."""

    STABLE = "stable"  # the bulk of the scores is where the calibration has it
    DRIFTED = "drifted"  # a part of the inliers scores higher, and the tail with it; a flood looks the same, but ends
    REPLACED = "replaced"  # almost nothing is left of the known traffic: a flood adds records, a change replaces them
    # Beyond a density valley lives what the calibration does not hold: new traffic or a flood, which scores can't tell.
    NEW_POPULATION = "new_population"


@dataclass(frozen=True, slots=True)
class DriftAssessment:
    """What the scores of one check say.

    records                scores that were assessed
    drifted_share          share of the inliers that the calibration does not explain, at least, in [0, 1]
    replaced_share         the same of all scores
    tail_ratio             threshold now over the calibrated threshold; 1 = as calibrated
    new_population_share   share of all scores beyond the cut-off
    cutoff                 score at the density valley; infinite where there is none
    threshold              quantile of the inliers
    """

    records: int
    drifted_share: float
    replaced_share: float
    tail_ratio: float
    new_population_share: float
    cutoff: float
    threshold: float

    @property
    def state(self) -> DriftState:
        """The kind of traffic."""
        if self.replaced_share >= MIN_REPLACED:
            return DriftState.REPLACED
        if self.drifted_share >= MIN_DRIFTED and self.tail_ratio >= MIN_TAIL_RATIO:
            return DriftState.DRIFTED
        return DriftState.NEW_POPULATION if self.new_population_share >= MIN_NEW_POPULATION else DriftState.STABLE

    def figures(self) -> dict[str, Any]:
        """Plain data for JSON, rounded for people."""
        values = {name: value for name, value in asdict(self).items() if value < math.inf}
        return {"state": self.state.value, **{name: significant(value, 4) for name, value in values.items()}}


def share_drifted(scores: FloatArray, calibration: FloatArray) -> float:
    """Share of the scores that can't come from where the calibration comes from, at least; in [0, 1].

    If a share p of the scores were like the calibration, at least p·q of all would lie below its quantile q. So p is at
    most the lowest ratio over the quantiles, here with STANDARD_ERRORS of both samples on top.

    It is a lower bound, and sees only scores that rise: records that score lower than before count as known. Of 100
    scores and 100 calibration rows it comes out lower by a tenth, for their standard errors.

    scores        float64 (B,), in any order
    calibration   float64 (N,), N >= 1

    >>> calibration = np.arange(1000.0)
    >>> share_drifted(calibration, calibration)
    0.0
    >>> f"{share_drifted(np.append(calibration, np.full(1000, 5000.0)), calibration):.2f}"
    '0.47'

    Storey, A direct approach to false discovery rates (2002): his estimate of the share of true null hypotheses.
    """
    if not len(scores):
        return 0.0
    ordered, explained = np.sort(scores), 1.0
    for q in BULK:
        below = np.searchsorted(ordered, np.quantile(calibration, q), side="right") / len(scores)
        error = math.sqrt((1 - q) / q * (1 / len(calibration) + 1 / len(scores)))
        explained = min(explained, below / q + STANDARD_ERRORS * error)
    return 1.0 - explained


def assess_drift(scores: FloatArray, calibration: FloatArray, quantile: float = 0.99) -> DriftAssessment:
    """Assess scores (B,) in order of arrival, B >= 1, against the current model's calibration (N,)."""
    policy = InlierQuantile(calibration, quantile, window=len(scores))
    for start in range(0, len(scores), STRIDE):
        policy.update(scores[start : start + STRIDE])
    inliers = scores[scores < policy.cutoff]
    calibrated = calibrated_quantile(np.sort(calibration), quantile)
    return DriftAssessment(
        records=len(scores),
        drifted_share=share_drifted(inliers, calibration),
        replaced_share=share_drifted(scores, calibration),
        tail_ratio=policy.threshold() / calibrated if calibrated > 0 else 1.0,
        new_population_share=1 - len(inliers) / len(scores),
        cutoff=policy.cutoff,
        threshold=policy.threshold(),
    )


class ScoreBuffer:
    """The scores since the last check in order of arrival, thinned out evenly: beyond twice MAX_SCORES every second one
    is dropped, and of those that follow."""

    def __init__(self, scores: FloatArray | None = None, *, step: int = 1, seen: int = 0) -> None:
        self.scores = np.empty(0) if scores is None else scores
        self.step = step  # each step-th score is kept
        self.seen = seen

    def __len__(self) -> int:
        return len(self.scores)

    def add(self, scores: FloatArray) -> None:
        """The next scores (B,)."""
        first = -self.seen % self.step
        self.seen += len(scores)
        self.scores = np.concatenate([self.scores, scores[first :: self.step]])
        while len(self.scores) > 2 * MAX_SCORES:
            self.step *= 2
            self.scores = self.scores[::2]

    def last(self, count: int) -> "ScoreBuffer":
        """The newest `count` of what is kept, and how many records they stand for."""
        return ScoreBuffer(self.scores[-count:], step=self.step, seen=min(count * self.step, self.seen))


class FieldDrift(NamedTuple):
    """How far a field's values have drifted.

    distance   in [0, 1]
    p_value    probability of such a distance where nothing has drifted
    """

    field: str
    distance: float
    p_value: float


def drifted_fields(learned: Sequence[Row], recent: Sequence[Row], schema: Schema) -> list[FieldDrift]:
    """The fields whose values have drifted, furthest first.

    Each kind of field says how far two samples of its values lie apart: numbers by the two-sample Kolmogorov-Smirnov
    test, categories by the chi-square test of homogeneity. With thousands of rows every difference is significant, so a
    field has drifted only where the distance is large as well.

    Each field is compared by itself: where only the relations between fields change, none is named. Fields of time are
    left out, for time always moves.

    learned   rows that the model was fitted on; no field is named where either side has fewer than MIN_ROWS
    recent    rows of the present traffic

    >>> from worker.features.schema import parse_schema
    >>> schema = parse_schema('[fields.x]\\nkind = "numeric"\\n[fields.y]\\nkind = "numeric"')
    >>> learned = [{"x": float(i % 50), "y": float(i % 50)} for i in range(500)]
    >>> drifted_fields(learned, [{**row, "y": row["y"] + 25} for row in learned], schema)[0][:2]
    ('y', 0.5)

    Massey, The Kolmogorov-Smirnov test for goodness of fit (1951); Pearson's chi-square (1900).
    """
    if min(len(learned), len(recent)) < MIN_ROWS:
        return []
    fields = [field for field in schema.encoded if not field.is_time]
    drifts = []
    for field in fields:
        values = ([value_of(row, field.name) for row in rows] for rows in (learned, recent))
        drifts.append(FieldDrift(field.name, *field.drift(*values)))
    bound = SIGNIFICANCE / len(fields)
    drifted = [drift for drift in drifts if drift.distance >= MIN_DISTANCE and drift.p_value < bound]
    return sorted(drifted, key=lambda drift: -drift.distance)
