import random
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from kafka.partitioner.default import murmur2 as kafka_murmur2

from worker.errors import DataError
from worker.records import Message
from worker.replay.lines import FieldLabels, IdLabels, Line, Reader, murmur2, partition_of, read_label
from worker.sources.base import Block


def value(**fields: object) -> bytes:
    return orjson.dumps(fields)


VALUES = [value(n=n, customer={"id": f"c{n % 7}"}, fraud=int(n % 5 == 0)) for n in range(1000)]


def lines_of(reader: Reader, blocks: list[list[bytes]]) -> list[Line]:
    return [line for batch in reader.batches(map(Block, blocks)) for line in batch]


def test_murmur2_is_the_one_of_kafka() -> None:
    noise = random.Random(0)

    for size in range(70):
        data = noise.randbytes(size)
        assert murmur2(data) == kafka_murmur2(data)


def test_a_key_goes_to_the_partition_that_kafkas_java_client_gives_it() -> None:
    # org.apache.kafka.common.utils.UtilsTest.testMurmur2
    assert murmur2(b"21") == -973932308 & 0xFFFFFFFF
    assert murmur2(b"foobar") == -790332482 & 0xFFFFFFFF
    assert partition_of(b"21", 10) == (-973932308 & 0x7FFFFFFF) % 10


def test_batches_have_the_size_asked_for_whatever_the_blocks() -> None:
    reader = Reader(batch_size=128)
    batches = list(reader.batches(map(Block, [VALUES[:1], VALUES[1:700], [], VALUES[700:]])))

    assert [len(batch) for batch in batches] == [128] * 7 + [104]
    assert [line.value for batch in batches for line in batch] == VALUES


def test_one_partition_counts_offsets_like_a_new_topic() -> None:
    lines = lines_of(Reader(topic="payments"), [VALUES[:300], VALUES[300:]])

    assert [(line.topic, line.partition, line.offset, line.row) for line in lines] == [
        ("payments", 0, n, n) for n in range(1000)
    ]


def test_blank_lines_are_no_records_but_count_as_lines() -> None:
    reader = Reader()
    lines = lines_of(reader, [[b"{}", b"", b" ", b"[]"]])

    assert [(line.row, line.offset, line.value) for line in lines] == [(0, 0, b"{}"), (3, 1, b"[]")]
    assert reader.blank_lines == 2


def test_records_of_one_key_share_a_partition_and_offsets_count_in_each() -> None:
    lines = lines_of(Reader(partitions=3, key_field="customer.id"), [VALUES[:300], VALUES[300:]])

    places = {line.key: line.partition for line in lines}
    assert len(places) == 7
    for line in lines:
        assert line.partition == places[line.key] == partition_of(line.key or b"", 3)
    for partition in range(3):
        offsets = [line.offset for line in lines if line.partition == partition]
        assert offsets == list(range(len(offsets)))


def test_records_without_a_key_go_round() -> None:
    lines = lines_of(Reader(partitions=3), [VALUES[:9]])

    assert [line.partition for line in lines] == [0, 1, 2] * 3


def test_labels_ride_along_and_broken_records_have_none() -> None:
    lines = lines_of(Reader(labels=FieldLabels("fraud")), [[*VALUES[:6], b"{", b"[1]", b'{"a":1}']])

    assert [line.label for line in lines] == ["anomaly", "", "", "", "", "anomaly", None, None, None]


def test_messages_of_a_topic_keep_where_they_came_from() -> None:
    messages = [Message("t", 2, 40 + n, 1000 + n, b"k", VALUES[n]) for n in range(5)]
    (batch,) = Reader(labels=FieldLabels("fraud")).batches([Block(VALUES[:5], messages)])

    assert [(line.partition, line.offset, line.timestamp, line.key) for line in batch] == [
        (2, 40 + n, 1000 + n, b"k") for n in range(5)
    ]
    assert [line.row for line in batch] == list(range(5))
    assert batch[0].label == "anomaly"


def test_what_was_read_before_an_error_comes_before_the_error() -> None:
    def broken() -> Iterator[Block]:
        yield Block(VALUES[:10])
        raise DataError("file:11: cut off")

    batches = Reader(batch_size=8).batches(broken())

    assert [line.value for batch in (next(batches), next(batches)) for line in batch] == VALUES[:10]
    with pytest.raises(DataError, match="cut off"):
        next(batches)


@pytest.mark.parametrize("word", [0, False, "0", "normal", "Benign", "", " no ", 0.0])
def test_words_for_normal(word: object) -> None:
    assert read_label(word) == ""


@pytest.mark.parametrize(
    ("word", "kind"), [(1, "anomaly"), (True, "anomaly"), ("1", "anomaly"), ("neptune", "neptune"), (3, "3")]
)
def test_everything_else_is_a_kind_of_anomaly(word: object, kind: str) -> None:
    assert read_label(word) == kind


def test_true_and_one_are_told_apart_from_other_numbers() -> None:
    labels = FieldLabels("x")

    assert labels.of([{"x": x} for x in (1, True, 1.0, 2, "2", None)]) == [
        "anomaly",
        "anomaly",
        "anomaly",
        "2",
        "2",
        None,
    ]


def test_a_label_that_is_no_word_is_still_one() -> None:
    assert FieldLabels("x").of([{"x": ["a"]}, {"x": 0}, {}, None]) == ["['a']", "", None, None]


def test_ids_in_a_file_name_the_anomalies_and_their_kinds(tmp_path: Path) -> None:
    path = tmp_path / "ids.csv"
    path.write_text("t7,stolen card\n\n12\n")
    labels = IdLabels(str(path), "customer.id")

    rows: list[dict[str, object] | None] = [{"customer": {"id": name}} for name in ("t7", 12, "other")]

    assert labels.of([*rows, {}, None]) == ["stolen card", "anomaly", "", None, None]


def test_an_empty_list_of_ids_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "ids.csv"
    path.write_text("\n")

    with pytest.raises(DataError, match="lists no ids"):
        IdLabels(str(path), "id")
