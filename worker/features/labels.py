"""Fields that look like labels: what somebody knows about a record afterwards, which no model may learn from."""

import re

MAX_CLASSES = 50  # distinct values of a label
MIN_REPEATS = 2  # records for each of them, on average

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")
# As a word of a name: is_fraud, attackCategory.
_ANYWHERE = {"label", "labels", "labeled", "fraud", "fraudulent", "anomaly", "anomalies", "anomalous", "outlier"}
_ANYWHERE |= {"attack", "attacks", "malicious", "malware", "intrusion", "groundtruth", "churn", "churned"}
# As a whole name, but for "is": class, not class_of_service.
_ALONE = {"class", "target", "outcome", "verdict", "truth", "groundtruth", "y", "abnormal", "normal", "bad", "benign"}


def is_label_name(name: str) -> bool:
    """Whether people call labels so; of a nested field its last key counts.

    >>> [is_label_name(name) for name in ("is_fraud", "event.attackType", "class", "ground_truth", "class_of_service")]
    [True, True, True, True, False]
    """
    words = [word.lower() for word in _WORD.findall(name.rpartition(".")[2])]
    alone = "".join(word for word in words if word != "is")
    return alone in _ALONE or not _ANYWHERE.isdisjoint(words)


def is_label(name: str, distinct: int, count: int) -> bool:
    """Whether a field is likely to be a label, by its name and its few values; count: records that have it."""
    return distinct <= MAX_CLASSES and count >= MIN_REPEATS * distinct > 0 and is_label_name(name)
