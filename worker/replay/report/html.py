"""Small pieces of the report's page; everything that comes from data is escaped here."""

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson


def text(value: Any) -> str:
    """Any value as escaped text: strings as they are, numbers as JSON writes them, the rest as compact JSON."""
    if isinstance(value, str):
        return html.escape(value)
    return html.escape(orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode())


def metric(metrics: Mapping[str, Any], *path: str) -> str:
    """A metric as it stands in metrics.json, marked with its path; large numbers get commas, null a dash."""
    value: Any = metrics
    for key in path:
        value = value[key]
    shown = " to ".join(map(_number, value if isinstance(value, list) else [value]))
    return f'<span data-metric="{text(".".join(path))}" data-value="{text(value)}">{shown}</span>'


def _number(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return text(value)
    whole, point, rest = orjson.dumps(value).decode().partition(".")
    if not whole.lstrip("-").isdigit():
        return whole + point + rest
    return f"{int(whole):,}{point}{rest}" if int(whole) else whole + point + rest


def tile(label: str, value: str, small: str = "") -> str:
    """A number with its name."""
    below = f"<small>{small}</small>" if small else ""
    return f'<div class="tile"><small>{text(label)}</small><b>{value}</b>{below}</div>'


def card(title: str, body: str, note: str = "", css: str = "") -> str:
    """A titled section."""
    hint = f'<p class="note">{text(note)}</p>' if note else ""
    return f'<section class="card {css}"><h2>{text(title)}</h2>{hint}{body}</section>'


def chart(name: str) -> str:
    """The place that a figure of this name is drawn into."""
    return f'<div class="chart" id="chart-{name}"></div>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numeric: Iterable[int] = ()) -> str:
    """A table of cells that are HTML already; the numeric columns are aligned right."""
    right = set(numeric)

    def row(cells: Sequence[str], tag: str) -> str:
        inner = "".join(f"<{tag}{' class=n' if at in right else ''}>{cell}</{tag}>" for at, cell in enumerate(cells))
        return f"<tr>{inner}</tr>"

    body = "".join(row(cells, "td") for cells in rows)
    return f'<div class="scroll"><table>{row([text(name) for name in head], "th")}{body}</table></div>'


def embedded_json(value: Any) -> str:
    """JSON that can stand inside a script element."""
    return orjson.dumps(value).decode().replace("<", "\\u003c")
