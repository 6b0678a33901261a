"""`python -m devtools.tables docs/`: brings the tables of settings and metrics on these pages up to date with the code.

A table stands between two lines, <!-- settings:begin --> and <!-- settings:end -->.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prometheus_client.metrics import MetricWrapperBase

from worker.model.network.options import other_options
from worker.ops.metrics import Metrics, TrainerMetrics
from worker.settings import Settings, allowed, leaves


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def with_table(text: str, name: str, table: str) -> str:
    """A page with the table between the markers of this name; ValueError where one is missing."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, begun, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not (begun and ended):
        raise ValueError(f"needs the lines {begin} and {end}")
    return f"{before}{begin}\n{table}\n{end}{after}"


def settings_table() -> str:
    """Every setting as a Markdown table, and what WORKER_MODEL__OPTIONS can hold as a second one."""
    settings = [row("setting", "default", "allowed", "what"), "|---|---|---|---|"]
    settings += [
        row(f"`{name}`", _default(path), allowed(field), str(field.description)) for name, path, field in leaves()
    ]
    options = [row("in `WORKER_MODEL__OPTIONS`", "allowed", "what"), "|---|---|---|"]
    options += [row(f"`{name}`", str(values), what) for name, values, what in other_options()]
    return "\n".join([*settings, "", *options])


def _default(path: str) -> str:
    value: Any = Settings()
    for part in path.split("."):
        value = getattr(value, part)
    if value is None or value == ():
        return ""
    if isinstance(value, tuple):
        return f"`{','.join(map(str, value))}`"
    return f"`{json.dumps(value) if isinstance(value, dict) else value}`"


def metrics_table() -> str:
    """Every metric as a Markdown table, from the metrics themselves: name, kind, labels, meaning with its unit."""
    table = [row("metric", "kind", "labels", "what"), row(*["---"] * 4)]
    for metrics in (Metrics(), TrainerMetrics()):
        for metric in vars(metrics).values():
            if isinstance(metric, MetricWrapperBase):
                (family,) = metric.describe()
                name = f"{family.name}_total" if family.type == "counter" else family.name
                labels = ", ".join(f"`{label}`" for label in metric._labelnames)
                table.append(row(f"`{name}`", family.type, labels, family.documentation))
    return "\n".join(table)


TABLES: dict[str, Callable[[], str]] = {"settings": settings_table, "metrics": metrics_table}
"""Of the page docs/NAME.md and its markers."""


if __name__ == "__main__":
    for name, table in TABLES.items():
        page = Path(sys.argv[1]) / f"{name}.md"
        page.write_text(with_table(page.read_text(encoding="utf-8"), name, table()), encoding="utf-8")
