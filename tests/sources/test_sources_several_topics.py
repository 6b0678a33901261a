"""Several topics as one source: what a model learns from, and what is replayed."""

import pytest

from devtools.memory_broker import MemoryBroker
from devtools.memory_clients import MemoryReader
from worker.records import Outgoing
from worker.sources.history import OffsetRange
from worker.sources.topic import TopicRange


@pytest.mark.parametrize("named", ["eu,us", "^(eu|us)$"])
@pytest.mark.parametrize("newest", [None, 1_000])
def test_all_records_of_all_topics_are_read_and_remembered_by_topic(named: str, newest: int | None) -> None:
    broker = MemoryBroker({"us": 2, "other": 1, "eu": 1})
    broker.append(Outgoing(topic, None, b"{}", partition=0) for topic in ("eu", "us", "other") for _ in range(20))
    broker.append(Outgoing("us", None, b"{}", partition=1) for _ in range(5))
    source = TopicRange(named, lambda: MemoryReader(broker), newest=newest)

    messages = [message for block in source.blocks() for message in block.messages or ()]

    assert len(messages) == 45
    assert source.partition_count == 3
    assert source.history().offsets == (
        OffsetRange("eu", 0, 0, 19),
        OffsetRange("us", 0, 0, 19),
        OffsetRange("us", 1, 0, 4),
    )
