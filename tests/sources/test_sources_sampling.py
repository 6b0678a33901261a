from worker.formats.base import decoded_bytes
from worker.records import Message
from worker.sources.sampling import sample_messages


def batches(values: list[bytes], size: int = 97) -> list[list[Message]]:
    messages = [Message("in", 0, at, -1, None, value) for at, value in enumerate(values)]
    return [messages[start : start + size] for start in range(0, len(messages), size)]


def test_a_sample_of_fewer_records_than_it_may_hold_is_all_of_them() -> None:
    sample = sample_messages(batches([b"{}"] * 50), 100, max_bytes=1 << 20)

    assert [message.offset for message in sample.messages] == list(range(50))
    assert (sample.records, sample.full) == (50, False)


def test_every_part_of_a_source_is_sampled_alike_and_in_its_order() -> None:
    sample = sample_messages(batches([b"{}"] * 20_000), 2_000, max_bytes=1 << 20)

    offsets = [message.offset for message in sample.messages]
    tenths = [sum(at // 2_000 == tenth for at in offsets) for tenth in range(10)]
    assert offsets == sorted(set(offsets))
    assert (len(offsets), sample.records) == (2_000, 20_000)
    assert min(tenths) >= 150
    assert max(tenths) <= 250


def test_the_same_records_give_the_same_sample_however_they_are_batched() -> None:
    values = [b"{}"] * 5_000

    one, other = (sample_messages(batches(values, size), 50, max_bytes=1 << 20) for size in (7, 1_000))

    assert one == other


def test_a_sample_that_would_fill_the_memory_is_smaller_and_spread_all_the_same() -> None:
    value = b'{"text": "' + b"x" * 990 + b'"}'
    sample = sample_messages(batches([value] * 4_000), 2_000, max_bytes=decoded_bytes(value) * 500)

    assert len(sample.messages) == 500
    assert sample.full
    assert sum(message.offset < 2_000 for message in sample.messages) in range(200, 300)


def test_a_huge_record_pushes_out_no_others() -> None:
    values = [b"{}"] * 1_000
    values[500] = b"[" + b"[]," * 100_000 + b"[]]"
    sample = sample_messages(batches(values), 900, max_bytes=1 << 20)

    assert len(sample.messages) == 900
    assert 500 not in [message.offset for message in sample.messages]
    assert [m.offset for m in sample_messages(batches(values[500:501]), 9, max_bytes=1 << 20).messages] == [0]
