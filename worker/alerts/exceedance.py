"""Records above their threshold, and how severe that is."""

import math
from dataclasses import dataclass, replace

import numpy as np

from worker.features.vectorize import Vectors
from worker.formats.base import Row
from worker.records import FloatArray, Message, RawMessage, Scores

WARNING_BELOW = 1e-3
"""Tail probability below which an alert is a warning: one inlier in 1,000 has such a score."""

CRITICAL_BELOW = 1e-5
"""Tail probability below which an alert is critical: one inlier in 100,000 has such a score."""


MAX_KEY_BYTES = 256
"""A longer Kafka key is not remembered: the closing alert or summary of such a record has none."""


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


def severity_of(tail_probability: float) -> str:
    """`critical`, `warning` or `info`; NaN, a score whose rarity is not known, is `info`.

    >>> [severity_of(probability) for probability in (5e-6, 5e-4, 0.004, math.nan)]
    ['critical', 'warning', 'info', 'info']
    """
    if tail_probability < CRITICAL_BELOW:
        return "critical"
    return "warning" if tail_probability < WARNING_BELOW else "info"


def exceedances(vectors: Vectors, scores: Scores, tail_probability: FloatArray) -> list[Exceedance]:
    """The exceedances among the scored records of a batch, in input order.

    tail_probability   float64 (B,), NaN where it is not known
    """
    above: list[Exceedance] = []
    for row in np.flatnonzero(scores.alert).tolist():
        tail = float(tail_probability[row])
        exceedance = Exceedance(
            row=row,
            message=vectors.messages[row],
            record=vectors.rows[row],
            event_time_ms=int(scores.event_time_ms[row]),
            score=float(scores.score[row]),
            threshold=float(scores.threshold[row]),
            severity=severity_of(tail),
            tail_probability=None if math.isnan(tail) else tail,
            model_version=scores.model_version,
        )
        above.append(exceedance)
    return above


def remember(strongest: Exceedance | None, other: Exceedance) -> Exceedance:
    """The one with the higher score; of two models, whose scores don't compare, the `other`, newer one.

    It is remembered without its record and without a long key: as it would be after a restart, which changes nothing.
    """
    if strongest is not None and strongest.model_version == other.model_version and strongest.score >= other.score:
        return strongest
    message = other.message
    key = message.key if message.key is None or len(message.key) <= MAX_KEY_BYTES else None
    bare = Message(message.topic, message.partition, message.offset, message.timestamp, key, None)
    return replace(other, row=-1, message=bare, record={})
