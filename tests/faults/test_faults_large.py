"""Results that are larger than their topic takes: cut down at once, marked, and nothing else is repeated for it."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from itertools import count
from typing import Any

import orjson
import pytest

from devtools import traffic
from devtools.kafka_stage import KafkaStage
from devtools.stage import Guarantee
from worker.broker.client import Connection
from worker.broker.limits import RecordLimits, portions, record_bytes
from worker.errors import SettingsError
from worker.records import Message, Outgoing, RawMessage
from worker.stream.sinks.kafka import KafkaSink
from worker.stream.sinks.shorten import TRUNCATED, TRUNCATED_PARTS, shortened

LIMIT = 8_000
RECORDS = 220
LARGE = tuple(range(5, RECORDS, 11))

MakeStage = Callable[..., KafkaStage]


@pytest.fixture
def make_stage(connection: Connection, group: str) -> Iterator[MakeStage]:
    with ExitStack() as stack:

        def make(guarantee: Guarantee, **options: Any) -> KafkaStage:
            settings = {"max.message.bytes": str(LIMIT)}
            stage = KafkaStage(connection, group, guarantee, results_settings=settings, **options)
            stack.callback(stage.open.close)
            return stage

        yield make


def texts(size: int) -> Mapping[str, tuple[bytes | None, bytes, tuple[tuple[str, bytes], ...]]]:
    """Key, value and headers of records whose results are too large, each in one way."""
    text, row = "x" * size, traffic.rows(1)[0] | {"amount": 5e6}
    ids = {f"key {n}": "x" * 30 for n in range(size // 40)}
    return {
        "key": (text.encode(), orjson.dumps(row), ()),
        "record": (b"key", orjson.dumps({**row, "note": text}), ()),
        "id": (b"key", orjson.dumps({**row, "id": text}), ()),
        "id that is an object": (b"key", orjson.dumps({**row, "id": ids}), ()),
        "category": (b"key", orjson.dumps({**row, "channel": text}), ()),
        "key and record": (text.encode(), orjson.dumps({**row, "note": text}), ()),
        "name": (b"key", orjson.dumps({**row, text: 1}), ()),
        "dead letter": (b"key", text.encode() * 3, ()),
        "dead letter's key": (text.encode(), b"{", ()),
        "dead letter's header": (b"key", b"{", (("trace", text.encode()),)),
        "dead letter's many headers": (b"key", b"{", tuple((f"trace-{n}", b"x" * 20) for n in range(size // 30))),
        "dead letter's header name": (b"key", b"{", ((text, b"1"),)),
    }


def mixed() -> list[Message]:
    """Small traffic, and among it every kind of large record."""
    messages = traffic.messages(RECORDS, partitions=4)
    for position, number in enumerate(LARGE):
        kinds = list(texts(9_000 + 17 * number).values())
        key, value, headers = kinds[position % len(kinds)]
        old = messages[number]
        messages[number] = Message(old.topic, old.partition, old.offset, old.timestamp, key, value, headers)
    return messages


def place(message: RawMessage) -> tuple[int, int]:
    """Where the record stood that a result is about."""
    headers = dict(message.headers)
    if "source.offset" in headers:
        return int(headers["source.partition"] or b""), int(headers["source.offset"] or b"")
    source = orjson.loads(message.value or b"")["source"]
    return source["partition"], source["offset"]


def places(stage: KafkaStage, topic: str) -> Counter[tuple[int, int]]:
    return Counter(place(message) for message in stage.records(topic))


@pytest.mark.broker
@pytest.mark.kafka
@pytest.mark.parametrize("tells_limits", [True, False], ids=["limits are told", "limits are learned"])
@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_whatever_is_too_large_is_cut_and_its_neighbours_are_published_once(
    make_stage: MakeStage, guarantee: Guarantee, tells_limits: bool
) -> None:
    messages = mixed()
    stage = make_stage(guarantee, tells_limits=tells_limits).feed(messages)
    worker = stage.worker(batch_size=RECORDS).drain()

    scores, dead, alerts = (places(stage, topic) for topic in ("scores", "dead", "alerts"))
    repeated = sum((scores + dead).values()) - len(scores + dead)
    every = {(message.partition, message.offset) for message in messages}
    results = [message for topic in ("scores", "dead", "alerts") for message in stage.records(topic)]
    assert scores.keys() | dead.keys() == every
    assert not scores.keys() & dead.keys()
    assert alerts
    assert repeated == 0
    assert worker.seen.retries == []
    marked = [message for message in results if TRUNCATED in dict(message.headers)]
    assert worker.seen.short >= len(marked) > len(LARGE)
    assert all(dict(message.headers)[TRUNCATED_PARTS] for message in marked)


def results_of(key: bytes | None, value: bytes, headers: tuple[tuple[str, bytes], ...]) -> list[Outgoing]:
    """What the worker publishes about such a record, after enough others that it has a threshold."""
    messages = [*traffic.messages(200), Message("in", 0, 200, 0, key, value, headers)]
    outcome = traffic.pipeline().process(messages, "2026-01-01T00:00:00.000Z")
    sink = KafkaSink(alerts_topic="alerts", dead_letter_topic="dead", scores_topic="scores")
    sink.add(outcome)
    return [outgoing for outgoing in sink.records if record_bytes(outgoing) > LIMIT]


WITHOUT = {
    "key": {"key", "texts"},
    "record": {"record"},
    "id": {"record", "texts"},
    "id that is an object": {"record", "ids"},
    "category": {"record", "texts"},
    "key and record": {"key", "texts", "record"},
    "name": {"record"},
    "dead letter": {"value"},
    "dead letter's key": {"key"},
    "dead letter's header": {"headers"},
    "dead letter's many headers": {"headers"},
    "dead letter's header name": {"headers"},
}


@pytest.mark.parametrize("kind", WITHOUT)
def test_a_result_loses_what_makes_it_too_large_and_says_what(kind: str) -> None:
    results = results_of(*texts(9_000)[kind])

    short = [shortened(result, lambda outgoing: record_bytes(outgoing) <= LIMIT) for result in results]

    assert short
    for result in short:
        headers = dict(result.headers)
        parts = (headers[TRUNCATED_PARTS] or b"").decode().split(",")
        assert record_bytes(result) <= LIMIT
        assert headers[TRUNCATED] == b"true"
        assert set(parts) <= WITHOUT[kind]
        assert (result.key is None) == ("key" in parts)
        if result.topic == "dead":
            assert headers["error.code"] == b"invalid_json"
            assert headers["source.offset"] == b"200"
        else:
            document = orjson.loads(result.value or b"")
            assert document[TRUNCATED] is True
            assert document["source"]["offset"] == 200


@pytest.mark.parametrize("kind", WITHOUT)
def test_where_no_limit_is_known_each_call_leaves_a_smaller_record_until_nothing_is_left(kind: str) -> None:
    for result in results_of(*texts(9_000)[kind]):
        versions = [result]

        def shorten_on(versions: list[Outgoing] = versions) -> None:
            for _ in count():
                versions.append(shortened(versions[-1], lambda _: True))

        with pytest.raises(SettingsError, match=r"max\.message\.bytes"):
            shorten_on()

        sizes = [record_bytes(version) for version in versions]
        assert sizes == sorted(set(sizes), reverse=True)
        assert sizes[-1] < 2_048
        assert [name for name, _ in versions[-1].headers].count(TRUNCATED) == 1


def test_records_whose_sum_is_large_are_acknowledged_in_parts_and_stay_in_their_order() -> None:
    records = [Outgoing("out", None, b"x" * size) for size in (1, 20 << 20, 20 << 20, 5, 40 << 20, 7)]

    parts = list(portions(records))

    assert [record for part in parts for record in part] == records
    assert [len(part) for part in parts] == [2, 2, 1, 1]


@pytest.mark.parametrize(
    ("stated", "refused", "compressed", "limit"),
    [
        (None, [], False, None),
        (1_000_000, [], False, 1_000_000),
        (1_000_000, [], True, None),
        (None, [2_000_000], False, 1_000_000),
        (None, [2_000_000, 900_000, 3_000_000], False, 450_000),
        (1_000_000, [1_200_000], False, 1_000_000),
        (1_000_000, [800_000], False, 400_000),
        (1_000_000, [800_000], True, 400_000),
    ],
)
def test_a_limit_is_what_the_broker_tells_or_half_of_what_it_refused(
    stated: int | None, refused: list[int], compressed: bool, limit: int | None
) -> None:
    limits = RecordLimits()
    limits.tell({} if stated is None else {"out": stated})
    for size in refused:
        limits.refuse(Outgoing("out", None, b"x" * (size - record_bytes(Outgoing("out", None, b"")))))

    assert limits.max_record_bytes("out", compressed=compressed) == limit
    assert limits.max_record_bytes("another") is None
