"""report.html: one page that needs nothing else, with the numbers of metrics.json."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from worker.errors import DataError
from worker.features.image import Image
from worker.model.store.bundle import Bundle
from worker.replay.evaluate.metrics import METRICS
from worker.replay.evaluate.score_table import ANOMALOUS, NORMAL
from worker.replay.report import charts
from worker.replay.report.charts import Figure
from worker.replay.report.html import card, chart, embedded_json, metric, table, text, tile
from worker.replay.report.latent import latent_figure
from worker.replay.report.pictures import Pictures
from worker.replay.report.strongest import strongest_section
from worker.replay.run.loop import Result

_PAGE = Path(__file__).with_name("page")


@dataclass(frozen=True, slots=True)
class Facts:
    """What the page tells besides the result. settings: as a person may see them, secrets masked.

    sections: more HTML, from a sweep, a comparison, planted anomalies. image: fields that form a picture.
    """

    sources: Sequence[str]
    bundle: Bundle
    settings: Mapping[str, str]
    version: str
    sections: Sequence[str] = field(default_factory=tuple)
    image: Image | None = None


def render(result: Result, facts: Facts, folder: Path) -> str:
    """The page; reads scores.parquet in `folder` for the charts."""
    metrics, tally = result.metrics, result.tally
    labelled = bool(tally.groups[NORMAL] or tally.groups[ANOMALOUS])
    ranked = metrics["roc_auc"] is not None
    figures: dict[str, Figure] = {
        "scores": charts.score_over_time(folder, tally.table, tally.days),
        "days": charts.alerts_a_day(tally.days, labelled=labelled),
        "distribution": charts.score_distribution(tally.table),
    }
    if metrics["days"] is None:
        del figures["days"]
    if ranked:
        rate, recall = metrics["false_alert_rate"], metrics["recall_at_threshold"]
        figures |= charts.ranking_curves(tally.table, rate, recall, metrics["precision_at_threshold"])
    latent = latent_figure(folder, facts.bundle.version)
    if latent is not None:
        figures["latent"] = latent[0]
    body = [
        _head(metrics, facts),
        _tiles(metrics, ranked=ranked),
        card("Score over time", chart("scores"), _points_note(metrics)),
        _pair(figures),
        _ranking(ranked=ranked),
        card("Codes of the records", chart("latent"), latent[1]) if latent is not None else "",
        _labels(metrics),
        *facts.sections,
        strongest_section(result.strongest, Pictures(facts.bundle, facts.image) if facts.image else None),
        _learned(facts.bundle),
        _dead_letters(result),
        _settings(facts),
        _all_metrics(metrics),
    ]
    return _page("".join(body), figures)


def _page(body: str, figures: Mapping[str, Figure]) -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise DataError("the report needs plotly: pip install kafka-anomaly-worker[replay]") from error
    css, script = ((_PAGE / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Replay report</title><style>{css}</style></head><body><main>{body}</main>"
        f'<script type="application/json" id="figures">{embedded_json(figures)}</script>'
        f"<script>{get_plotlyjs()}</script><script>{script}</script></body></html>"
    )


def _head(metrics: Mapping[str, Any], facts: Facts) -> str:
    span = ""
    if metrics["first_event_time_ms"] is not None:
        first, last = (_minute(metrics[name]) for name in ("first_event_time_ms", "last_event_time_ms"))
        span = f"{first} to {last} UTC · "
    models = ", ".join(
        f"<code>{text(version)}</code> ({metric(metrics, 'model_versions', version)} records)"
        for version in metrics["model_versions"]
    )
    head = f'<h1>Replay report</h1><p class="soft">{text(", ".join(facts.sources))}<br>{span}model {models}</p>'
    if not metrics["complete"]:
        head += card("The input broke off", f"<p>{text(metrics['error'])}</p>", "What came before is below.", "banner")
    if metrics["backward_times"]:
        body = f"<p>{metric(metrics, 'backward_times')} records are older than one before them.</p>"
        head += card("Time runs backwards", body, "", "banner")
    return head


def _minute(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _tiles(metrics: Mapping[str, Any], *, ranked: bool) -> str:
    tiles = [
        tile("records", metric(metrics, "records"), f"{metric(metrics, 'records_per_s')} a second"),
        tile("alerts", metric(metrics, "alerts"), f"{metric(metrics, 'alerts_per_day')} a day"),
        tile("dead letters", metric(metrics, "dead_letters")),
    ]
    if ranked:
        tiles += [
            tile("ROC-AUC", metric(metrics, "roc_auc"), metric(metrics, "roc_auc_interval")),
            tile(
                "average precision", metric(metrics, "average_precision"), metric(metrics, "average_precision_interval")
            ),
            tile("recall at the threshold", metric(metrics, "recall_at_threshold")),
            tile("precision at the threshold", metric(metrics, "precision_at_threshold")),
            tile("false alert rate", metric(metrics, "false_alert_rate")),
        ]
    else:
        tiles += [
            tile("median score", metric(metrics, "score_median")),
            tile("99% quantile", metric(metrics, "score_p99")),
            tile("largest score", metric(metrics, "score_max")),
        ]
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _points_note(metrics: Mapping[str, Any]) -> str:
    drawn = "Each point is an alert"
    if metrics["alerts"] > charts.MOST_POINTS:
        drawn = f"Points are the {charts.MOST_POINTS:,} strongest alerts"
    return f"{drawn}. The threshold is the mean over partitions."


def _pair(figures: Mapping[str, Figure]) -> str:
    cards = [card("Score distribution", chart("distribution"))]
    if "days" in figures:
        cards.insert(0, card("Alerts a day", chart("days")))
    return f'<div class="two">{"".join(cards)}</div>'


def _ranking(*, ranked: bool) -> str:
    if not ranked:
        return ""
    return (
        f'<div class="two">{card("ROC curve", chart("roc"))}'
        f"{card('Precision and recall', chart('precision_recall'))}</div>"
    )


def _labels(metrics: Mapping[str, Any]) -> str:
    """Budgets, kinds and incidents, where there are labelled anomalies."""
    if not metrics["anomalies"]:
        return ""
    budgets = [
        (text(f"{budget} a day"), metric(metrics, "precision_at_k", budget), metric(metrics, "recall_at_k", budget))
        for budget in metrics["precision_at_k"]
    ]
    kinds = [
        (text(kind), *(metric(metrics, "recall_by_kind", kind, name) for name in ("records", "alerts", "recall")))
        for kind in metrics["recall_by_kind"]
    ]
    found = ""
    if metrics["incidents"]:
        found = (
            f"<p>{metric(metrics, 'incidents_detected')} of {metric(metrics, 'incidents')} incidents were alerted, "
            f"half of them within {metric(metrics, 'time_to_detect_median_s')} s, nine in ten within "
            f"{metric(metrics, 'time_to_detect_p90_s')} s.</p>"
        )
    first = card("With a budget of alerts", table(("budget", "precision", "recall"), budgets, (1, 2)))
    second = card("Kinds of anomalies", found + table(("kind", "records", "alerts", "recall"), kinds, (1, 2, 3)))
    return f'<div class="two">{first}{second}</div>'


def _learned(bundle: Bundle) -> str:
    rows = [
        (text(name), text(kind), text(bundle.fitted.describe(name)))
        for name, kind in ((entry.name, entry.kind) for entry in bundle.schema.encoded)
    ]
    note = f"From {bundle.fitted.rows:,} records. Ranges hold 98% of them."
    return card("What the model learned about each field", table(("field", "kind", "usual"), rows), note)


def _dead_letters(result: Result) -> str:
    metrics = result.metrics
    if not metrics["dead_letters"]:
        return ""
    codes = [(text(code), metric(metrics, "dead_letters_by_code", code)) for code in metrics["dead_letters_by_code"]]
    examples = [
        (
            text(getattr(dead.message, "row", dead.message.offset)),
            text(dead.error_code),
            text(dead.detail),
            _excerpt(dead.message.value),
        )
        for dead in result.tally.dead_examples
    ]
    body = table(("code", "records"), codes, (1,)) + "<br>"
    return card("Dead letters", body + table(("row", "code", "why", "record"), examples), "The first ones of them:")


def _excerpt(value: bytes | None) -> str:
    return f"<code>{text((value or b'')[:120].decode(errors='replace'))}</code>"


def _settings(facts: Facts) -> str:
    report = facts.bundle.report
    trained = {name: report[name] for name in ("rows", "held_out_rows", "steps", "held_out_loss") if name in report}
    rows = [
        ("worker", facts.version),
        ("model version", facts.bundle.version),
        ("model made at", facts.bundle.created_at),
        ("schema fingerprint", facts.bundle.schema.fingerprint),
        *((f"fit: {name.replace('_', ' ')}", value) for name, value in trained.items()),
        *facts.settings.items(),
    ]
    cells = [(text(name), f"<code>{text(value)}</code>") for name, value in rows]
    return card("Settings and versions", f"<details><summary>show</summary>{table(('name', 'value'), cells)}</details>")


def _all_metrics(metrics: Mapping[str, Any]) -> str:
    rows = [
        (f"<code>{text('.'.join(path))}</code>", metric(metrics, *path), text(METRICS[path[0]]))
        for name in metrics
        if name not in ("sweep", "compare", "refits")  # sections of their own
        for path in _paths(metrics[name], (name,))
    ]
    body = f"<details><summary>show</summary>{table(('key', 'value', 'meaning'), rows, (1,))}</details>"
    return card("Every number", body, "As in metrics.json.")


def _paths(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from _paths(part, (*path, key))
    else:
        yield path
