"""Public data with known attacks: a floor under what replay reports. WORKER_TEST_DATA names the folder."""

import os
from pathlib import Path

import orjson
import pytest

from worker.cli import main

FILE = Path(os.environ.get("WORKER_TEST_DATA", "")) / "nsl_kdd_train20.jsonl.gz"


@pytest.mark.skipif(not FILE.is_file(), reason="needs nsl_kdd_train20.jsonl.gz in WORKER_TEST_DATA")
def test_attacks_rank_above_normal_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--label", "label", "--ignore", "attack", "--fit-first", "2048"]

    assert main(["replay", str(FILE), *arguments, "--fail-under", "roc_auc=0.98"]) == 0

    metrics = orjson.loads((tmp_path / "out/replay/metrics.json").read_bytes())
    assert metrics["scored"] == 25_192 - 2048
