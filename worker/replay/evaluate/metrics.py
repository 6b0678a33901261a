"""metrics.json: every key, what it means, how it follows from a tally, and gates on it for continuous integration."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from worker.errors import UsageError
from worker.ranking import average_precision, roc_auc
from worker.replay.evaluate.score_table import ANOMALOUS, NORMAL, UNKNOWN, bootstrap, bootstrap_share
from worker.replay.evaluate.tally import BUDGETS, DAY_MS, Tally
from worker.texts import did_you_mean, significant

METRICS = {
    "records": "records replayed: scored, dead-lettered or skipped; without those that the model was fitted on",
    "scored": "records that got a score",
    "skipped": "records without a value (tombstones)",
    "dead_letters": "records that can't be scored",
    "dead_letters_by_code": "dead letters for each error code",
    "alerts": "records above their threshold",
    "alerts_per_day": "alerts divided by `days`; null without event times",
    "published": "lines of alerts.jsonl: alerts less those silenced, grouped or rate limited, and the ends of groups",
    "published_per_day": "published alerts divided by `days`; null without event times",
    "silenced": "alerts that a rule of the silences file kept back, for each rule",
    "grouped": "alerts that became part of an open alert group",
    "rate_limited": "alerts that the rate limit kept back",
    "days": "days from the first to the last event time, at least 1; null without event times",
    "first_event_time_ms": "earliest event time, ms since the epoch, UTC",
    "last_event_time_ms": "latest event time, ms since the epoch, UTC",
    "backward_times": "records whose event time lies before that of an earlier record",
    "score_median": "median score",
    "score_p99": "99% quantile of the scores",
    "score_max": "highest score",
    "score_resolution": "relative difference below which scores count as equal in what is measured here; 0 = exact",
    "labelled": "scored records with a label",
    "anomalies": "scored records that are labelled anomalous",
    "roc_auc": "chance that an anomaly scores higher than a normal record",
    "roc_auc_interval": "95% interval of roc_auc, stratified bootstrap of records",
    "average_precision": "area under the precision-recall curve, step-wise",
    "average_precision_interval": "95% interval of average_precision, stratified bootstrap of records",
    "true_alerts": "alerts on records labelled anomalous",
    "false_alerts": "alerts on records labelled normal",
    "precision_at_threshold": "share of the alerts on labelled records that are anomalies; null without alerts",
    "precision_at_threshold_interval": "95% interval of precision_at_threshold",
    "recall_at_threshold": "share of the anomalies that were alerted",
    "recall_at_threshold_interval": "95% interval of recall_at_threshold",
    "false_alert_rate": "share of the normal records that were alerted",
    "precision_at_k": "for budgets of 10, 100, 1000 alerts a day: anomalies' share of each day's best scores",
    "recall_at_k": "for budgets of 10, 100, 1000 alerts a day: share of the anomalies among each day's best scores",
    "recall_by_kind": "for each kind of anomaly: its records, its alerts, and the share that was alerted",
    "incidents": "anomalies of one kind and key, each at most an hour after the one before, count as one incident",
    "incidents_detected": "incidents with at least one alert",
    "time_to_detect_median_s": "median seconds from an incident's first anomaly to its first alert, detected ones only",
    "time_to_detect_p90_s": "90% quantile of the same",
    "model_versions": "records scored by each model version",
    "fit_records": "records at the start of the input that a model was fitted on; they are not replayed",
    "blank_lines": "empty lines of the input, which are no records",
    "sweep": "for each value of --sweep: alerts, and with labels precision, recall and false alert rate; else absent",
    "compare": "with --compare: the second model's metrics, alerts shared, gained, lost, differences",
    "refits": "with --refit-every: each check of the trainer, its decision, reasons and figures",
    "records_per_s": "records replayed per second, in that time",
    "elapsed_s": "seconds from the first record read to the last one written",
    "complete": "false where the input broke off; `error` then says where",
    "error": "why the input broke off, null where it did not",
}
"""Every key that metrics.json can have. Those about labels are null without labels."""


def measure(tally: Tally, *, seed: int = 0) -> dict[str, Any]:
    """The metrics that follow from a tally; `worker.replay.run.loop` adds those about the run itself."""
    days = None
    if tally.first_ms is not None and tally.last_ms is not None:
        days = max(1.0, (tally.last_ms - tally.first_ms) / DAY_MS)
    alerts = tally.alerts.total()
    dead = tally.dead_letters.total()
    return {
        "records": tally.scored + dead + tally.skipped,
        "scored": tally.scored,
        "skipped": tally.skipped,
        "dead_letters": dead,
        "dead_letters_by_code": {str(code): count for code, count in sorted(tally.dead_letters.items())},
        "alerts": alerts,
        "alerts_per_day": None if days is None else _rounded(alerts / days),
        "published": tally.published,
        "published_per_day": None if days is None else _rounded(tally.published / days),
        "silenced": dict(sorted(tally.silenced.items())),
        "grouped": tally.grouped,
        "rate_limited": tally.rate_limited,
        "days": None if days is None else _rounded(days),
        "first_event_time_ms": tally.first_ms,
        "last_event_time_ms": tally.last_ms,
        "backward_times": tally.backwards,
        "score_median": _rounded(tally.table.quantile(0.5)),
        "score_p99": _rounded(tally.table.quantile(0.99)),
        "score_max": _rounded(tally.table.quantile(1.0)),
        "score_resolution": tally.table.resolution,
        "labelled": tally.scored - tally.groups[UNKNOWN],
        "anomalies": tally.groups[ANOMALOUS],
        **_ranking(tally, seed),
        **_at_threshold(tally, seed),
        **_at_budgets(tally),
        **_incidents(tally),
        "model_versions": dict(tally.models),
    }


def _ranking(tally: Tally, seed: int) -> dict[str, Any]:
    measures = {"roc_auc": roc_auc, "average_precision": average_precision}
    if not tally.groups[NORMAL] or not tally.groups[ANOMALOUS]:
        return dict.fromkeys(key for name in measures for key in (name, f"{name}_interval"))
    counts = tally.table.count(NORMAL), tally.table.count(ANOMALOUS)
    intervals = bootstrap(tally.table, seed=seed)
    ranking: dict[str, Any] = {}
    for name, measure_of in measures.items():
        ranking[name] = _rounded(float(measure_of(*counts)))
        ranking[f"{name}_interval"] = list(map(_rounded, intervals[name]))
    return ranking


def _at_threshold(tally: Tally, seed: int) -> dict[str, Any]:
    true, false = tally.alerts[ANOMALOUS], tally.alerts[NORMAL]
    labelled = tally.groups[NORMAL] + tally.groups[ANOMALOUS] > 0
    at_threshold: dict[str, Any] = {
        "true_alerts": true if labelled else None,
        "false_alerts": false if labelled else None,
    }
    for name, of in (("precision_at_threshold", true + false), ("recall_at_threshold", tally.groups[ANOMALOUS])):
        at_threshold[name] = _rounded(true / of) if of else None
        at_threshold[f"{name}_interval"] = list(map(_rounded, bootstrap_share(true, of, seed=seed))) if of else None
    at_threshold["false_alert_rate"] = _rounded(false / tally.groups[NORMAL]) if tally.groups[NORMAL] else None
    return at_threshold


def _at_budgets(tally: Tally) -> dict[str, Any]:
    anomalies = tally.groups[ANOMALOUS]
    if not anomalies:
        return {"precision_at_k": None, "recall_at_k": None}
    counts = {str(budget): tally.days.at_budget(budget) for budget in BUDGETS}
    return {
        "precision_at_k": {budget: _rounded(true / alerts) for budget, (alerts, true) in counts.items()},
        "recall_at_k": {budget: _rounded(true / anomalies) for budget, (_, true) in counts.items()},
    }


def _incidents(tally: Tally) -> dict[str, Any]:
    kinds = {
        kind: {
            "records": count,
            "alerts": tally.alerted_kinds[kind],
            "recall": _rounded(tally.alerted_kinds[kind] / count),
        }
        for kind, count in sorted(tally.kinds.items())
    }
    incidents, detected, median, p90 = tally.incidents.finish()
    return {
        "recall_by_kind": kinds or None,
        "incidents": incidents or None,
        "incidents_detected": detected if incidents else None,
        "time_to_detect_median_s": median,
        "time_to_detect_p90_s": p90,
    }


def _rounded(value: float) -> float | None:
    """Six significant digits; null for NaN, which JSON doesn't have."""
    return None if math.isnan(value) else significant(value, 6)


def parse_gate(text: str) -> tuple[str, float]:
    """KEY=NUMBER as (key, number); dots reach into nested metrics. UsageError for an unknown key or no number."""
    key, _, number = text.partition("=")
    if key.split(".")[0] not in METRICS:
        raise UsageError(f"{key!r} is no metric{did_you_mean(key, METRICS)}; there are {', '.join(METRICS)}")
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
            value: Any = metrics
            for part in key.split("."):
                value = value.get(part) if isinstance(value, Mapping) else None
            if not isinstance(value, int | float):
                failures.append(f"{key} is not known here, so it can't be checked against {limit:g}")
            elif sign * value < sign * limit:
                failures.append(f"{key} = {value:g} is {word} {limit:g}")
    return failures
