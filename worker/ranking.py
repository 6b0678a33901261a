"""How well scores rank anomalies above normal records.

normal, anomalous   int64 (..., D), normal and anomalous records with each of D distinct scores, ascending
"""

import numpy as np
from numpy.typing import NDArray

from worker.records import FloatArray

Counts = NDArray[np.int64]


def roc_auc(normal: Counts, anomalous: Counts) -> FloatArray:
    """Area under the ROC curve: the chance that an anomaly outscores a normal record, ties counting half.

    Works badly as the only measure where anomalies are rare: at 1 anomaly in 1,000 records an area of 0.99 can still
    mean that nine of ten alerts are false. Look at `average_precision` beside it.

    The result is float64 (...), NaN where one of the two classes is empty.

    >>> float(roc_auc(np.array([3, 1, 0]), np.array([0, 1, 1])))
    0.9375

    Hanley & McNeil (1982): The meaning and use of the area under a receiver operating characteristic (ROC) curve.
    """
    below = np.cumsum(normal, -1) - normal / 2
    with np.errstate(invalid="ignore"):
        area: FloatArray = (anomalous * below).sum(-1) / (normal.sum(-1) * anomalous.sum(-1).astype(np.float64))
    return area


def roc_auc_of_scores(normal: FloatArray, anomalous: FloatArray) -> float:
    """`roc_auc` of two samples of scores, float64 (N,) and (A,).

    >>> roc_auc_of_scores(np.array([0.1, 0.1, 0.1, 0.5]), np.array([0.5, 0.9]))
    0.9375
    """
    _, places = np.unique(np.concatenate([normal, anomalous]), return_inverse=True)
    size = int(places.max(initial=-1)) + 1
    sides = (np.bincount(part, minlength=size) for part in np.split(places, [len(normal)]))
    return float(roc_auc(*sides))


def average_precision(normal: Counts, anomalous: Counts) -> FloatArray:
    """Area under the precision-recall curve: the sum over thresholds of (gain in recall) x precision.

    Works badly for comparing recordings: its value for a random ranking is the share of anomalies, so that the same
    model looks worse where anomalies are rarer. Steps aren't interpolated, which would be too optimistic.

    The result is float64 (...), NaN where there are no anomalies.

    >>> round(float(average_precision(np.array([3, 1, 0]), np.array([0, 1, 1]))), 4)
    0.8333

    As scikit-learn's `average_precision_score` defines it; Davis & Goadrich (2006): The relationship between
    Precision-Recall and ROC curves.
    """
    hits = np.cumsum(anomalous[..., ::-1], -1)
    alerts = hits + np.cumsum(normal[..., ::-1], -1)
    with np.errstate(invalid="ignore"):
        precision = np.where(alerts > 0, hits / np.maximum(alerts, 1), 0.0)
        area: FloatArray = (anomalous[..., ::-1] * precision).sum(-1) / hits[..., -1]
    return area
