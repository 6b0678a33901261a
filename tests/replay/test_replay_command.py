import gzip
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from devtools import traffic
from tests.replay import recording
from worker.cli import main
from worker.model.store.model_store import ModelStore

VALUES = recording.values(2000)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a schema, a model, and a labelled recording."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORKER_MODEL__OPTIONS", '{"steps": 60}')
    monkeypatch.setenv("WORKER_MODEL__HIDDEN", "16,8,16")
    Path("schema.toml").write_text(traffic.SCHEMA_TEXT)
    Path("march.jsonl").write_bytes(b"\n".join(VALUES) + b"\n")
    store = ModelStore("models")
    store.save(traffic.bundle())
    store.promote(traffic.bundle().version)
    return tmp_path


def metrics(out: str = "out/replay") -> dict[str, Any]:
    values: dict[str, Any] = orjson.loads((Path(out) / "metrics.json").read_bytes())
    return values


def alerts(out: str = "out/replay") -> bytes:
    return (Path(out) / "alerts.jsonl").read_bytes()


def test_a_replay_writes_four_files_and_says_what_it_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "march.jsonl", "--label", "fraud"]) == 0

    assert {path.name for path in Path("out/replay").iterdir()} == {
        "alerts.jsonl", "scores.parquet", "metrics.json", "report.html"
    }  # fmt: skip
    said = capsys.readouterr().out
    assert str(metrics()["roc_auc"]) in said
    assert "out/replay/report.html" in said
    assert metrics()["model_versions"] == {traffic.bundle().version: 2000}


def test_the_same_input_gives_the_same_bytes_whatever_its_form_and_the_batch_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    main(["replay", "march.jsonl", "--out", "a"])
    Path("first.jsonl.gz").write_bytes(gzip.compress(b"\n".join(VALUES[:900]), mtime=0))
    Path("second.jsonl").write_bytes(b"\n".join(VALUES[900:]))
    monkeypatch.setenv("WORKER_BATCH__SIZE", "77")
    main(["replay", "first.jsonl.gz", "second.jsonl", "--out", "b"])

    assert alerts("a") == alerts("b")
    assert alerts("a").count(b"\n") > 10


def test_csv_and_parquet_give_the_same_scores() -> None:
    rows = [orjson.loads(value) for value in VALUES]
    flat = [{**row, "merchant.country": row["merchant"]["country"]} for row in rows]
    names = [name for name in flat[0] if name != "merchant"]
    lines = [",".join(names), *(",".join(str(row[name]) for name in names) for row in flat)]
    Path("march.csv").write_text("\n".join(lines))
    pq.write_table(pa.Table.from_pylist(rows), "march.parquet")

    for name in ("march.jsonl", "march.csv", "march.parquet"):
        assert main(["replay", name, "--label", "fraud", "--out", name + ".out"]) == 0

    scores = [pq.read_table(f"{name}.out/scores.parquet") for name in ("march.jsonl", "march.csv", "march.parquet")]
    assert scores[0] == scores[1] == scores[2]


def test_a_sweep_over_the_number_of_a_rule_takes_that_rule() -> None:
    assert main(["replay", "march.jsonl", "--sweep", "threshold.contamination=0.05,0.2"]) == 0
    at_low, at_high = (entry["alerts"] for entry in metrics()["sweep"])
    assert main(["replay", "march.jsonl", "--sweep", "threshold.fixed=0,1e9"]) == 0

    assert 0 < at_low < at_high
    assert [entry["alerts"] for entry in metrics()["sweep"]] == [2000, 0]


def test_a_label_never_reaches_a_model_fitted_here(capsys: pytest.CaptureFixture[str]) -> None:
    Path("labelled.toml").write_text(traffic.SCHEMA_TEXT + '[fields.fraud]\nkind = "numeric"\n')
    arguments = ["replay", "march.jsonl", "--label", "fraud", "--fit-first", "500"]
    assert main([*arguments, "--schema", "labelled.toml", "--out", "a"]) == 0
    assert main([*arguments, "--schema", "schema.toml", "--out", "b"]) == 0
    assert main([*arguments, "--out", "c"]) == 0

    assert metrics("a")["model_versions"] == metrics("b")["model_versions"] == metrics("c")["model_versions"]
    assert metrics("a")["fit_records"] == 500
    assert metrics("a")["records"] == 1500
    assert "fraud" not in capsys.readouterr().err


def test_a_model_that_was_fitted_on_the_label_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "march.jsonl", "--label", "channel"]) == 1
    assert "was fitted on 'channel': it would see the answer" in capsys.readouterr().err


def test_a_model_of_another_schema_is_refused_with_both_fingerprints(capsys: pytest.CaptureFixture[str]) -> None:
    Path("other.toml").write_text('[fields.amount]\nkind = "numeric"\n')

    assert main(["replay", "march.jsonl", "--schema", "other.toml"]) == 1
    error = capsys.readouterr().err
    assert traffic.schema().fingerprint[:12] in error
    assert error.count("\n") == 1


def test_without_model_and_schema_both_are_made_from_the_first_records(capsys: pytest.CaptureFixture[str]) -> None:
    Path("schema.toml").unlink()
    Path("models/current.json").unlink()

    assert main(["replay", "march.jsonl", "--label", "fraud"]) == 0
    assert metrics()["fit_records"] == 400
    said = capsys.readouterr().err
    assert "note: no schema given" in said
    assert "fitting one on the first 400 records" in said


def test_a_label_that_no_record_has_is_an_error_that_names_the_fields(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "march.jsonl", "--label", "is_fraud"]) == 1
    error = capsys.readouterr().err
    assert "'is_fraud' is in none of the first 2000 records" in error
    assert "fraud" in error.split("their fields are")[1]


def test_a_file_that_was_cut_off_fails_and_keeps_the_good_part(capsys: pytest.CaptureFixture[str]) -> None:
    packed = gzip.compress(b"\n".join(VALUES), mtime=0)
    Path("cut.jsonl.gz").write_bytes(packed[: len(packed) // 2])

    assert main(["replay", "cut.jsonl.gz"]) == 1
    kept = metrics()
    assert 500 < kept["records"] < 2000
    assert kept["error"] == f"cut.jsonl.gz:{kept['records'] + 1}: the gzip data ends early: the file was cut off"
    assert f"error: {kept['error']}" in capsys.readouterr().err


def test_an_empty_file_is_an_error_alone_and_a_note_among_others(capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty.jsonl").touch()

    assert main(["replay", "empty.jsonl"]) == 1
    assert "empty.jsonl: no records" in capsys.readouterr().err
    assert main(["replay", "empty.jsonl", "march.jsonl"]) == 0
    assert "note: empty.jsonl holds no records" in capsys.readouterr().err


def test_time_that_runs_backwards_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    Path("back.jsonl").write_bytes(b"\n".join([*VALUES[1000:], *VALUES[:1000]]))

    assert main(["replay", "back.jsonl"]) == 0
    assert metrics()["backward_times"] == 1000
    assert "time runs backwards: 1000 records" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("gate", "code"),
    [(["--fail-under", "roc_auc=0.5"], 0), (["--fail-under", "roc_auc=1.1"], 1), (["--fail-over", "alerts=1"], 1)],
)
def test_gates_decide_the_exit_code(gate: list[str], code: int) -> None:
    assert main(["replay", "march.jsonl", "--label", "fraud", *gate]) == code
    assert metrics()["complete"] is True


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["march.jsonl", "--sample"],
        ["march.jsonl", "--from", "2026-01-01"],
        ["march.jsonl", "--label", "a", "--labels", "b"],
        ["march.jsonl", "--fail-under", "nothing=1"],
        ["march.jsonl", "--sweep", "model.steps=1,2"],
        ["march.jsonl", "--sweep", "threshold.quantile=2"],
    ],
)
def test_wrong_usage_is_exit_2_before_anything_is_read(arguments: list[str]) -> None:
    assert main(["replay", *arguments]) == 2
    assert not Path("out").exists()


def test_ids_of_anomalies_can_come_from_a_file() -> None:
    Path("ids.txt").write_text("\n".join(f"r{number},too much" for number in range(49, 2000, 50)))

    assert main(["replay", "march.jsonl", "--labels", "ids.txt", "--out", "a"]) == 0
    assert main(["replay", "march.jsonl", "--label", "fraud", "--out", "b"]) == 0
    assert metrics("a")["roc_auc"] == metrics("b")["roc_auc"]
    assert list(metrics("a")["recall_by_kind"]) == ["too much"]


def test_a_sweep_is_in_metrics_and_report() -> None:
    assert main(["replay", "march.jsonl", "--sweep", "threshold.quantile=0.9,0.995"]) == 0

    rows = metrics()["sweep"]
    assert [row["setting"] for row in rows] == ["0.9", "0.995"]
    assert rows[0]["alerts"] > rows[1]["alerts"] == metrics()["alerts"]
    assert "What other settings would have alerted" in Path("out/replay/report.html").read_text()


def test_two_models_are_compared() -> None:
    ModelStore("models").save(traffic.bundle(1))

    assert main(["replay", "march.jsonl", "--label", "fraud", "--compare", traffic.bundle(1).version]) == 0
    compared = metrics()["compare"]
    assert compared["shared"] + compared["lost"] == metrics()["alerts"]
    assert set(compared["differences"]) == {"roc_auc", "average_precision", "recall_at_threshold", "false_alert_rate"}
    assert Path("out/replay/compare/alerts.jsonl").exists()
    assert "Two models on the same records" in Path("out/replay/report.html").read_text()


def test_planted_anomalies_are_found_without_labels() -> None:
    assert main(["replay", "march.jsonl", "--inject", "0.02"]) == 0

    by_kind = metrics()["recall_by_kind"]
    assert set(by_kind) == {"field_swap", "scaled_number", "unseen_category", "missing_burst"}
    assert by_kind["unseen_category"]["recall"] > 0.9
