"""Tables and trees on standard output, plain: for people and for grep.

What they show comes from outside (a store's files, field names), so its control characters are shown, not obeyed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from worker.cli.hints import message_of
from worker.texts import printable


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns, one line a row whatever the width of the terminal."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def print_tree(values: Mapping[str, Any], indent: str = "") -> None:
    """A line for each value, deeper ones indented."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            print(f"{indent}{printable(name)}")
            print_tree(value, f"{indent}  ")
        else:
            text = f"{value:.6g}" if isinstance(value, float) else message_of(str(value))
            print(f"{indent + printable(name):<20} {printable(text)}")
