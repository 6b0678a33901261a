"""What stands at the borders of a replay, however absurd, ends in a figure, a dead letter or one line."""

import gzip
import json
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
from worker.errors import DataError
from worker.features.infer import MAX_FIELDS, infer_schema
from worker.model.store.model_store import ModelStore
from worker.records import Outgoing
from worker.replay.lines import Reader
from worker.replay.loop import replay
from worker.replay.tally import MAX_DAYS, Days, Tally
from worker.sources.topic import TopicRange


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model."""
    monkeypatch.chdir(tmp_path)
    store = ModelStore("models")
    store.save(traffic.bundle())
    store.promote(traffic.bundle().version)
    return tmp_path


@pytest.mark.parametrize("timestamp", [2**63 - 1, 2**62, 253_402_300_800_000, -62_135_596_800_001, -(2**62), -1])
def test_a_broker_timestamp_outside_of_the_calendar_is_no_time(tmp_path: Path, timestamp: int) -> None:
    rows = [orjson.loads(value) for value in recording.values(400)]
    values = [orjson.dumps({name: value for name, value in row.items() if name != "at"}) for row in rows]
    times = iter([1_772_323_200_000] * 399 + [timestamp])
    broker = MemoryBroker({"t": 1}, now_ms=lambda: next(times))
    broker.append([Outgoing("t", None, value, partition=0) for value in values])
    source = TopicRange("t", lambda: MemoryReader(broker))

    result = replay(Reader().batches(source.blocks()), traffic.pipeline(), tmp_path, labelled=False)

    assert result.metrics["scored"] == 400
    assert result.metrics["last_event_time_ms"] == 1_772_323_200_000


@pytest.mark.parametrize(
    "time",
    [
        "0000-01-01T00:00:00", "10000-01-01T00:00:00", "9999-12-31T23:59:59", "0001-01-01T00:00:00",
        "2026-02-30T00:00:00", 1e300, -1e300, 10**30, -1, "NaN", "", "1_7", True, [], {},
    ],
)  # fmt: skip
def test_an_absurd_time_in_a_record_costs_at_most_this_record(folder: Path, time: object) -> None:
    values = recording.values(300)
    odd = json.dumps({**orjson.loads(values[0]), "at": time}).encode()
    (folder / "r.jsonl").write_bytes(b"\n".join([*values, odd]) + b"\n")

    assert main(["replay", "r.jsonl"]) == 0
    metrics = orjson.loads((folder / "out/replay/metrics.json").read_bytes())
    assert metrics["records"] == 301
    assert metrics["scored"] >= 300


@pytest.mark.parametrize(
    "line",
    [
        b'{"amount":1,"amount":2}',
        b'{"":1}',
        b'{"\\ud800":1}',
        b'{"' + b"k" * 1_000_000 + b'":1}',
        b'{"' + b"a." * 400_000 + b'":1}',
        b'{"a":' * 300 + b"1" + b"}" * 300,
        b"\xff\xfe{}",
        b'{"a":1}\0',
        b"\0" * 1000,
        b'{"a":' + b"9" * 5000 + b"}",
    ],
)
def test_an_absurd_record_costs_at_most_itself(folder: Path, line: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    values = recording.values(200)
    (folder / "r.jsonl.gz").write_bytes(gzip.compress(b"\n".join([*values[:100], line, *values[100:]]), mtime=0))

    assert main(["replay", "r.jsonl.gz"]) == 0
    assert main(["infer-schema", "r.jsonl.gz"]) == 0
    metrics = orjson.loads((folder / "out/replay/metrics.json").read_bytes())
    said = capsys.readouterr()
    assert metrics["records"] == 201
    assert metrics["scored"] >= 200
    assert len(said.err) < 2000
    assert (folder / "out/replay/report.html").stat().st_size < 20_000_000


def test_bad_rows_are_counted_and_named_and_the_replay_succeeds(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [orjson.loads(value) for value in recording.values(300)]
    names = [name for name in rows[0] if not isinstance(rows[0][name], dict)]
    lines = [",".join(names), *(",".join(str(row[name]) for name in names) for row in rows)]
    (folder / "r.csv").write_text("\n".join([*lines[:100], "short,row", *lines[100:], '"open']))

    assert main(["replay", "r.csv"]) == 0
    metrics = orjson.loads((folder / "out/replay/metrics.json").read_bytes())
    assert (metrics["records"], metrics["unreadable"], metrics["complete"]) == (300, 2, True)
    assert "r.csv:101: 2 cells, but the header names" in capsys.readouterr().err


def test_a_file_that_was_cut_off_counts_up_to_there_and_fails_with_its_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = gzip.compress(b"\n".join(recording.values(3000)), mtime=0)
    (folder / "r.jsonl.gz").write_bytes(packed[: len(packed) // 2])

    assert main(["replay", "r.jsonl.gz"]) == 1
    metrics = orjson.loads((folder / "out/replay/metrics.json").read_bytes())
    assert metrics["records"] > 500
    assert metrics["error"].startswith(f"r.jsonl.gz:{metrics['records'] + 1}: the gzip data ends early")
    assert metrics["error"] in capsys.readouterr().err


def test_what_a_replay_counts_stays_bounded_whatever_days_and_kinds_there_are() -> None:
    days = Days()
    for first in range(0, 100_000, 5000):
        times = np.arange(first, first + 5000, dtype=np.int64) * 86_400_000
        days.add(_scores(times), np.ones(5000, np.int8))
    tally = Tally()
    for number in range(3000):
        tally.kinds[tally._kind(f"kind {number}")] += 1

    assert len(days.by_number) == MAX_DAYS + 1
    assert sum(day.alerts for day in days.by_number.values()) == 100_000
    assert len(tally.kinds) == 1001
    assert tally.kinds.total() == 3000


def _scores(times: Any) -> Any:
    class Scores:
        event_time_ms = times
        score = np.arange(len(times), dtype=np.float64)
        alert = np.ones(len(times), np.bool_)

    return Scores()


@pytest.mark.parametrize("dots", [200_000, 400_000])
def test_a_name_of_dots_is_left_out_at_once(dots: int) -> None:
    rows = [{"n": number % 7 / 7, "a." * dots: 1, "o": {"b." * dots: 2, "m": number % 9}} for number in range(50)]

    proposal = infer_schema(rows)

    assert [field.name for field in proposal.schema.fields] == ["n", "o.m"]
    assert proposal.notes == ["100 names of more than 1,000 characters are left out"]


def test_names_that_are_data_are_named_as_such() -> None:
    rows = [{"n": number % 7 / 7, "seen": {f"id{number}x{i}": [1] for i in range(1000)}} for number in range(50)]

    with pytest.raises(DataError, match=f"more than {MAX_FIELDS:,}; 50,000 of them in the object 'seen'"):
        infer_schema(rows)
    assert [field.kind for field in infer_schema(rows, ["seen"]).schema.fields][:2] == ["numeric", "ignore"]
