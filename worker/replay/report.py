"""report.html: one page that needs nothing else, with the numbers of metrics.json, from the templates in page/."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import getitem
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import orjson

from worker.errors import DataError, Hint
from worker.features.kinds import Numeric
from worker.features.paths import value_of
from worker.features.schema import Image
from worker.features.vectorize import Vectorizer
from worker.formats.base import Decoded
from worker.model.scoring.scorer import Reconstructor
from worker.model.store.bundle import Bundle
from worker.redaction import NOTHING, Redaction
from worker.replay import charts
from worker.replay.loop import Result
from worker.replay.metrics import METRICS
from worker.replay.overlap import overlap_text
from worker.replay.score_table import ANOMALOUS, NORMAL
from worker.replay.what_if import difference_text
from worker.texts import rfc3339

EXCERPT_BYTES = 120
OWN_SECTIONS = ("sweep", "compare", "refits")
SWEEP_KEYS = ("alerts", "alerts_per_day", "precision", "recall", "false_alert_rate")
MIN_INK = 0.02  # ink below this share is not drawn: most pixels of a picture are background


@dataclass(frozen=True, slots=True)
class Facts:
    """What the page tells besides the result.

    source     name of what was replayed
    bundle     the model that the replay began with
    settings   as a person may see them, secrets masked, by name
    version    of the worker
    swept      name of the setting that was swept, where one was
    image      fields that form a picture of a record, where they do
    redaction  what the page must not show
    """

    source: str
    bundle: Bundle
    settings: Mapping[str, str]
    version: str
    swept: str = ""
    image: Image | None = None
    redaction: Redaction = NOTHING


def render(result: Result, facts: Facts, folder: Path) -> str:
    """The page; reads scores.parquet in `folder` for the charts. DataError where Jinja2 or plotly isn't installed."""
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
        from markupsafe import Markup
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise DataError("the report needs Jinja2 and plotly", hint=Hint.INSTALL_REPLAY) from error
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("page")),
        autoescape=True,  # nothing of a record or a setting may become part of the page
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_function"] = lambda value, **_: orjson.dumps(value).decode()  # NaN is null
    environment.filters |= {
        "at": lambda metrics, path: reduce(getitem, path, metrics),
        "plain": plain,
        "digits": digits,
        "difference": difference_text,
        "overlap": overlap_text,
        "minute": lambda milliseconds: rfc3339(milliseconds)[:16].replace("T", " "),
        "excerpt": lambda value: (value or b"")[:EXCERPT_BYTES].decode(errors="replace"),
        "indented": lambda value: orjson.dumps(value, option=orjson.OPT_INDENT_2).decode(),
    }
    metrics, tally, bundle = result.metrics, result.tally, facts.bundle
    figures = {"scores": charts.score_over_time(folder, tally.table, tally.days)}
    figures["distribution"] = charts.score_distribution(tally.table)
    if metrics["days"] is not None:
        labelled = bool(tally.groups[NORMAL] or tally.groups[ANOMALOUS])
        figures["days"] = charts.alerts_a_day(tally.days, labelled=labelled)
    if metrics["roc_auc"] is not None:
        rate, recall = metrics["false_alert_rate"], metrics["recall_at_threshold"]
        figures |= charts.ranking_curves(tally.table, rate, recall, metrics["precision_at_threshold"])
    latent_note = ""
    if (latent := charts.latent_figure(folder, bundle.version)) is not None:
        figures["latent"], latent_note = latent
    fitted = bundle.fitted.concealed(facts.redaction)
    pictures = Pictures(replace(bundle, fitted=fitted), facts.image, facts.redaction) if facts.image else None
    alerts = [(orjson.loads(value), label) for value, label in result.strongest]
    page: str = environment.get_template("report.html").render(
        metrics=metrics,
        facts=facts,
        max_points=charts.MAX_POINTS,
        figures=figures,
        latent_note=latent_note,
        strongest=[(alert, label, pictures.pair(alert["record"]) if pictures else ()) for alert, label in alerts],
        sweep_keys=[key for key in SWEEP_KEYS if any(row[key] is not None for row in metrics.get("sweep", ()))],
        learned=[(field, fitted.describe(field.name)) for field in bundle.schema.encoded],
        dead_examples=tally.dead_examples,
        paths=[path for name in metrics if name not in OWN_SECTIONS for path in _paths(metrics[name], (name,))],
        meanings=METRICS,
        plotly_js=Markup(get_plotlyjs()),  # noqa: S704  the library's own code
    )
    return page


def plain(value: Any) -> str:
    """Any value as text: strings as they are, the rest as compact JSON."""
    if isinstance(value, str):
        return value
    return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


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


def _paths(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from _paths(part, (*path, key))
    else:
        yield path


class Pictures:
    """Draws records whose fields form a picture, and what the model expected of them.

    A picture has a label, width and height, and pixels: (x, y, ink from 0 to 1) of those that have ink.
    """

    def __init__(self, bundle: Bundle, image: Image, redaction: Redaction = NOTHING) -> None:
        self._image = image
        self._fitted = bundle.fitted
        self._vectorizer = Vectorizer(bundle.fitted, redaction)
        self._reconstructor = Reconstructor(bundle.network)
        self._columns = [(name, bundle.fitted.numeric_fields.index(name)) for name in image.fields]
        # An empty and a full pixel: the schema's ranges, else what was usual at fit.
        known = {field.name: field.range for field in bundle.schema.fields if isinstance(field, Numeric)}
        stats = bundle.fitted.stats_of
        ranges = [known.get(name) or (stats[name].low or 0.0, stats[name].high or 0.0) for name in image.fields]
        self._low, self._high = min(low for low, _ in ranges), max(high for _, high in ranges)

    def pair(self, record: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The record and its reconstruction; none where a pixel is no number (a redacted one) or it can't be scored."""
        row = dict(record)
        vectors = self._vectorizer.transform(Decoded.of_rows([row]))
        if not vectors.rows:
            return []
        rebuilt = self._reconstructor.rows(vectors.numeric, vectors.category_ids).numeric[0]
        observed = [value_of(row, name) for name in self._image.fields]
        if not set(map(type, observed)) <= {int, float, NoneType}:
            return []
        expected = [self._fitted.expected(name, [rebuilt[column]]) for name, column in self._columns]
        return [self._draw(observed, "observed"), self._draw(expected, "expected")]

    def _draw(self, values: Sequence[float | None], label: str) -> dict[str, Any]:
        numbers = np.array([self._low if value is None else value for value in values], np.float64)
        ink = np.clip((numbers - self._low) / ((self._high - self._low) or 1.0), 0.0, 1.0)
        width = self._image.width
        pixels = [(at % width, at // width, float(ink[at])) for at in np.flatnonzero(ink > MIN_INK).tolist()]
        return {"label": label, "width": width, "height": len(self._image.fields) // width, "pixels": pixels}
