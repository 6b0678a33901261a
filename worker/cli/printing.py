"""Tables and trees on standard output, plain: for people and for grep."""

from collections.abc import Mapping, Sequence
from typing import Any

from worker.cli.hints import message_of


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns, one line a row whatever the width of the terminal."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def print_tree(values: Mapping[str, Any], indent: str = "") -> None:
    """A line for each value, deeper ones indented."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            print(f"{indent}{name}")
            print_tree(value, f"{indent}  ")
        else:
            print(f"{indent + name:<20} {f'{value:.6g}' if isinstance(value, float) else message_of(str(value))}")
