"""The table of settings in docs/settings.md."""

from pathlib import Path

import pytest

from worker.markdown import with_table
from worker.settings import leaves
from worker.settings.describe import settings_table

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_table_has_a_row_with_range_and_help_for_each_setting() -> None:
    settings, _, options = settings_table().partition("\n\n")
    rows = settings.splitlines()[2:]

    assert "| `dropout` |" in options
    assert len(rows) == len(list(leaves()))
    for row, (name, _, field) in zip(rows, leaves(), strict=True):
        assert row.startswith(f"| `{name}` |")
        assert field.description
        assert all(cell.strip() for cell in (row.split("|")[3], row.split("|")[4]))


def test_writing_the_table_twice_changes_nothing() -> None:
    once = with_table("before\n<!-- x:begin -->\nstale rows\n<!-- x:end -->\nafter\n", "x", "| new |")

    assert with_table(once, "x", "| new |") == once
    assert once.startswith("before\n")
    assert once.endswith("after\n")
    assert "stale rows" not in once


def test_a_file_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="settings:begin"):
        with_table("no markers", "settings", "| new |")


def test_the_page_is_up_to_date() -> None:
    text = PAGE.read_text(encoding="utf-8")

    up_to_date = with_table(text, "settings", settings_table())
    assert text == up_to_date, "run: python -m worker.settings --write docs/settings.md"
