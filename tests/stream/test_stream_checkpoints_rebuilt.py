"""A checkpoint that can't be used is rebuilt and reported; what is saved is bounded, and strangers are left alone."""

from typing import Any

import pytest

from devtools import traffic
from devtools.stage import GROUP, Stage, Worker, assert_as_undisturbed, undisturbed
from worker.errors import CommitRefused
from worker.records import Message, Outgoing, Partition

IN_0 = Partition("in", 0)


def restarted(stage: Stage, **options: Any) -> Worker:
    """A worker after one that handled 500 records."""
    first = stage.worker()
    for _ in range(5):
        first.loop.step()
    first.die()
    return stage.worker(**options)


def test_a_partition_without_history_starts_quietly() -> None:
    worker = Stage().feed(traffic.messages(300)).worker().drain()

    assert worker.seen.rebuilt == {}
    assert worker.seen.restored == {}


def test_a_state_of_another_model_is_rebuilt() -> None:
    stage = Stage().feed(traffic.messages(1000))
    worker = restarted(stage, seed=1).drain()

    assert traffic.bundle(0).version in worker.seen.rebuilt[IN_0]
    assert traffic.bundle(1).version in worker.seen.rebuilt[IN_0]


def test_a_state_of_other_settings_is_rebuilt_and_left_over_slots_are_deleted() -> None:
    stage = Stage().feed(traffic.messages(1000))
    worker = restarted(stage, window=64).drain()

    assert "settings" in worker.seen.rebuilt[IN_0]
    last = {message.key: message.value for message in stage.broker.records("state")}
    assert len(last) == 1 + 20
    assert sum(value is not None for value in last.values()) == 1 + 16


def test_offsets_that_an_operator_moved_back_are_followed_and_the_threshold_is_rebuilt() -> None:
    stage = Stage().feed(traffic.messages(1000))
    first = stage.worker()
    for _ in range(5):
        first.loop.step()
    first.die()
    stage.broker._offsets[GROUP][IN_0] = 50
    worker = stage.worker()
    worker.loop.step()

    assert "500" in worker.seen.rebuilt[IN_0]
    assert "50" in worker.seen.rebuilt[IN_0]
    assert stage.published("scores")[500]["source"]["offset"] == 50


def test_after_a_rebuild_the_next_worker_finds_only_the_new_state() -> None:
    stage = Stage().feed(traffic.messages(1000))
    first = stage.worker()
    for _ in range(5):
        first.loop.step()
    first.die()
    stage.broker._offsets[GROUP][IN_0] = 50
    for _ in range(2):
        again = stage.worker(batch_size=90)
        again.loop.step()
        again.die()
    last = stage.worker()
    last.loop.step()

    assert last.seen.restored == {IN_0: 50 + 2 * 90}
    expected, _ = undisturbed(stage.fed[50:])
    published = stage.published("scores")[500:]
    assert [score["threshold"] for score in published] == [
        threshold for place in sorted(expected)[: len(published)] for _, threshold, _ in expected[place]
    ]


def test_a_lost_state_topic_is_reported() -> None:
    stage = Stage().feed(traffic.messages(1000))
    worker = restarted(stage)
    stage.broker.create_topic("state", 1)
    worker.drain()

    assert "500" in worker.seen.rebuilt[IN_0]
    assert {place for place, scores in stage.scored().items() if len(scores) == 1} == {(0, n) for n in range(1000)}


@pytest.mark.parametrize("name", ["head", "slot-3"])
@pytest.mark.parametrize("damage", [b"", b"not what it was", None])
def test_a_damaged_state_is_rebuilt_and_written_whole_again(name: str, damage: bytes | None) -> None:
    stage = Stage().feed(traffic.messages(2000))
    worker = restarted(stage)
    stage.broker.append([Outgoing("state", f"{GROUP}|in|0|{name}".encode(), damage, partition=0)])
    compact(stage)
    for _ in range(3):
        worker.loop.step()
    worker.die()

    last = stage.worker().drain()

    assert IN_0 in worker.seen.rebuilt
    assert last.seen.restored == {IN_0: 800}


def test_a_flipped_bit_in_a_slot_is_noticed() -> None:
    stage = Stage().feed(traffic.messages(1000))
    worker = restarted(stage)
    newest = {message.key: message for message in stage.broker.records("state")}
    key = f"{GROUP}|in|0|slot-3".encode()
    value = bytearray(newest[key].value or b"")
    value[-1] ^= 1
    stage.broker.append([Outgoing("state", key, bytes(value), partition=0)])
    compact(stage)
    worker.drain()

    assert "written with" in worker.seen.rebuilt[IN_0]


def compact(stage: Stage) -> None:
    """What the broker's cleaner leaves: the last record of each key."""
    last = {message.key: message for message in stage.broker.records("state")}
    stage.broker.create_topic("state", 1)
    stage.broker.append(
        [Outgoing("state", m.key, m.value, partition=0) for m in sorted(last.values(), key=lambda m: m.offset)]
    )


def test_a_compacted_state_is_enough() -> None:
    stage = Stage().feed(traffic.messages(2000))
    worker = restarted(stage)
    compact(stage)
    worker.drain()

    assert_as_undisturbed(stage)


def test_the_keys_of_a_partition_are_bounded_and_a_commit_writes_only_what_changed() -> None:
    stage = Stage().feed(traffic.messages(4000))
    stage.worker().drain()
    records = stage.broker.records("state")
    heads = [record for record in records if record.key == f"{GROUP}|in|0|head".encode()]

    assert len({record.key for record in records}) == 21
    assert len(heads) == 40
    # 20 slots at the start, then about 100 records a commit: strides of 64 touch at most 4 slots of 50
    assert len(records) - len(heads) <= 20 + 39 * 4
    assert max(len(record.value or b"") for record in heads) < 5000


def test_other_groups_and_strangers_in_the_state_topic_are_left_alone() -> None:
    stage = Stage().feed(traffic.messages(2000))
    stage.broker.append(
        [Outgoing("state", key, b"x", partition=0) for key in (b"other|in|0|head", b"\xff", b"group|in|0|slot-x")]
    )
    stage.broker.append([Outgoing("state", None, None, partition=0)])
    restarted(stage).drain()

    assert_as_undisturbed(stage)


def test_without_a_state_topic_thresholds_start_anew_with_each_owner() -> None:
    stage = Stage().feed(traffic.messages(600))
    first = stage.worker(stateful=False)
    for _ in range(3):
        first.loop.step()
    first.die()
    stage.worker(stateful=False).drain()

    assert stage.broker.records("state") == []
    fresh = stage.scored()[0, 0].pop()[1]
    assert stage.scored()[0, 300].pop()[1] == fresh


def test_without_a_state_topic_a_refused_batch_is_not_learned_twice() -> None:
    stage = Stage().feed(traffic.messages(600))
    worker = stage.worker(stateful=False, batch_size=300)
    stage.broker.fail("commit", CommitRefused("the group has a new generation"))
    worker.drain()

    assert worker.seen.lost
    assert_as_undisturbed(stage)


def message(offset: int, value: bytes | None) -> Message:
    return Message("in", 0, offset, 0, b"key", value)


def test_batches_without_a_score_still_move_the_state_on() -> None:
    good = traffic.messages(300)
    bad = [message(300 + n, b"{" if n % 2 else None) for n in range(200)]
    stage = Stage().feed([*good, *bad])
    first = stage.worker()
    for _ in range(4):
        first.loop.step()
    first.die()

    last = stage.worker().drain()

    assert last.seen.restored == {IN_0: 400}
    assert len(stage.broker.records("dead")) == 100
