"""The table of settings in docs/settings.md."""

from pathlib import Path

import pytest

from worker.settings import leaves, settings_table
from worker.settings.table import BEGIN, END, with_table
from worker.settings.tree import Settings

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_table_has_a_row_with_range_and_help_for_each_setting() -> None:
    rows = settings_table().splitlines()[2:]

    assert len(rows) == len(list(leaves(Settings)))
    for row, (name, _, field) in zip(rows, leaves(Settings), strict=True):
        assert row.startswith(f"| `{name}` |")
        assert field.description
        assert all(cell.strip() for cell in (row.split("|")[3], row.split("|")[4]))


def test_writing_the_table_twice_changes_nothing() -> None:
    once = with_table(f"before\n{BEGIN}\nstale rows\n{END}\nafter\n")

    assert with_table(once) == once
    assert once.startswith("before\n")
    assert once.endswith("after\n")
    assert "stale rows" not in once


def test_a_file_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="settings:begin"):
        with_table("no markers")


def test_the_page_is_up_to_date() -> None:
    text = PAGE.read_text(encoding="utf-8")

    assert with_table(text) == text, "run: python -m worker.settings --write docs/settings.md"
