"""A replay says where it judges a model by records that the model was fitted on."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from devtools import traffic
from devtools.memory_broker import MemoryBroker
from devtools.memory_clients import MemoryReader
from tests.replay import recording
from worker.cli import main
from worker.records import Message, Outgoing
from worker.replay.overlap import FitOverlap
from worker.sources.history import History, OffsetRange, fingerprint
from worker.sources.topic import TopicRange

VALUES = recording.values(3000)  # 200 records a day
DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recording in two halves, and a model that was fitted on the first."""
    folder = tmp_path_factory.mktemp("overlap")
    (folder / "schema.toml").write_text(traffic.SCHEMA_TEXT)
    (folder / "first.jsonl").write_bytes(b"\n".join(VALUES[:1500]))
    (folder / "same.jsonl.gz").write_bytes(gzip.compress(b"\n".join(VALUES[:1500]), mtime=0))
    (folder / "second.jsonl").write_bytes(b"\n".join(VALUES[1500:]))
    (folder / "both.jsonl").write_bytes(b"\n".join(VALUES))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("WORKER_MODEL__OPTIONS", '{"steps": 60}')
        patch.setenv("WORKER_MODEL__HIDDEN", "16,8,16")
        assert main(["train", "--once", "--from", "first.jsonl"]) == 0
    return folder


@pytest.mark.parametrize(
    ("arguments", "by", "records"),
    [
        (["first.jsonl"], "file", (1500, 1500)),
        (["same.jsonl.gz"], "time", (1440, 1500)),
        (["both.jsonl"], "time", (1440, 1500)),
        (["second.jsonl"], None, (0, 0)),
        (["first.jsonl", "--fit-first", "500"], None, (0, 0)),
        (["second.jsonl", "first.jsonl"], "file", (3000, 3000)),
    ],
)
def test_a_replay_of_what_the_model_knows_says_so(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    by: str | None,
    records: tuple[int, int],
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("WORKER_MODEL__OPTIONS", '{"steps": 60}')

    assert main(["replay", *arguments]) == 0
    overlap = orjson.loads(Path("out/replay/metrics.json").read_bytes())["fit_overlap"]
    said, page = capsys.readouterr().err, Path("out/replay/report.html").read_text()
    assert overlap["by"] == by
    assert records[0] <= overlap["records"] <= records[1]
    assert said.count("the model was fitted on") == page.count("The model knows these records") == (by is not None)


def test_an_overlap_can_fail_a_build(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)

    assert main(["replay", "first.jsonl", "--fail-over", "fit_overlap.records=0"]) == 1
    assert main(["replay", "second.jsonl", "--fail-over", "fit_overlap.records=0"]) == 0


def test_ranges_of_a_topic_overlap_by_offsets() -> None:
    broker = MemoryBroker({"t": 2}, now_ms=lambda: 0)
    broker.append([Outgoing("t", None, b"{}", partition=number % 2) for number in range(40)])
    source = TopicRange("t", lambda: MemoryReader(broker))
    lines: list[Any] = [message for block in source.blocks() for message in block.messages or ()]

    assert source.history() == History(offsets=(OffsetRange("t", 0, 0, 19), OffsetRange("t", 1, 0, 19)))
    for part, count in (
        (OffsetRange("t", 0, 0, 4), 5),
        (OffsetRange("t", 1, 15, 99), 5),
        (OffsetRange("t", 0, 20, 99), 0),
    ):
        overlap = FitOverlap({"history": History(offsets=(part,)).to_json(), "event_times_ms": [0, 1]})
        overlap.add(lines, _outcome(np.zeros(40, np.int64)), np.zeros(40, np.int8))
        assert overlap.finish(source.history()) == {"by": "offsets" if count else None, "records": count}


def _outcome(times: Any) -> Any:
    class Outcome:
        class scores:  # noqa: N801
            event_time_ms = times

    return Outcome


@pytest.mark.parametrize(
    "report",
    [
        {}, {"history": None}, {"history": []}, {"history": {"files": 3}}, {"history": {"offsets": [{"topic": 1}]}},
        {"event_times_ms": None}, {"event_times_ms": [1]}, {"event_times_ms": ["a", "b"]}, {"event_times_ms": {"0": 1}},
    ],
)  # fmt: skip
def test_a_report_that_tells_nothing_of_its_fit_overlaps_with_nothing(report: dict[str, Any]) -> None:
    overlap = FitOverlap(report)
    message: Any = Message("t", 0, 0, -1, None, b"{}")
    overlap.add([message], _outcome(np.zeros(1, np.int64)), np.zeros(1, np.int8))

    assert overlap.finish(History(("a",), (OffsetRange("t", 0, 0, 1),))) == {"by": None, "records": 0}


def test_a_fingerprint_follows_the_content(tmp_path: Path) -> None:
    content = bytearray(10_000_000)
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "b").write_bytes(content)
    content[-1] = 1
    (tmp_path / "c").write_bytes(content)
    (tmp_path / "d").write_bytes(b"")

    prints = [fingerprint(str(tmp_path / name)) for name in "abcd"]

    assert prints[0] == prints[1]
    assert len({*prints, None}) == 4
    assert fingerprint(str(tmp_path)) is None
