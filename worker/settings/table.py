"""The table of settings in the README, made from the tree."""

import json
from pathlib import Path
from typing import Any

from worker.settings.model import option_rows
from worker.settings.ranges import allowed, leaves
from worker.settings.tree import Settings

BEGIN = "<!-- settings:begin -->"
END = "<!-- settings:end -->"


def settings_table() -> str:
    """Every setting as a Markdown table: name, default, range, what it is."""
    rows = ["| setting | default | allowed | what |", "|---|---|---|---|"]
    for name, path, field in leaves(Settings):
        rows.append(f"| `{name}` | {_default(path)} | {allowed(field)} | {field.description} |")
    return "\n".join(rows)


def options_table() -> str:
    """What WORKER_MODEL__OPTIONS can hold as a Markdown table: name, range, what it is."""
    rows = [f"| `{name}` | {allowed} | {what} |" for name, allowed, what in option_rows()]
    return "\n".join(["| in `WORKER_MODEL__OPTIONS` | allowed | what |", "|---|---|---|", *rows])


def _default(path: str) -> str:
    value: Any = Settings()
    for part in path.split("."):
        value = getattr(value, part)
    if value is None or value == ():
        return ""
    if isinstance(value, tuple):
        return f"`{','.join(str(part) for part in value)}`"
    return f"`{json.dumps(value) if isinstance(value, dict) else value}`"


def with_table(text: str) -> str:
    """`text` with the table between the two markers.

    Raises:
        ValueError: a marker is missing.
    """
    before, found, rest = text.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not (found and closed):
        raise ValueError(f"needs the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{settings_table()}\n\n{options_table()}\n{END}{after}"


def write_table(path: Path) -> None:
    """Bring the table in the file up to date."""
    path.write_text(with_table(path.read_text(encoding="utf-8")), encoding="utf-8")
