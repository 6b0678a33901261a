"""Sections of the report for a sweep, a comparison and refits."""

from collections.abc import Mapping, Sequence
from typing import Any

from worker.replay.report.html import card, metric, table, text


def sweep_section(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """A row for each value of the setting that was swept."""
    keys = ("setting", "alerts", "alerts_per_day", "precision", "recall", "false_alert_rate")
    known = [key for key in keys if any(row[key] is not None for row in rows)]
    cells = [[_cell(row[key]) for key in known] for row in rows]
    head = [name, *(key.replace("_", " ") for key in known[1:])]
    note = "Every record was scored once; only the threshold differs."
    return card("What other settings would have alerted", table(head, cells, range(1, len(known))), note)


def compare_section(metrics: Mapping[str, Any]) -> str:
    """Both models side by side; `metrics["compare"]` is what `worker.replay.evaluate.compare` found."""
    found = metrics["compare"]
    rows = [
        (
            text(name.replace("_", " ")),
            metric(metrics, name),
            metric(metrics, "compare", "metrics", name),
            _gap(found, name),
        )
        for name, value in found["metrics"].items()
        if value is not None
    ]
    first, second = (text(", ".join(names)) for names in (metrics["model_versions"], found["model_versions"]))
    counts = ", ".join(f"{metric(metrics, 'compare', name)} {name}" for name in ("shared", "gained", "lost"))
    body = f"<p><b>{text(found['verdict'])}</b></p><p>Alerts: {counts}.</p>"
    return card("Two models on the same records", body + table(("", first, second, "difference"), rows, (1, 2, 3)))


def refits_section(verdicts: Sequence[Mapping[str, Any]]) -> str:
    """Every look of the trainer, its decision and the figures behind it."""
    rows = []
    for verdict in verdicts:
        need, gate = (verdict["figures"].get(name, {}) for name in ("need", "gate"))
        rows.append(
            (
                f"{verdict['record']:,}",
                f"<b>{text(verdict['decision'])}</b>",
                "; ".join(text(reason) for reason in verdict["reasons"]),
                *(text(need.get(name, "-")) for name in ("moved", "tail", "beyond")),
                _both(gate, "detection"),
                _both(gate, "rate"),
                f"<code>{text(verdict['candidate'])}</code>" if verdict["candidate"] else "",
            )
        )
    head = ("records", "decision", "why", "moved", "tail", "beyond", "planted ROC-AUC", "alert rate", "candidate")
    note = (
        "moved: share of ordinary traffic that the model's calibration does not explain; tail: threshold over the "
        "calibrated one; beyond: share of the traffic beyond a valley in the scores. Then champion → challenger."
    )
    return card("What the trainer would have done", table(head, rows, (0, 3, 4, 5)), note)


def _both(gate: Mapping[str, Any], name: str) -> str:
    sides = gate.get(name)
    return f"{text(sides['champion'])} → {text(sides['challenger'])}" if sides else ""


def _gap(found: Mapping[str, Any], name: str) -> str:
    gap = found["differences"].get(name)
    return f"{gap['difference']:+.4g} ({gap['interval'][0]:+.4g} to {gap['interval'][1]:+.4g})" if gap else ""


def _cell(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return "-" if value is None else text(value)
