"""Records that wrap others: one offset to commit; a score, an alert and an id for each, live and in a replay."""

from collections import Counter

import orjson
import pytest

from devtools import traffic
from tests.contracts import VALID_ALERT, VALID_SCORE
from worker.alerts.encode import dead_letter_headers, encode_alert, encode_scores
from worker.formats.json_objects import JsonDecoder
from worker.formats.unfold import UnfoldingDecoder
from worker.pipeline import Model, Pipeline
from worker.records import Message, Outcome, Partition, place_of
from worker.replay.lines import FieldLabels, Reader
from worker.sources.base import Block

SIZES = (1, 7, 0, 3, 29)
DECODER = UnfoldingDecoder(JsonDecoder(), "Records")


def wrapped(count: int) -> list[Message]:
    """Ordinary traffic and outliers in one partition, several in a Kafka record; the last one has a broken member."""
    values = [message.value or b"" for message in traffic.messages(count, partitions=1)]
    messages: list[Message] = []
    while values:
        size = SIZES[len(messages) % len(SIZES)]
        part, values = values[:size], values[size:]
        text = b'{"Records": [' + b",".join(part) + b"]}"
        messages.append(Message("in", 0, len(messages), -1, b"k", text))
    broken = b'{"Records": [{"amount": "twelve"}, 7]}'
    return [*messages, Message("in", 0, len(messages), -1, b"k", broken)]


def pipeline() -> Pipeline:
    return Pipeline(Model(traffic.bundle()), threshold_factory=traffic.plain_threshold(), decoder=DECODER)


def alert_ids(outcomes: list[Outcome]) -> list[str]:
    return [alert.alert_id for outcome in outcomes for alert in outcome.alerts]


def test_each_member_is_scored_as_if_it_had_come_alone() -> None:
    plain = traffic.pipeline().process(traffic.messages(3000, partitions=1))

    outcome = pipeline().process(wrapped(3000))

    assert outcome.scores.score.tolist() == plain.scores.score.tolist()
    assert outcome.scores.alert.tolist() == plain.scores.alert.tolist()
    assert [alert.record for alert in outcome.alerts] == [alert.record for alert in plain.alerts]


def test_members_have_ids_of_their_own_which_stay_the_same_when_they_are_read_again() -> None:
    messages = wrapped(3000)
    whole = alert_ids([pipeline().process(messages)])
    again = pipeline()
    pieces = alert_ids([again.process(messages[at : at + 5]) for at in range(0, len(messages), 5)])

    assert len(whole) > 20
    assert len(set(whole)) == len(whole)
    assert pieces == whole


def test_offsets_are_committed_by_kafka_record_and_every_member_is_accounted_for_once() -> None:
    messages = wrapped(500)

    outcome = pipeline().process(messages)

    assert outcome.next_offsets == {Partition("in", 0): len(messages)}
    assert len(outcome.scores.messages) == 500
    assert [place_of(dead.message) for dead in outcome.dead_letters] == [(len(messages) - 1, 0), (len(messages) - 1, 1)]
    assert outcome.skipped == sum(message.value == b'{"Records": []}' for message in messages)
    places = Counter(map(place_of, outcome.scores.messages))
    assert set(places.values()) == {1}


def test_what_is_published_of_a_member_names_its_place() -> None:
    outcome = pipeline().process(wrapped(3000))

    alert = orjson.loads(encode_alert(outcome.alerts[0]))
    score = orjson.loads(next(encode_scores(outcome.scores))[1])
    VALID_ALERT.validate(alert)
    VALID_SCORE.validate(score)
    assert score["source"] == {"topic": "in", "partition": 0, "offset": 0, "timestamp_ms": -1, "key": "k", "member": 0}
    assert alert["source"]["member"] == outcome.alerts[0].message.member  # type: ignore[attr-defined]
    headers = dict(dead_letter_headers(outcome.dead_letters[1]))
    assert (headers["source.member"], outcome.dead_letters[1].message.value) == (b"1", b"7")


@pytest.mark.parametrize("is_topic", [True, False])
def test_a_replay_takes_records_apart_as_the_live_pipeline_does_and_labels_each_member(is_topic: bool) -> None:
    messages = wrapped(800)
    live = pipeline().process(messages)
    values = [message.value or b"" for message in messages]
    reader = Reader(
        topic="in", labels=FieldLabels("amount"), decoder=DECODER, unfolding=DECODER, batch_size=64, max_bytes=1 << 20
    )

    lines = [line for batch in reader.batches([Block(values, messages if is_topic else None)]) for line in batch]
    replayed = pipeline().process(lines)

    assert alert_ids([replayed]) == alert_ids([live])
    assert replayed.scores.score.tolist() == live.scores.score.tolist()
    assert [place_of(dead.message) for dead in replayed.dead_letters] == [
        place_of(dead.message) for dead in live.dead_letters
    ]
    assert sum(line.label is not None for line in lines if line.member is not None) > 700
    assert len({line.row for line in lines}) == len(messages)
