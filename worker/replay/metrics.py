"""metrics.json: every key, what it means, how it follows from a tally, and gates on it for continuous integration."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from worker.errors import UsageError
from worker.ranking import average_precision, roc_auc
from worker.replay.score_table import ANOMALOUS, NORMAL, UNKNOWN, bootstrap, bootstrap_share
from worker.replay.tally import BUDGETS, DAY_MS, Tally
from worker.texts import did_you_mean, significant

METRICS = {
    "records": "records replayed: scored, dead-lettered or skipped; without those that the model was fitted on",
    "scored": "records that got a score",
    "skipped": "records without a value (tombstones)",
    "dead_letters": "records that can't be scored",
    "dead_letters_by_code": "dead letters for each error code",
    "unexpected_values": "values of scored records that their field can't read, for each field",
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
    "fit_overlap": "records that the model was fitted on, by its file, offsets or time: then its figures are too good",
    "blank_lines": "empty lines of the input, which are no records",
    "unreadable": "rows and lines of the files that could not be read and were left out",
    "sweep": "for each value of --sweep: alerts, and with labels precision, recall and false alert rate; else absent",
    "compare": "with --compare: the second model's metrics, alerts shared, gained, lost, differences",
    "refits": "with --refit-every: each check of the trainer, its decision, reasons and figures",
    "records_per_s": "records replayed per second, in that time",
    "elapsed_s": "seconds from the first record read to the last one written",
    "complete": "false where the input broke off; `error` then says where",
    "error": "why the input broke off, null where it did not",
}
"""Every key that metrics.json can have. Those about labels are null without labels."""


def ratio(part: float, of: float | None) -> float | None:
    """A share or a rate with six significant digits; None where there is nothing to divide by."""
    return significant(part / of, 6) if of else None


def measure(tally: Tally, *, seed: int = 0) -> dict[str, Any]:
    """The metrics that follow from a tally; `worker.replay.loop` adds those about the run itself."""
    days: float | None = None
    if tally.first_ms is not None and tally.last_ms is not None:
        days = max(1.0, (tally.last_ms - tally.first_ms) / DAY_MS)
    scored, alerts, dead = tally.groups.total(), tally.alerts.total(), tally.dead_letters.total()
    quantiles = (tally.table.quantile(share) for share in (0.5, 0.99, 1.0))
    score_median, score_p99, score_max = (None if math.isnan(score) else significant(score, 6) for score in quantiles)
    alerted = tally.alerted_kinds
    kinds = {
        kind: {"records": count, "alerts": alerted[kind], "recall": ratio(alerted[kind], count)}
        for kind, count in sorted(tally.kinds.items())
    }
    incidents, detected, median_s, p90_s = tally.incidents.finish()
    return {
        "records": scored + dead + tally.skipped,
        "scored": scored,
        "skipped": tally.skipped,
        "dead_letters": dead,
        "dead_letters_by_code": {str(code): count for code, count in sorted(tally.dead_letters.items())},
        "unexpected_values": dict(sorted(tally.unexpected.items())),
        "alerts": alerts,
        "alerts_per_day": ratio(alerts, days),
        "published": tally.published,
        "published_per_day": ratio(tally.published, days),
        "silenced": dict(sorted(tally.silenced.items())),
        "grouped": tally.grouped,
        "rate_limited": tally.rate_limited,
        "days": None if days is None else significant(days, 6),
        "first_event_time_ms": tally.first_ms,
        "last_event_time_ms": tally.last_ms,
        "backward_times": tally.backwards,
        "score_median": score_median,
        "score_p99": score_p99,
        "score_max": score_max,
        "score_resolution": tally.table.resolution,
        "labelled": scored - tally.groups[UNKNOWN],
        "anomalies": tally.groups[ANOMALOUS],
        **_by_label(tally, seed),
        "recall_by_kind": kinds or None,
        "incidents": incidents or None,
        "incidents_detected": detected if incidents else None,
        "time_to_detect_median_s": median_s,
        "time_to_detect_p90_s": p90_s,
        "model_versions": dict(tally.models),
    }


def _by_label(tally: Tally, seed: int) -> dict[str, Any]:
    """How well the scores rank, and what the thresholds and a budget of alerts make of it."""
    normal, anomalies = tally.groups[NORMAL], tally.groups[ANOMALOUS]
    true, false = tally.alerts[ANOMALOUS], tally.alerts[NORMAL]
    metrics: dict[str, Any] = {}
    intervals = bootstrap(tally.table, seed=seed) if normal and anomalies else None
    for name, measure_of in (("roc_auc", roc_auc), ("average_precision", average_precision)):
        exact = None if intervals is None else measure_of(tally.table.count(NORMAL), tally.table.count(ANOMALOUS))
        metrics[name] = None if exact is None else significant(float(exact), 6)
        metrics[f"{name}_interval"] = None if intervals is None else _rounded(intervals[name])
    metrics["true_alerts"] = true if normal + anomalies else None
    metrics["false_alerts"] = false if normal + anomalies else None
    for name, of in (("precision_at_threshold", true + false), ("recall_at_threshold", anomalies)):
        metrics[name] = ratio(true, of)
        metrics[f"{name}_interval"] = _rounded(bootstrap_share(true, of, seed=seed)) if of else None
    metrics["false_alert_rate"] = ratio(false, normal)
    budgets = {str(budget): tally.days.at_budget(budget) for budget in BUDGETS if anomalies}
    metrics["precision_at_k"] = {key: ratio(hits, spent) for key, (spent, hits) in budgets.items()} or None
    metrics["recall_at_k"] = {key: ratio(hits, anomalies) for key, (_, hits) in budgets.items()} or None
    return metrics


def _rounded(interval: tuple[float, float]) -> list[float]:
    return [significant(bound, 6) for bound in interval]


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
