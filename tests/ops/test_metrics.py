"""The table of metrics in the documentation is that of the code."""

from pathlib import Path

from worker.markdown import with_table
from worker.ops.metrics import Metrics, TrainerMetrics, metrics_table

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_every_metric_of_both_processes_has_a_row_with_its_kind_and_its_labels() -> None:
    rows = [line.split(" | ") for line in metrics_table().splitlines()[2:]]

    names = {row[0].strip("| `").removesuffix("_total") for row in rows}
    registered = {family.name for metrics in (Metrics(), TrainerMetrics()) for family in metrics.registry.collect()}
    assert names == {name for name in registered if name.startswith("worker_")}
    assert ["| `worker_lag_records`", "gauge", "`topic`, `partition`"] in [row[:3] for row in rows]


def test_the_page_of_metrics_is_up_to_date() -> None:
    text = PAGE.read_text(encoding="utf-8")

    assert with_table(text, "metrics", metrics_table()) == text, (
        "run: python -m worker.ops.metrics --write docs/metrics.md"
    )
