from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from devtools import traffic
from tests.replay import recording
from worker.alerts.encode import encode_alert
from worker.errors import DataError, UsageError
from worker.replay.lines import NORMAL, Line, plant_into, split_for_fit
from worker.replay.loop import replay
from worker.replay.metrics import failed_gates, parse_gate
from worker.replay.outputs import read_scores
from worker.replay.what_if import Comparison, Sweep

VALUES = recording.values()


def alerts_of(folder: Path) -> bytes:
    return (folder / "alerts.jsonl").read_bytes()


@pytest.mark.parametrize("partitions", [1, 3])
def test_alerts_are_byte_for_byte_those_of_the_pipeline_at_any_batch_size(tmp_path: Path, partitions: int) -> None:
    lines = [line for batch in recording.batches(VALUES, partitions=partitions) for line in batch]
    live = traffic.pipeline()
    alerts = [alert for line in lines for alert in live.process([line]).alerts]
    expected = b"".join(encode_alert(alert) + b"\n" for alert in alerts)

    for size in (37, 512, 8192):
        recording.run(VALUES, tmp_path / str(size), size=size, partitions=partitions)
        assert alerts_of(tmp_path / str(size)) == expected
    assert expected.count(b"\n") > 20


def test_detected_at_is_the_event_time(tmp_path: Path) -> None:
    recording.run(VALUES, tmp_path)

    for line in alerts_of(tmp_path).splitlines():
        alert = orjson.loads(line)
        assert alert["detected_at"] == alert["event_time"]


def test_scores_have_a_row_for_each_scored_record_in_input_order(tmp_path: Path) -> None:
    broken = [*VALUES[:700], b"{", b"", *VALUES[700:]]
    recording.run(broken, tmp_path, partitions=3)

    table = pq.read_table(tmp_path / "scores.parquet")

    assert table.column_names == [
        "index", "partition", "event_time", "score", "threshold", "alert", "model_version", "label"
    ]  # fmt: skip
    assert table["index"].to_pylist() == [*range(700), *range(702, 3002)]
    assert table.schema.field("event_time").type == pa.timestamp("ms", tz="UTC")
    assert set(table["partition"].to_pylist()) > {0}
    assert sum(table["label"].to_pylist()) == 60
    assert set(table["model_version"].to_pylist()) == {traffic.bundle().version}
    assert sum(table["alert"].to_pylist()) == alerts_of(tmp_path).count(b"\n")


def test_without_labels_there_is_no_label_column(tmp_path: Path) -> None:
    recording.run(VALUES, tmp_path, labelled=False)

    assert "label" not in pq.read_table(tmp_path / "scores.parquet").column_names


def test_metrics_follow_from_the_scores_file(tmp_path: Path) -> None:
    metrics = recording.run(VALUES, tmp_path).metrics
    table = pq.read_table(tmp_path / "scores.parquet").to_pydict()

    assert metrics["roc_auc"] == pytest.approx(roc_auc_score(table["label"], table["score"]), abs=1e-6)
    assert metrics["average_precision"] == pytest.approx(
        average_precision_score(table["label"], table["score"]), abs=1e-6
    )
    assert metrics["alerts"] == sum(table["alert"])
    assert metrics["records"] == len(table["score"]) == 3000
    assert metrics["days"] == pytest.approx(14.9951, abs=1e-3)


def test_the_label_does_not_change_a_score(tmp_path: Path) -> None:
    flipped = [value.replace(b'"fraud":1', b'"fraud":0') for value in VALUES]
    recording.run(VALUES, tmp_path / "a")
    recording.run(flipped, tmp_path / "b")

    first, second = (next(read_scores(tmp_path / name)).score for name in "ab")
    assert np.array_equal(first, second)


def test_an_input_that_breaks_off_keeps_what_came_before(tmp_path: Path) -> None:
    def broken() -> Iterator[list[Line]]:
        yield from recording.batches(VALUES[:1000])
        raise DataError("march.jsonl.gz:1001: the gzip data ends early")

    result = replay(broken(), traffic.pipeline(), tmp_path, labelled=True)

    assert result.metrics["records"] == 1000
    assert result.metrics["complete"] is False
    assert result.metrics["error"] == "march.jsonl.gz:1001: the gzip data ends early"
    assert pq.read_table(tmp_path / "scores.parquet").num_rows == 1000


def test_an_input_without_records_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the input is empty"):
        recording.run([b"", b" "], tmp_path)


def test_the_strongest_alerts_are_those_with_the_highest_scores(tmp_path: Path) -> None:
    result = recording.run(VALUES, tmp_path)
    scores = sorted((orjson.loads(line)["score"] for line in alerts_of(tmp_path).splitlines()), reverse=True)

    assert [orjson.loads(value)["score"] for value, _ in result.strongest] == scores[:50]
    assert result.strongest[0][1] == "anomaly"


def test_fitting_on_the_first_records_leaves_out_the_anomalous_ones() -> None:
    chosen, _, rest = split_for_fit(recording.batches(VALUES), 600, normal_only=True)

    assert len(chosen) == 588
    assert all(line.label == NORMAL for line in chosen)
    assert [line.row for batch in rest for line in batch] == list(range(600, 3000))


def test_fitting_on_everything_is_an_error() -> None:
    with pytest.raises(DataError, match="3000 records: nothing is left"):
        split_for_fit(recording.batches(VALUES), 3000, normal_only=False)


def test_a_sweep_finds_what_a_run_with_that_setting_finds(tmp_path: Path) -> None:
    variants = {str(q): traffic.plain_threshold(quantile=q) for q in (0.9, 0.99, 0.999)}
    sweep = Sweep(variants, traffic.bundle())
    result = recording.run(VALUES, tmp_path, partitions=3, observers=[sweep])
    metrics = result.metrics

    rows = {row["setting"]: row for row in sweep.rows(metrics["days"])}

    assert rows["0.99"] == {
        "setting": "0.99",
        "alerts": metrics["alerts"],
        "alerts_per_day": pytest.approx(metrics["alerts_per_day"], abs=1e-3),
        "precision": metrics["precision_at_threshold"],
        "recall": metrics["recall_at_threshold"],
        "false_alert_rate": metrics["false_alert_rate"],
    }
    assert rows["0.9"]["alerts"] > rows["0.99"]["alerts"] > rows["0.999"]["alerts"]


def test_a_model_compared_with_itself_shares_every_alert(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    comparison = Comparison(traffic.pipeline(), tmp_path / "other", labelled=True)
    result = recording.run(VALUES, tmp_path, observers=[comparison])

    compared = comparison.finish(tmp_path, result.tally, result.metrics)

    assert (compared["gained"], compared["lost"], compared["shared"]) == (0, 0, result.metrics["alerts"])
    assert compared["differences"]["roc_auc"] == {"difference": 0.0, "interval": [0.0, 0.0]}
    assert compared["verdict"] == "no clear difference in average precision"
    assert alerts_of(tmp_path / "other") == alerts_of(tmp_path)


def test_a_model_that_ranks_better_is_called_better(tmp_path: Path) -> None:
    worse = [orjson.dumps({**orjson.loads(value), "amount": 20.0}) for value in VALUES]  # the first sees no amounts

    class Blinded(Comparison):
        def add(self, lines, outcome, groups):  # type: ignore[no-untyped-def]
            seen = [line._replace(value=VALUES[line.row]) for line in lines]
            super().add(seen, outcome, groups)

    (tmp_path / "other").mkdir()
    comparison = Blinded(traffic.pipeline(), tmp_path / "other", labelled=True)
    result = recording.run(worse, tmp_path, observers=[comparison])
    compared = comparison.finish(tmp_path, result.tally, result.metrics)

    assert compared["verdict"].startswith("the compared model ranks better")
    low, high = compared["differences"]["roc_auc"]["interval"]
    assert 0 < low < compared["differences"]["roc_auc"]["difference"] < high
    assert compared["metrics"]["roc_auc"] - result.metrics["roc_auc"] == pytest.approx(
        compared["differences"]["roc_auc"]["difference"], abs=1e-5
    )
    assert compared["gained"] > 0


def test_planted_anomalies_are_labelled_and_do_not_depend_on_the_batch_size(tmp_path: Path) -> None:
    plain = [orjson.dumps({k: v for k, v in orjson.loads(value).items() if k != "fraud"}) for value in VALUES]

    def planted(size: int) -> list[Line]:
        lines = recording.batches(plain, size=size, label=None)
        planted_lines = plant_into(lines, traffic.schema(), share=0.02, seed=0, batch_size=size)
        return [line for batch in planted_lines for line in batch]

    lines = planted(100)
    kinds = {line.label for line in lines}

    assert planted(1000) == lines
    assert kinds == {NORMAL, "field_swap", "scaled_number", "unseen_category", "missing_burst"}
    assert sum(line.label != NORMAL for line in lines) == 60
    for line in lines:
        assert (line.value == plain[line.row]) == (line.label == NORMAL)


def test_gates_name_what_failed() -> None:
    metrics = {"roc_auc": 0.9, "alerts_per_day": 700.0, "precision_at_k": {"10": 0.5}, "recall_at_threshold": None}
    under = [parse_gate("roc_auc=0.95"), parse_gate("precision_at_k.10=0.5"), parse_gate("recall_at_threshold=0.1")]
    over = [parse_gate("alerts_per_day=500")]

    assert failed_gates(metrics, under=under, over=over) == [
        "roc_auc = 0.9 is under 0.95",
        "recall_at_threshold is not known here, so it can't be checked against 0.1",
        "alerts_per_day = 700 is over 500",
    ]


@pytest.mark.parametrize("gate", ["roc=0.9", "roc_auc", "roc_auc=high"])
def test_a_gate_that_makes_no_sense_is_wrong_usage(gate: str) -> None:
    with pytest.raises(UsageError):
        parse_gate(gate)
