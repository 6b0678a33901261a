"""The tables that pages take from the code."""

import pytest

from devtools.tables import metrics_table, settings_table, with_table
from worker.ops.metrics import Metrics, TrainerMetrics
from worker.settings import leaves


def test_the_table_has_a_row_with_range_and_help_for_each_setting() -> None:
    settings, _, options = settings_table().partition("\n\n")
    rows = settings.splitlines()[2:]

    assert "| `dropout` |" in options
    assert len(rows) == len(list(leaves()))
    for row, (name, _, field) in zip(rows, leaves(), strict=True):
        assert row.startswith(f"| `{name}` |")
        assert field.description
        assert all(cell.strip() for cell in (row.split("|")[3], row.split("|")[4]))


def test_every_metric_of_both_processes_has_a_row_with_its_kind_and_its_labels() -> None:
    rows = [line.split(" | ") for line in metrics_table().splitlines()[2:]]

    names = {row[0].strip("| `").removesuffix("_total") for row in rows}
    registered = {family.name for metrics in (Metrics(), TrainerMetrics()) for family in metrics.registry.collect()}
    assert names == {name for name in registered if name.startswith("worker_")}
    assert ["| `worker_lag_records`", "gauge", "`topic`, `partition`"] in [row[:3] for row in rows]


def test_writing_the_table_twice_changes_nothing() -> None:
    once = with_table("before\n<!-- x:begin -->\nstale rows\n<!-- x:end -->\nafter\n", "x", "| new |")

    assert with_table(once, "x", "| new |") == once
    assert once.startswith("before\n")
    assert once.endswith("after\n")
    assert "stale rows" not in once


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="settings:begin"):
        with_table("no markers", "settings", "| new |")
