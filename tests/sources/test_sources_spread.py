"""A long topic, sampled in pieces that are spread over it."""

from collections.abc import Sequence

from devtools.memory_broker import MemoryBroker
from devtools.memory_clients import MemoryReader
from worker.records import Outgoing, RawMessage
from worker.sources.topic import READ_WHOLE, TopicRange


def records_of(lengths: Sequence[int], spread: int) -> tuple[list[RawMessage], TopicRange]:
    """What is read of a topic with partitions of these lengths."""
    broker = MemoryBroker({"in": len(lengths)})
    for partition, length in enumerate(lengths):
        broker.append(Outgoing("in", None, b"%d" % at, partition=partition) for at in range(length))
    source = TopicRange("in", lambda: MemoryReader(broker), spread=spread)
    return [message for block in source.blocks() for message in block.messages or ()], source


def test_a_long_topic_is_read_in_pieces_from_its_first_to_its_last_record() -> None:
    messages, source = records_of([9_000, 3_000, 0], 640)

    for partition, length in ((0, 9_000), (1, 3_000)):
        offsets = [message.offset for message in messages if message.partition == partition]
        quarters = [sum(4 * at // length == quarter for at in offsets) for quarter in range(4)]
        assert offsets == sorted(set(offsets))
        assert (offsets[0], offsets[-1]) == (0, length - 1)
        assert max(quarters) <= 1.1 * min(quarters)
    assert 640 <= len(messages) <= 640 + 2 * 32
    assert source.meter.done == len(messages)


def test_a_topic_that_is_hardly_longer_is_read_whole() -> None:
    messages, _ = records_of([READ_WHOLE * 60, READ_WHOLE * 40], 100)

    assert len(messages) == READ_WHOLE * 100
