"""report.html: one page that needs nothing else, with the numbers of metrics.json, from the templates in page/."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from worker.errors import DataError, Hint
from worker.features.schema import Image
from worker.model.store.bundle import Bundle
from worker.replay.evaluate.compare import difference_text
from worker.replay.evaluate.metrics import METRICS
from worker.replay.evaluate.score_table import ANOMALOUS, NORMAL
from worker.replay.report import charts
from worker.replay.report.pictures import Pictures
from worker.replay.run.loop import Result
from worker.texts import rfc3339

EXCERPT_BYTES = 120
OWN_SECTIONS = ("sweep", "compare", "refits")
SWEEP_KEYS = ("alerts", "alerts_per_day", "precision", "recall", "false_alert_rate")


@dataclass(frozen=True, slots=True)
class Facts:
    """What the page tells besides the result.

    source     name of what was replayed
    bundle     the model that the replay began with
    settings   as a person may see them, secrets masked, by name
    version    of the worker
    swept      name of the setting that was swept, where one was
    image      fields that form a picture of a record, where they do
    """

    source: str
    bundle: Bundle
    settings: Mapping[str, str]
    version: str
    swept: str = ""
    image: Image | None = None


def render(result: Result, facts: Facts, folder: Path) -> str:
    """The page; reads scores.parquet in `folder` for the charts."""
    try:
        from markupsafe import Markup
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise DataError("the report needs Jinja2 and plotly", hint=Hint.INSTALL_REPLAY) from error
    metrics, bundle = result.metrics, facts.bundle
    pictures = Pictures(bundle, facts.image) if facts.image else None
    latent = charts.latent_figure(folder, bundle.version)
    alerts = [(orjson.loads(value), label) for value, label in result.strongest]
    page: str = (
        _environment()
        .get_template("report.html")
        .render(
            metrics=metrics,
            facts=facts,
            max_points=charts.MAX_POINTS,
            figures=_figures(result, folder) | ({} if latent is None else {"latent": latent[0]}),
            latent_note="" if latent is None else latent[1],
            strongest=[(alert, label, pictures.pair(alert["record"]) if pictures else ()) for alert, label in alerts],
            sweep_keys=[key for key in SWEEP_KEYS if any(row[key] is not None for row in metrics.get("sweep", ()))],
            learned=[(field, bundle.fitted.describe(field.name)) for field in bundle.schema.encoded],
            dead_examples=result.tally.dead_examples,
            paths=[path for name in metrics if name not in OWN_SECTIONS for path in _paths(metrics[name], (name,))],
            meanings=METRICS,
            plotly_js=Markup(get_plotlyjs()),  # noqa: S704  the library's own code
        )
    )
    return page


def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("page")),
        autoescape=True,  # nothing of a record or a setting may become part of the page
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_function"] = lambda value, **_: orjson.dumps(value).decode()  # NaN is null
    environment.filters |= {
        "at": _at,
        "plain": plain,
        "digits": digits,
        "difference": difference_text,
        "minute": lambda milliseconds: rfc3339(milliseconds)[:16].replace("T", " "),
        "excerpt": lambda value: (value or b"")[:EXCERPT_BYTES].decode(errors="replace"),
        "indented": lambda value: orjson.dumps(value, option=orjson.OPT_INDENT_2).decode(),
    }
    return environment


def _figures(result: Result, folder: Path) -> dict[str, charts.Figure]:
    metrics, tally = result.metrics, result.tally
    figures = {
        "scores": charts.score_over_time(folder, tally.table, tally.days),
        "distribution": charts.score_distribution(tally.table),
    }
    if metrics["days"] is not None:
        labelled = bool(tally.groups[NORMAL] or tally.groups[ANOMALOUS])
        figures["days"] = charts.alerts_a_day(tally.days, labelled=labelled)
    if metrics["roc_auc"] is not None:
        rate, recall = metrics["false_alert_rate"], metrics["recall_at_threshold"]
        figures |= charts.ranking_curves(tally.table, rate, recall, metrics["precision_at_threshold"])
    return figures


def plain(value: Any) -> str:
    """Any value as text: strings as they are, the rest as compact JSON."""
    return (
        value if isinstance(value, str) else orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    )


def digits(value: Any) -> str:
    """A number with all its digits, commas where it is large; a dash for null, "a to b" for an interval."""
    if isinstance(value, list):
        return " to ".join(map(digits, value))
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return plain(value)
    units, point, decimals = plain(value).partition(".")
    if not units.lstrip("-").isdigit() or not int(units):
        return units + point + decimals
    return f"{int(units):,}{point}{decimals}"


def _at(metrics: Any, path: Sequence[str]) -> Any:
    for key in path:
        metrics = metrics[key]
    return metrics


def _paths(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from _paths(part, (*path, key))
    else:
        yield path
