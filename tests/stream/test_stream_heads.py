"""A saved state that is not what a worker wrote costs a threshold at most: no start fails, no record is passed over."""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import orjson
import pytest

from devtools import traffic
from devtools.stage import GROUP, Guarantee, Stage
from worker.records import Outgoing, Partition
from worker.stream.checkpoint_format import FORMAT, MAX_HEAD_BYTES, CheckpointHead, decode_head

IN_0 = Partition("in", 0)
KEY = f"{GROUP}|in|0|head".encode()
Change = Callable[[dict[str, Any]], Mapping[str, Any]]
GUARANTEES: tuple[Guarantee, ...] = ("at_least_once", "exactly_once")


def newest_head(stage: Stage) -> bytes:
    return [record.value for record in stage.broker.records("state") if record.key == KEY][-1] or b""


def stage_with(guarantee: Guarantee, make: Callable[[bytes], bytes | None]) -> Stage:
    """After 500 of 1000 records; the only head in the state topic is the one that was made of the newest."""
    stage = Stage(guarantee=guarantee).feed(traffic.messages(1000))
    worker = stage.worker()
    for _ in range(5):
        worker.loop.step()
    worker.die()
    kept = {record.key: record for record in stage.broker.records("state")}
    value = make(newest_head(stage))
    stage.broker.create_topic("state", 1)
    stage.broker.append([Outgoing("state", key, r.value, partition=0) for key, r in kept.items() if key != KEY])
    stage.broker.append([Outgoing("state", KEY, value, partition=0)])
    return stage


def written_as_a_worker_does(**changes: Any) -> Callable[[bytes], bytes]:
    """An honest head with other values, its checksum included."""
    return lambda value: replace(decode_head(value), **changes).encode()


def with_threshold(change: Change) -> Callable[[bytes], bytes]:
    """The same, changed in the state of the threshold."""

    def make(value: bytes) -> bytes:
        head = decode_head(value)
        state = orjson.loads(head.threshold)
        return replace(head, threshold=orjson.dumps({**state, **change(state)})).encode()

    return make


def with_policy(**changes: Any) -> Callable[[bytes], bytes]:
    return with_threshold(lambda state: {"policy": {**state["policy"], **changes}})


def edited(change: Change) -> Callable[[bytes], bytes]:
    """Somebody edited the JSON and did not know of the checksum."""

    def make(value: bytes) -> bytes:
        document = orjson.loads(zlib.decompress(value))
        return zlib.compress(orjson.dumps({**document, "head": {**document["head"], **change(document["head"])}}))

    return make


def packed(document: bytes) -> Callable[[bytes], bytes]:
    return lambda _: zlib.compress(document)


def summed(document: Mapping[str, Any]) -> Callable[[bytes], bytes]:
    """Any JSON, with a checksum that fits."""
    body = orjson.dumps(document)
    return packed(orjson.dumps({"format": FORMAT, "sum": zlib.crc32(body), "head": orjson.Fragment(body)}))


def bomb(_: bytes) -> bytes:
    """900 MB in 0.9 MB."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(b" " * (1 << 20)) for _ in range(900)) + packer.flush()


HEADS: dict[str, Callable[[bytes], bytes | None]] = {
    "empty": lambda _: b"",
    "not zlib": lambda _: b"not what it was",
    "cut short": lambda value: value[: len(value) // 2],
    "without its last byte": lambda value: value[:-1],
    "bomb": bomb,
    "just above the limit": packed(b" " * (MAX_HEAD_BYTES + 1)),
    "no JSON": packed(b"{"),
    "a list": packed(b"[]"),
    "a number": packed(b"7"),
    "nested too deeply": packed(b"[" * 100_000),
    "an old format": packed(b'{"format": 2, "next_offset": 500}'),
    "an edited offset": edited(lambda head: {"next_offset": head["next_offset"] + 200}),
    "an edited text": edited(lambda _: {"model": "another"}),
    "a missing key": lambda value: _without(value, "digest"),
    "nothing in it": summed({}),
    "an unknown key": edited(lambda _: {"more": 1}),
    "a larger offset": written_as_a_worker_does(next_offset=700),
    "a larger offset, as if a crash had come": written_as_a_worker_does(next_offset=700, previous_offset=500),
    "an offset beyond the log": written_as_a_worker_does(next_offset=10**9, previous_offset=500),
    "the largest offset": written_as_a_worker_does(next_offset=(1 << 63) - 1, previous_offset=500),
    "a negative offset": written_as_a_worker_does(next_offset=-1),
    "an offset that is text": written_as_a_worker_does(next_offset="500"),
    "an offset that is true": written_as_a_worker_does(next_offset=True),
    "an offset with a fraction": written_as_a_worker_does(next_offset=500.5),
    "no offset": written_as_a_worker_does(next_offset=None),
    "of another partition": written_as_a_worker_does(place=f"{GROUP}|in|1|"),
    "of another topic": written_as_a_worker_does(place=f"{GROUP}|out|0|"),
    "of another group": written_as_a_worker_does(place="other|in|0|"),
    "of an earlier topic": written_as_a_worker_does(topic_id="5babe71b-a449-46f7-82ea-fa0b472a8c34"),
    "an incarnation that is none": written_as_a_worker_does(incarnation="../../etc/passwd"),
    "counters that are none": written_as_a_worker_does(counters={"scored": "many"}),
    "counters that are negative": written_as_a_worker_does(counters={"scored": -1}),
    "too many slots": written_as_a_worker_does(slots=10**12),
    "another number of slots": written_as_a_worker_does(slots=19),
    "another digest": written_as_a_worker_does(digest=1),
    "a threshold that is a list": written_as_a_worker_does(threshold=b"[]"),
    "a threshold that is empty": written_as_a_worker_does(threshold=b"{}"),
    "a policy that is none": with_threshold(lambda _: {"policy": None}),
    "a position that is text": with_policy(position="7"),
    "a position below zero": with_policy(position=-1),
    "a position beyond all": with_policy(position=1 << 63),
    "a location that is text": with_policy(location="nan"),
    "a threshold that is null": with_policy(threshold=None),
    "an absurd location": with_policy(location=1e308),
    "more following than there is": with_policy(following=7.0),
    "an open stride that is none": with_threshold(lambda _: {"pending": {"scores": "!", "times": [1]}}),
    "an open stride of infinity": with_threshold(lambda _: {"pending": {"scores": "BAAAgP8=", "times": [1]}}),
    "an open stride too long": with_threshold(lambda state: {"pending": {**state["pending"], "times": [0] * 64}}),
    "times that are text": with_threshold(
        lambda state: {"pending": {**state["pending"], "times": ["x"] * len(state["pending"]["times"])}}
    ),
    "times beyond all": with_threshold(
        lambda state: {"pending": {**state["pending"], "times": [1 << 63] * len(state["pending"]["times"])}}
    ),
}


def _without(value: bytes, name: str) -> bytes:
    document = orjson.loads(zlib.decompress(value))
    del document["head"][name]
    return summed(document["head"])(b"")


@pytest.mark.parametrize(
    ("name", "guarantee"),
    [
        (name, guarantee)
        for name in HEADS
        for guarantee in GUARANTEES
        if guarantee == "at_least_once" or "offset" in name
    ],
)
def test_a_head_that_is_not_sound_costs_a_threshold_and_no_record(name: str, guarantee: Guarantee) -> None:
    stage = stage_with(guarantee, HEADS[name])

    worker = stage.worker().drain()

    assert worker.seen.restored == {}
    assert IN_0 in worker.seen.rebuilt
    assert [score["source"]["offset"] for score in stage.published("scores")] == list(range(1000))
    last = decode_head(newest_head(stage))
    assert last.next_offset == 1000


def test_a_sound_head_is_used() -> None:
    stage = stage_with("at_least_once", lambda value: value)

    assert stage.worker().drain().seen.restored == {IN_0: 500}


def test_values_of_a_threshold_that_make_no_sense_together_do_not_end_the_worker() -> None:
    """Each of them in range; what comes of it is found out on a copy."""
    stage = stage_with("at_least_once", with_policy(location=1e-300, following=1.0, cutoff=1e-200, threshold=1e300))

    worker = stage.worker().drain()

    assert worker.seen.rebuilt.keys() | worker.seen.restored.keys() == {IN_0}
    assert len(stage.published("scores")) == 1000


def test_a_head_goes_through_its_record_unchanged() -> None:
    head = CheckpointHead(
        "g|t|0|", "id", True, "0123456789abcdef", None, 5, "v", "f", {"scored": 5}, 2, 7, b'{"a":[1,2.5,null]}'
    )

    assert decode_head(head.encode()) == head
