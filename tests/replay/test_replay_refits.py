"""A replay with refits shows what the trainer would have done beside the traffic."""

from pathlib import Path

import orjson
import pytest

from devtools.refit_streams import SCHEMA, Traffic
from tests.trainer.common import broken_scale_bundle, bundle
from worker.cli import main
from worker.processes.replay_refits import ROLLED_BACK, Refits
from worker.processes.wiring import make_pipeline, model_builder
from worker.replay.lines import Line
from worker.settings import Settings, TrainSettings

FIT, AFTER = 2_000, 3_000
PATIENCE = {
    "WORKER_TRAIN__DRIFTED_CHECKS": "2",
    "WORKER_TRAIN__REPLACED_CHECKS": "2",
    "WORKER_MODEL__OPTIONS": '{"steps": 150}',
}


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Traffic that is replaced in the middle."""
    traffic = Traffic(0)
    rows = [*traffic.rows(FIT + AFTER), *traffic.rows(3 * AFTER, shifted=True)]
    for place in range(FIT + 50, len(rows), 50):
        rows[place]["amount"] *= 100
    labels = ["odd" if place >= FIT and place % 50 == 0 else "normal" for place in range(len(rows))]
    path = tmp_path / "recording.jsonl"
    path.write_bytes(b"\n".join(orjson.dumps({**row, "label": label}) for row, label in zip(rows, labels, strict=True)))
    (tmp_path / "schema.toml").write_text(SCHEMA.to_toml())
    return path


def replayed(recording: Path, out: str, monkeypatch: pytest.MonkeyPatch, *more: str, **settings: str) -> Path:
    for name, value in {**PATIENCE, **settings}.items():
        monkeypatch.setenv(name, value)
    folder = recording.parent / out
    options = ["--schema", str(recording.parent / "schema.toml"), "--label", "label", "--fit-first", str(FIT)]
    assert main(["replay", str(recording), *options, "--out", str(folder), *more]) == 0
    return folder


def test_every_verdict_is_in_the_metrics_and_in_the_report(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = replayed(recording, "out", monkeypatch, "--refit-every", str(AFTER))

    metrics = orjson.loads((folder / "metrics.json").read_bytes())
    assert [verdict["record"] for verdict in metrics["refits"]] == [AFTER, 2 * AFTER, 3 * AFTER, 4 * AFTER]
    decisions = [verdict["decision"] for verdict in metrics["refits"]]
    assert decisions == ["not needed", "held", "promoted", "not needed"]
    assert len(metrics["model_versions"]) == 2
    page = (folder / "report.html").read_text()
    assert "What the trainer would have done" in page
    assert metrics["refits"][2]["candidate"] in page


def test_batches_do_not_matter_and_neither_does_a_second_run(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = replayed(recording, "one", monkeypatch, "--refit-every", str(AFTER), WORKER_BATCH__SIZE="8192")
    two = replayed(recording, "two", monkeypatch, "--refit-every", str(AFTER), WORKER_BATCH__SIZE="700")

    assert (one / "alerts.jsonl").read_bytes() == (two / "alerts.jsonl").read_bytes()
    assert (one / "alerts.jsonl").stat().st_size > 0


def test_without_drift_nothing_differs_from_a_replay_without_refits(
    recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = recording.read_bytes().split(b"\n")[: FIT + AFTER]
    recording.write_bytes(b"\n".join(lines))

    plain = replayed(recording, "plain", monkeypatch)
    refits = replayed(recording, "refits", monkeypatch, "--refit-every", "1000")

    assert (plain / "alerts.jsonl").read_bytes() == (refits / "alerts.jsonl").read_bytes()


def test_a_bad_model_that_was_forced_in_is_rolled_back_within_its_canary() -> None:
    settings = Settings(model_canary_records=4_000, train=TrainSettings(min_records=500))
    build = model_builder(settings)
    good, bad = build(bundle()), build(broken_scale_bundle(bundle(), 10.0))
    pipeline = make_pipeline(settings, good)
    refits = Refits(settings, pipeline, build, 100_000)
    refits.promote(bad)
    traffic, place = Traffic(0), 0

    while pipeline.model is bad and place < 4_000:
        rows = [orjson.dumps(row) for row in traffic.rows(200)]
        lines = [Line("in", 0, place + i, -1, None, value, (), place + i, None) for i, value in enumerate(rows)]
        refits.add(lines, pipeline.process(lines), None)  # type: ignore[arg-type]
        place += 200

    assert pipeline.model is good
    assert refits.verdicts[-1]["decision"] == ROLLED_BACK
    assert refits.verdicts[-1]["candidate"] == bad.bundle.version
    assert place < 4_000


def test_an_input_shorter_than_the_first_check_says_so() -> None:
    settings = Settings()
    build = model_builder(settings)

    assert "too short" in Refits(settings, make_pipeline(settings, build(bundle())), build, 1_000).findings()[0]


def test_batches_end_where_checks_are_due() -> None:
    settings = Settings()
    build = model_builder(settings)
    refits = Refits(settings, make_pipeline(settings, build(bundle())), build, 700)
    lines = [Line("in", 0, i, -1, None, b"{}", (), i, None) for i in range(3_000)]

    sizes = [len(batch) for batch in refits.batches([lines[:1_000], lines[1_000:2_950], lines[2_950:]])]

    assert sizes == [700, 300, 400, 700, 700, 150, 50]
