"""A topic's history: one order on every run, and the same alerts that the live worker published for it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from devtools import traffic
from devtools.brokers import produce, read_all
from devtools.memory_broker import MemoryBroker
from devtools.memory_clients import MemoryReader
from devtools.sites import Site
from tests.replay import recording
from worker.broker.client import Connection
from worker.broker.ranges import TopicReader
from worker.errors import UsageError
from worker.processes.wiring import make_pipeline, model_builder
from worker.records import Outgoing, Partition, RawMessage
from worker.replay.lines import Line, Reader
from worker.replay.loop import replay
from worker.settings import BatchSettings, Settings, ThresholdSettings
from worker.sources.base import Block, Source
from worker.sources.topic import TopicRange, parse_time, read_range

THRESHOLD = {"WORKER_THRESHOLD__QUANTILE": "0.99", "WORKER_THRESHOLD__WINDOW": "500", "WORKER_THRESHOLD__STRIDE": "64"}
NOT_EQUAL_LIVE = ("detected_at",)
NOT_EQUAL_FROM_A_FILE = ("detected_at", "timestamp_ms")
VALUES = recording.values(3000)


def outgoing(topic: str, values: Sequence[bytes]) -> list[Outgoing]:
    return [Outgoing(topic, orjson.loads(value)["id"].encode(), value) for value in values]


def alerts_of(lines: Sequence[bytes | None], leave_out: Sequence[str]) -> list[bytes]:
    """The alerts in order of partition and offset, without these members, as bytes again."""
    alerts = []
    for line in lines:
        alert: dict[str, Any] = orjson.loads(line or b"")
        source = {key: value for key, value in alert["source"].items() if key not in leave_out}
        place = (source["partition"], source["offset"])
        rest = {key: value for key, value in alert.items() if key not in leave_out}
        alerts.append((place, orjson.dumps({**rest, "source": source})))
    return [line for _, line in sorted(alerts)]


@pytest.fixture
def site(connection: Connection, tmp_path: Path, group: str) -> Iterator[Site]:
    with closing(Site(tmp_path, connection, f"in-{group}", **THRESHOLD)) as here:
        here.create_topics(2, scores=2)
        yield here


@pytest.mark.broker
@pytest.mark.parametrize("size", [100, 1000, 8192])
def test_replay_of_a_topic_finds_the_live_alerts_with_a_model_swap_in_the_middle(
    site: Site, connection: Connection, size: int
) -> None:
    site.put_model(0)
    produce(connection, outgoing(site.input_topic, VALUES[:1500]))
    worker = site.start(settings={"WORKER_BATCH__SIZE": str(size)})
    site.wait_until_drained()
    swapped_at = site.ends()
    site.put_model(1)
    worker.wait_for("model swapped")
    produce(connection, outgoing(site.input_topic, VALUES[1500:]))
    site.wait_until_drained()
    assert worker.stop() == 0
    live = [record.value for record in read_all(connection, site.alerts)]

    for replayed_size in (77, 1000, 8192):
        replayed = replay_with_swap(site, connection, swapped_at, site.folder / str(replayed_size), replayed_size)
        assert alerts_of(replayed, NOT_EQUAL_LIVE) == alerts_of(live, NOT_EQUAL_LIVE)
    versions = [orjson.loads(line or b"")["model_version"] for line in live]
    assert set(versions) == {traffic.bundle(0).version, traffic.bundle(1).version}


def replay_with_swap(
    site: Site, connection: Connection, swapped_at: dict[Any, int], folder: Path, size: int
) -> list[bytes | None]:
    """Replay the whole topic with the first model up to these offsets, and with the second one from there."""
    folder.mkdir()
    settings = Settings(
        threshold=ThresholdSettings(quantile=0.99, window=500, stride=64), batch=BatchSettings(size=size)
    )
    build = model_builder(settings)
    pipeline = make_pipeline(settings, build(traffic.bundle(0)))
    reader = TopicReader(connection)
    try:
        ends = reader.end_offsets(site.input_topic)
        first = {partition: (0, swapped_at[partition]) for partition in ends}
        rest = {partition: (swapped_at[partition], end) for partition, end in ends.items()}

        def lines(bounds: Mapping[Partition, tuple[int, int]]) -> Iterator[list[Line]]:
            blocks = (Block([message.value for message in block], block) for block in read_range(reader, bounds))
            return Reader(batch_size=size).batches(blocks)

        def batches() -> Iterator[list[Line]]:
            yield from lines(first)
            pipeline.swap(build(traffic.bundle(1)))
            yield from lines(rest)

        replay(batches(), pipeline, folder, labelled=False)
    finally:
        reader.close(5.0)
    return list((folder / "alerts.jsonl").read_bytes().splitlines())


@pytest.mark.broker
def test_the_command_finds_the_live_alerts_in_the_topic_and_in_the_file_that_filled_it(
    site: Site, connection: Connection
) -> None:
    site.put_model()
    produce(connection, outgoing(site.input_topic, VALUES))
    (site.folder / "values.jsonl").write_bytes(b"\n".join(VALUES))
    worker = site.start()
    site.wait_until_drained()
    assert worker.stop() == 0
    live = [record.value for record in read_all(connection, site.alerts)]
    assert len(live) > 20

    for arguments in (["--topic", site.input_topic], ["values.jsonl", "--key", "id", "--partitions", "2"]):
        done = site.run("replay", *arguments, "--label", "fraud")
        assert done.returncode == 0, done.stderr
        replayed = (site.folder / "out/replay/alerts.jsonl").read_bytes().splitlines()
        leave_out = NOT_EQUAL_LIVE if "--topic" in arguments else NOT_EQUAL_FROM_A_FILE
        assert alerts_of(replayed, leave_out) == alerts_of(live, leave_out)


def filled(partitions: int, records: Sequence[tuple[int, int]]) -> MemoryReader:
    """A topic "t" with these records: partition and timestamp."""
    clock = iter(timestamp for _, timestamp in records)
    broker = MemoryBroker({"t": partitions}, now_ms=lambda: next(clock))
    broker.append([Outgoing("t", None, b"{}", partition=partition) for partition, _ in records])
    return MemoryReader(broker)


def messages(source: Source) -> list[RawMessage]:
    return [message for block in source.blocks() for message in block.messages or ()]


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("2026-03-01", 1_772_323_200_000),
        ("2026-03-01T12:00:00Z", 1_772_366_400_000),
        ("2026-03-01T12:00:00+01:00", 1_772_362_800_000),
        ("1772323200000", 1_772_323_200_000),
    ],
)
def test_times_are_utc_unless_they_say_otherwise(text: str, milliseconds: int) -> None:
    assert parse_time(text) == milliseconds


def test_a_text_that_is_no_time_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="'yesterday' is no time"):
        parse_time("yesterday")


def test_partitions_are_merged_by_time_whatever_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.sources.topic.WINDOW_RECORDS", 3)
    times = {0: [5, 1, 9, 9, 12], 2: [2, 9, 11, 30]}
    reader = filled(3, [(partition, time) for partition, stamps in times.items() for time in stamps])

    merged = messages(TopicRange("t", lambda: reader))

    assert [(record.partition, record.offset) for record in merged] == [
        (2, 0), (0, 0), (0, 1), (0, 2), (0, 3), (2, 1), (2, 2), (0, 4), (2, 3)
    ]  # fmt: skip


def test_a_range_of_time_starts_at_the_first_time_and_stops_before_the_last() -> None:
    reader = filled(2, [(time // 10 % 2, time) for time in range(0, 100, 10)])

    source = TopicRange("t", lambda: reader, from_ms=30, to_ms=70)

    assert [record.timestamp for record in messages(source)] == [30, 40, 50, 60]
    assert (source.meter.done, source.meter.total) == (4, 4)


def test_the_newest_records_are_one_block() -> None:
    reader = filled(2, [(time // 10 % 2, time) for time in range(0, 100, 10)])
    source = TopicRange("t", lambda: reader, newest=4)

    assert [record.timestamp for record in messages(source)] == [60, 70, 80, 90]
    assert source.name == "topic t"
