"""A new score is one object and one registration; settings, fit, bundle and replay follow."""

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
import torch

from devtools import traffic
from worker.cli import main
from worker.errors import BundleError
from worker.model.scoring.score import SCORES, RowErrors, ScoreKind
from worker.model.store.model_store import ModelStore


def median_error(errors: RowErrors) -> torch.Tensor:
    """The median of a record's absolute errors, (B,)."""
    return errors.absolute().median(1).values


@pytest.fixture(autouse=True)
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """1,600 labelled payments in history.jsonl, and the score `toy` in the settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORKER_MODEL__SCORE", "toy")
    monkeypatch.setenv("WORKER_MODEL__OPTIONS", '{"steps": 60}')
    rows = [{**row, "fraud": number % 50 == 49} for number, row in enumerate(traffic.rows(1_600))]
    Path("history.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    Path("schema.toml").write_text(traffic.SCHEMA_TEXT)
    SCORES.register("toy", ScoreKind(median_error, needs_onehot=True))
    yield
    if "toy" in SCORES:
        SCORES.pop("toy")


def test_a_toy_score_goes_through_settings_fit_and_replay() -> None:
    code = main(["replay", "history.jsonl", "--label", "fraud", "--fit-first", "800"])
    metrics = orjson.loads(Path("out/replay/metrics.json").read_bytes())

    assert code == 0
    assert (metrics["scored"], metrics["anomalies"]) == (800, 16)


def test_a_version_with_a_toy_score_is_broken_where_nobody_registers_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--once", "--from", "history.jsonl"]) == 0
    assert ModelStore("models").load().score.kind == "toy"

    SCORES.pop("toy")

    with pytest.raises(BundleError, match="unknown score 'toy'"):
        ModelStore("models").load()
    assert main(["models", "list"]) == 1
    assert "WORKER_MODEL__SCORE = 'toy': allowed is relative, mse, rmse" in capsys.readouterr().err
