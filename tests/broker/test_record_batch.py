"""Records out of record batches: what can't be read costs itself alone, and memory is that of a piece."""

import gzip
import random
import tracemalloc
from collections.abc import Callable

import pytest
from kafka import TopicPartition
from kafka import codec as codecs
from kafka.consumer.fetcher import Fetcher
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder

from devtools.record_batches import HEAD, batch, edited, from_records, read, record, with_checksum
from worker.broker.record_batch import HeaderName, UnpackLimits
from worker.errors import FatalError, Hint
from worker.records import NO_TIME

VALUES = [b"%d" % number * 20 for number in range(6)]
CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
MIB = 1 << 20


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
@pytest.mark.parametrize("max_records", [1, 7, 8192])
def test_sound_records_are_those_of_the_client(codec: int, max_records: int) -> None:
    values = [*VALUES, None, b"", b"x" * 3 * MIB, b"last"]
    data = batch(values, codec=codec, key=b"key", headers=[("name", b"1"), ("null", None)]) + batch(VALUES, base=10)
    part = Fetcher.PartitionRecords(0, TopicPartition("in", 0), MemoryRecords(bytes(data)))
    expected = part.take(1000)

    reading = read(data, max_records=max_records)

    assert [one[:9] for one in reading.records] == [one[:9] for one in expected]
    assert reading.unreadable == []
    assert reading.next_offset == 16


def at(position: int, new: bytes) -> Callable[[bytearray], None]:
    def edit(raw: bytearray) -> None:
        raw[position : position + len(new)] = new

    return edit


def shorter(count: int) -> Callable[[bytearray], None]:
    def edit(raw: bytearray) -> None:
        del raw[-count:]
        raw[8:12] = (len(raw) - 12).to_bytes(4, "big")

    return edit


ATTRIBUTES, LAST_DELTA, COUNT, BODY = 21, 23, 57, HEAD.size

# name: the batch, the offsets that are read, those that are dead letters, those that are named
BROKEN = {
    "a header name that is no UTF-8": (
        batch(VALUES, headers=[(HeaderName(b"\xff\xfe\xfd"), b"1")]),
        [0, 1, 2, 3, 4, 5],
        [],
        [],
    ),
    "a value that is said to be longer than its record": (
        from_records([record(0, b"a"), record(1, b"b", value_size=90), record(2, b"c")]),
        [0, 2],
        [1],
        [],
    ),
    "a value that is said to be shorter": (
        from_records([record(0, b"aa"), record(1, b"bbbb", value_size=1), record(2, b"cc")]),
        [0, 2],
        [1],
        [],
    ),
    "a key that is said to be longer": (
        from_records([record(0, b"aa"), record(1, b"bb", key_size=1 << 40), record(2, b"cc")]),
        [0, 2],
        [1],
        [],
    ),
    "a negative number of headers": (from_records([record(0, b"a", headers=-5), record(1, b"b")]), [1], [0], []),
    "more headers than bytes": (from_records([record(0, b"a", headers=1 << 31), record(1, b"b")]), [1], [0], []),
    "a record of no length": (
        from_records([record(0, b"a"), record(1, b"b", length=0), record(2, b"c")]),
        [0],
        [1],
        [2],
    ),
    "a negative length": (from_records([record(0, b"a"), record(1, b"b", length=-9), record(2, b"c")]), [0], [1], [2]),
    "a length beyond the batch": (
        from_records([record(0, b"a"), record(1, b"b", length=9999), record(2, b"c")]),
        [0],
        [1],
        [2],
    ),
    "a length that is no varint": (from_records([record(0, b"a"), b"\xff" * 12, record(2, b"c")]), [0], [1], [2]),
    "an offset that was there before": (
        from_records([record(0, b"a"), record(0, b"b"), record(2, b"c")]),
        [0, 2],
        [1],
        [],
    ),
    "an offset behind the batch": (from_records([record(0, b"a"), record(77, b"b"), record(2, b"c")]), [0, 2], [1], []),
    "a batch that is cut off": (edited(batch(VALUES), shorter(70)), [0, 1, 2], [3], [4, 5]),
    "a count that is too high": (edited(batch(VALUES), at(COUNT, b"\0\0\0\x09")), [0, 1, 2, 3, 4, 5], [], []),
    "a count that is too low": (edited(batch(VALUES), at(COUNT, b"\0\0\0\x04")), [0, 1, 2, 3], [], [4, 5]),
    "a negative count": (edited(batch(VALUES), at(COUNT, b"\xff\xff\xff\xff")), [], [], [0, 1, 2, 3, 4, 5]),
    "an unknown codec": (edited(batch(VALUES), at(ATTRIBUTES, b"\0\x06")), [], [], [0, 1, 2, 3, 4, 5]),
    "plain records that are said to be gzip": (edited(batch(VALUES), at(ATTRIBUTES, b"\0\x01")), [], [], [*range(6)]),
    "plain records that are said to be snappy": (edited(batch(VALUES), at(ATTRIBUTES, b"\0\x02")), [], [], [*range(6)]),
    "plain records that are said to be lz4": (edited(batch(VALUES), at(ATTRIBUTES, b"\0\x03")), [], [], [*range(6)]),
    "plain records that are said to be zstd": (edited(batch(VALUES), at(ATTRIBUTES, b"\0\x04")), [], [], [*range(6)]),
    "garbage in the gzip": (edited(batch(VALUES, codec=1), at(BODY + 14, b"\xff" * 9)), [], [], [*range(6)]),
    "gzip that is cut off": (edited(batch(VALUES, codec=1), shorter(9)), [0, 1, 2, 3, 4, 5], [], []),
    "an unknown format": (at(16, b"\x07")(raw := batch(VALUES)) or raw, [], [], [*range(6)]),
    "a wrong checksum": (at(17, b"\0\0\0\0")(raw := batch(VALUES)) or raw, [], [0, 1, 2, 3, 4, 5], []),
    "a wrong checksum of a marker": (at(ATTRIBUTES, b"\0\x30")(raw := batch([b"a"])) or raw, [], [], [*range(6)]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_read_costs_itself_alone(name: str) -> None:
    broken, sound, dead, named = BROKEN[name]

    reading = read(broken + batch(VALUES, base=6))  # where a batch does not know its end, the one behind it does

    assert [offset for offset in reading.sound() if offset < 6] == sound
    assert reading.dead() == dead
    assert reading.named() == named
    assert reading.sound()[-6:] == [6, 7, 8, 9, 10, 11]
    assert reading.next_offset == 12


def test_a_header_name_that_is_no_utf8_reads_as_text_and_goes_out_as_its_bytes() -> None:
    reading = read(batch([b"a"], headers=[(HeaderName(b"id-\xff\xfe\xfd"), b"1")]))

    name = reading.records[0].headers[0][0]
    assert name == "id-\\xff\\xfe\\xfd"
    assert name.encode("utf-8") == b"id-\xff\xfe\xfd"
    assert read(batch([b"b"], headers=reading.records[0].headers)).records[0].headers[0][0].encode() == name.encode()


def test_the_bytes_of_an_unsound_record_are_those_in_the_log() -> None:
    broken = record(1, b"important", value_size=3)
    reading = read(from_records([record(0, b"a"), broken]))

    assert bytes(reading.records[1].value) == broken


def test_a_wrong_checksum_is_fetched_twice_more_before_it_is_believed() -> None:
    data = batch(VALUES)
    at(17, b"\0\0\0\0")(data)

    assert read(data, fetches=2)[:3] == ([], [], 0)
    assert read(data, fetches=3).dead() == [0, 1, 2, 3, 4, 5]


def test_records_before_a_wrong_checksum_are_handed_over_at_once() -> None:
    bad = batch(VALUES, base=6)
    at(17, b"\0\0\0\0")(bad)

    assert read(batch(VALUES) + bad, fetches=1).sound() == [0, 1, 2, 3, 4, 5]


def test_a_fetch_that_begins_inside_of_a_batch_neither_repeats_nor_names_what_stands_before() -> None:
    data = edited(batch(VALUES), at(COUNT, b"\0\0\0\x04")) + batch(VALUES, base=6)

    reading = read(data, fetch_offset=2)

    assert reading.sound() == [2, 3, 6, 7, 8, 9, 10, 11]
    assert reading.named() == [4, 5]
    assert read(data, fetch_offset=5).named() == [5]


def test_where_nothing_may_be_passed_over_it_stops_in_front_of_it_with_the_place() -> None:
    data = batch(VALUES) + edited(batch(VALUES, base=6), at(ATTRIBUTES, b"\0\x06"))

    with pytest.raises(
        FatalError, match=r"offsets 6 to 11 of in\[0\] can't be read: its codec 6 is unknown.*kafka.unre"
    ):
        read(data, on_unreadable="stop")


@pytest.mark.parametrize("name", ["snappy", "lz4", "zstd"])
def test_a_codec_that_is_not_installed_stops_with_the_extra_to_install(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = batch(VALUES, codec=CODECS[name])
    monkeypatch.setattr(codecs, {"lz4": "lz4"}.get(name, name if name == "snappy" else "zstd"), None)

    with pytest.raises(FatalError, match=f"compressed with {name}") as caught:
        read(data)

    assert caught.value.hint is Hint.INSTALL_COMPRESSION


@pytest.mark.parametrize("time", [-1, 0, -5, (1 << 63) - 1, -(1 << 63)])
def test_times_at_the_edge_stay_within_64_bits(time: int) -> None:
    data = batch(VALUES)
    data[27:35] = time.to_bytes(8, "big", signed=True)

    times = [one.timestamp for one in read(with_checksum(data)).records]

    assert times == [time + n if time + n < 1 << 63 else NO_TIME for n in range(6)]


@pytest.mark.parametrize("codec", [1, 2, 3, 4])
def test_a_record_larger_than_its_limit_is_named_and_its_neighbours_are_read(codec: int) -> None:
    data = batch([b"a", b"x" * 3 * MIB, b"c"], codec=codec)

    reading = read(data, limits=UnpackLimits(8 * MIB))

    assert reading.sound() == [0, 2]
    assert reading.named() == [1]
    assert "more than 2097152" in reading.unreadable[0].why


@pytest.mark.parametrize("codec", [1, 3, 4])
def test_a_batch_that_unpacks_to_more_than_the_limit_takes_the_memory_of_a_piece(codec: int) -> None:
    bomb = batch([b"x" * (MIB // 2)] * 80, codec=codec) + batch(VALUES, base=80, codec=codec)
    tracemalloc.start()

    reading = read(bomb, limits=UnpackLimits(16 * MIB), max_records=1)

    held = sum(len(one.value) for one in reading.records)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert reading.unreadable[0].why == f"it unpacks to more than {16 * MIB} bytes"
    assert 28 <= len(reading.sound()) - 6 < 32
    assert sorted([*reading.sound(), *reading.named()]) == [*range(86)]
    assert peak < held + 8 * MIB


def test_a_block_of_snappy_is_not_unpacked_when_it_says_that_it_is_too_large() -> None:
    data = batch(VALUES, codec=2)
    del data[BODY:]
    data += b"\xff\xff\xff\xff\x0f" + b"x" * 100
    data[8:12] = (len(data) - 12).to_bytes(4, "big")

    reading = read(with_checksum(data))

    assert reading.named() == [*range(6)]
    assert "4294967295" in reading.unreadable[0].why


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_a_poll_hands_over_bytes_and_the_next_one_goes_on(codec: int) -> None:
    reading = read(batch([b"x" * (MIB // 2)] * 40, codec=codec), max_bytes=4 * MIB)

    assert reading.sound() == [*range(40)]
    assert max(reading.polls) <= 5 * MIB
    assert min(reading.polls[:4]) >= 4 * MIB


@pytest.mark.parametrize("magic", [0, 1])
@pytest.mark.parametrize("codec", [0, 1, 2])
def test_old_formats_are_read_and_a_broken_message_set_is_named(magic: int, codec: int) -> None:
    def message_set() -> bytearray:
        builder = MemoryRecordsBuilder(magic, codec, 1 << 20)
        for value in VALUES:
            builder.append(1_700_000_000_000 if magic else None, b"key", value)
        builder.close()
        raw = bytearray(builder.buffer())
        if codec:
            raw[:8] = (5).to_bytes(8, "big")  # as the broker does: that of its last record
        return raw

    whole, broken = message_set(), message_set()
    broken[-3] ^= 0xFF

    assert read(whole).sound() == [0, 1, 2, 3, 4, 5]
    reading = read(broken)
    assert sorted([*reading.sound(), *reading.named()]) == [0, 1, 2, 3, 4, 5]
    assert 5 in reading.named()


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_whatever_a_batch_holds_each_offset_is_read_dead_or_named_once(codec: int) -> None:
    chance = random.Random(codec)
    for _ in range(300):
        values = [chance.randbytes(chance.randrange(60)) for _ in range(chance.randrange(1, 9))]
        raw = batch(values, codec=codec, headers=[("h", b"v")] if chance.random() < 0.3 else [])
        for _ in range(chance.randrange(1, 5)):
            raw[chance.randrange(BODY, len(raw))] = chance.randrange(256)
        if chance.random() < 0.2:
            shorter(chance.randrange(1, len(raw) - BODY))(raw)
        data = with_checksum(raw) + batch(VALUES, base=len(values))

        reading = read(data, max_records=chance.choice([1, 3, 100]))

        offsets = sorted([*reading.sound(), *reading.dead(), *reading.named()])
        assert offsets == [*range(len(values) + 6)], raw.hex()
        assert reading.next_offset == len(values) + 6


def test_random_heads_end_in_records_or_names_and_never_in_an_exception() -> None:
    chance = random.Random(7)
    for _ in range(500):
        raw = batch(VALUES)
        for _ in range(chance.randrange(1, 4)):
            raw[chance.randrange(12, BODY)] = chance.randrange(256)
        checked = with_checksum(raw) if raw[16] == 2 and chance.random() < 0.8 else raw

        reading = read(checked + batch(VALUES, base=6), fetches=4)

        assert set(reading.sound()) >= {6, 7, 8, 9, 10, 11} or reading.next_offset > 6


def test_gzip_of_several_members_is_one_stream() -> None:
    whole = batch(VALUES)[BODY:]
    raw = edited(batch(VALUES), at(ATTRIBUTES, b"\0\x01"))
    del raw[BODY:]
    raw += gzip.compress(bytes(whole[:50]), mtime=0) + gzip.compress(bytes(whole[50:]), mtime=0)
    raw[8:12] = (len(raw) - 12).to_bytes(4, "big")

    assert read(with_checksum(raw)).sound() == [0, 1, 2, 3, 4, 5]
