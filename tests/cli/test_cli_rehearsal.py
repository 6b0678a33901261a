"""`worker train --once` keeps as many of the records in the version as the setting allows."""

from pathlib import Path

import orjson
import pytest

from devtools import traffic
from worker.cli import main
from worker.model.store.bundle import MANIFEST, WEIGHTS
from worker.model.store.model_store import ModelStore


@pytest.mark.parametrize("keep", [0, 7])
def test_the_setting_says_how_many_records_a_version_keeps(
    keep: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("schema.toml").write_text(traffic.SCHEMA_TEXT)
    Path("history.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in traffic.rows(200)))
    for name, value in (
        ("MODEL__OPTIONS", '{"steps": 5}'),
        ("TRAIN__MIN_RECORDS", 100),
        ("TRAIN__REHEARSAL_RECORDS", keep),
    ):
        monkeypatch.setenv(f"WORKER_{name}", str(value))

    assert main(["train", "--once", "--from", "history.jsonl"]) == 0

    store = ModelStore("models")
    files = {path.name for path in (Path(store.name) / str(store.current())).iterdir()}
    assert len(store.load().rehearsal) == keep
    assert (files == {MANIFEST, WEIGHTS}) == (keep == 0)
