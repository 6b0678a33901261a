"""Tables in the documentation that are made from the code, between two markers of a page.

<!-- settings:begin -->
<!-- settings:end -->
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path


def row(*cells: str) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |"


def with_table(text: str, name: str, table: str) -> str:
    """A page with the table between the markers of this name; ValueError where one is missing."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, begun, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not (begun and ended):
        raise ValueError(f"needs the lines {begin} and {end}")
    return f"{before}{begin}\n{table}\n{end}{after}"


def table_command(prog: str, name: str, table: Callable[[], str]) -> None:
    """The command of a module that makes a table: prints it, or brings a page up to date with `--write FILE`."""
    parser = argparse.ArgumentParser(prog=prog, description=f"Print the table of {name}, or write it into a page.")
    parser.add_argument("--write", type=Path, metavar="FILE", help="page with the two markers")
    page: Path | None = parser.parse_args().write
    if page is None:
        sys.stdout.write(table() + "\n")
    else:
        page.write_text(with_table(page.read_text(encoding="utf-8"), name, table()), encoding="utf-8")
