"""Gates for somebody's CI: a replay fails when a number is too low or too high."""

from collections.abc import Mapping, Sequence
from typing import Any

from worker.errors import UsageError
from worker.replay.evaluate.metrics import METRICS


def parse_gate(text: str) -> tuple[str, float]:
    """KEY=NUMBER as (key, number); dots reach into nested metrics. UsageError for an unknown key or no number."""
    key, _, number = text.partition("=")
    if key.split(".")[0] not in METRICS:
        raise UsageError(f"{key!r} is no metric; there are {', '.join(METRICS)}")
    try:
        return key, float(number)
    except ValueError:
        raise UsageError(f"{text!r} must be KEY=NUMBER, such as roc_auc=0.95") from None


def failed_gates(
    metrics: Mapping[str, Any], *, under: Sequence[tuple[str, float]] = (), over: Sequence[tuple[str, float]] = ()
) -> list[str]:
    """What failed, in words; a metric that is null fails every gate: it could not be checked."""
    failures = []
    for gates, word, sign in ((under, "under", 1), (over, "over", -1)):
        for key, limit in gates:
            value = _value(metrics, key)
            if value is None:
                failures.append(f"{key} is not known here, so it can't be checked against {limit:g}")
            elif sign * value < sign * limit:
                failures.append(f"{key} = {value:g} is {word} {limit:g}")
    return failures


def _value(metrics: Mapping[str, Any], key: str) -> float | None:
    value: Any = metrics
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return float(value) if isinstance(value, int | float) else None
