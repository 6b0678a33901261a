"""The pipeline says the same whatever the batching, and every message is accounted for once."""

from collections.abc import Sequence

import numpy as np
import orjson
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from devtools import traffic
from tests.contracts import VALID_ALERT, VALID_SCORE
from worker.alerts.encode import encode_alert, encode_scores
from worker.errors import ErrorCode
from worker.pipeline import Model, by_partition
from worker.records import Message, Outcome, Partition

BROKEN = [b"", b"{", b"[1]", b"\xff\xfe", b'{"amount": "much"}', b'{"amount": 1e999}', b"null", b'{"at": "soon"}']


def mixed_traffic(count: int = 3000, partitions: int = 3) -> list[Message]:
    """Ordinary records, outliers, broken records and tombstones."""
    messages = []
    for number, message in enumerate(traffic.messages(count, partitions=partitions)):
        value: bytes | None = message.value
        if number % 41 == 7:
            value = BROKEN[number % len(BROKEN)]
        if number % 97 == 5:
            value = None
        messages.append(
            Message(message.topic, message.partition, message.offset, message.timestamp, message.key, value)
        )
    return messages


def process_in(size: int, messages: Sequence[Message]) -> list[Outcome]:
    pipeline = traffic.pipeline()
    return [pipeline.process(messages[i : i + size]) for i in range(0, len(messages), size)]


def published(outcomes: Sequence[Outcome]) -> tuple[list[bytes], list[bytes], list[tuple[int, int, str]]]:
    alerts = [encode_alert(alert) for outcome in outcomes for alert in outcome.alerts]
    scores = [value for outcome in outcomes for _, value in encode_scores(outcome.scores)]
    dead = [(d.message.partition, d.message.offset, d.detail) for outcome in outcomes for d in outcome.dead_letters]
    return alerts, scores, sorted(dead)


def test_scores_thresholds_and_alerts_are_the_same_bytes_in_every_batch_size() -> None:
    messages = mixed_traffic()
    expected = published(process_in(4096, messages))

    assert len(expected[0]) > 20
    for size in (1, 7, 256):
        assert published(process_in(size, messages)) == expected, f"batches of {size}"


def test_dead_letters_of_a_partition_are_in_offset_order_whatever_rejected_them() -> None:
    (outcome,) = process_in(4096, mixed_traffic(partitions=1))
    offsets = [dead.message.offset for dead in outcome.dead_letters]

    assert len({dead.error_code for dead in outcome.dead_letters}) > 3
    assert offsets == sorted(offsets)


def test_every_message_is_scored_or_rejected_or_skipped_once() -> None:
    messages = mixed_traffic()
    (outcome,) = process_in(4096, messages)
    scored = [(m.partition, m.offset) for m in outcome.scores.messages]
    dead = [(d.message.partition, d.message.offset) for d in outcome.dead_letters]
    tombstones = [(m.partition, m.offset) for m in messages if m.value is None]

    assert sorted(scored + dead + tombstones) == sorted((m.partition, m.offset) for m in messages)
    assert outcome.skipped == len(tombstones)
    assert outcome.next_offsets == {Partition("in", p): 1000 for p in range(3)}


def test_the_offsets_to_commit_cover_records_that_were_not_scored() -> None:
    messages = [Message("in", 4, 10, -1, None, None), Message("in", 4, 11, -1, None, b"broken")]

    outcome = traffic.pipeline().process(messages)

    assert outcome.next_offsets == {Partition("in", 4): 12}
    assert outcome.skipped == 1
    assert [dead.error_code for dead in outcome.dead_letters] == [ErrorCode.INVALID_JSON]


def test_neighbours_of_broken_records_keep_their_scores_to_the_bit() -> None:
    messages = mixed_traffic()
    (with_broken,) = process_in(4096, messages)
    good = [m for m in messages if m.value is not None and m.value not in BROKEN]
    (without,) = process_in(4096, good)

    assert with_broken.scores.score.tolist() == without.scores.score.tolist()


def test_alerts_and_scores_follow_their_published_schemas_and_name_a_field_that_differs() -> None:
    outcomes = process_in(4096, mixed_traffic())
    alerts, scores, _ = published(outcomes)

    for value in alerts:
        alert = orjson.loads(value)
        VALID_ALERT.validate(alert)
        assert any(reason["observed"] != reason["expected"] for reason in alert["explanation"])
    for value in scores[:200]:
        VALID_SCORE.validate(orjson.loads(value))


def test_an_outlier_is_explained_by_the_field_that_is_out_of_line() -> None:
    outcomes = process_in(4096, traffic.messages(1000))
    alerts = [alert for outcome in outcomes for alert in outcome.alerts if alert.record["amount"] == 5e6]

    assert len(alerts) > 10
    for alert in alerts:
        first = alert.explanation[0]
        assert (first.field, first.observed) == ("amount", 5e6)
        assert first.expected < 1e4
        assert 0.9 < sum(reason.share for reason in alert.explanation) <= 1.001


def test_a_category_never_seen_and_a_missing_field_are_said_so() -> None:
    unseen = {**traffic.rows(1)[0], "channel": "carrier pigeon"}
    missing = {key: value for key, value in traffic.rows(1)[0].items() if key != "amount"}
    model = Model(traffic.bundle())
    from worker.formats.json_objects import JsonDecoder

    values = [Message("in", 0, i, 0, None, orjson.dumps(r)) for i, r in enumerate((unseen, missing))]
    vectors = model.vectorizer.transform(JsonDecoder(1000).decode(values))
    first, second = model.explainer.explain(vectors.numeric, vectors.category_ids, vectors.rows)

    assert (first[0].field, first[0].observed, first[0].note) == ("channel", "carrier pigeon", "never seen before")
    assert (second[0].field, second[0].observed) == ("(missing fields)", "without amount")


def test_a_swap_starts_thresholds_anew_and_alerts_carry_the_new_version() -> None:
    pipeline = traffic.pipeline()
    messages = traffic.messages(1000)
    pipeline.process(messages[:500])
    pipeline.swap(Model(traffic.bundle(1)))

    swapped = pipeline.process(messages[500:])
    fresh = traffic.pipeline(1).process(messages[500:])

    assert [encode_alert(a) for a in swapped.alerts] == [encode_alert(a) for a in fresh.alerts]
    assert {alert.model_version for alert in swapped.alerts} == {traffic.bundle(1).version}


def test_redacted_fields_are_marked_everywhere_in_the_alert() -> None:
    from worker.pipeline import Pipeline
    from worker.redaction import Redaction

    model = Model(traffic.bundle(), redaction=Redaction(["amount", "id", "merchant.country"]))
    pipeline = Pipeline(model, threshold_factory=traffic.plain_threshold())

    alerts = pipeline.process(traffic.messages(1000)).alerts

    text = b"".join(map(encode_alert, alerts)).decode()
    assert len(alerts) > 5
    assert "5000000" not in text
    assert '"r49"' not in text
    assert alerts[0].record["merchant"] == {"country": "[redacted]"}
    assert alerts[0].ids == {"id": "[redacted]"}


def test_the_same_record_has_the_same_alert_id_in_every_run() -> None:
    first, second = (process_in(size, traffic.messages(1000)) for size in (100, 1000))

    assert [a.alert_id for o in first for a in o.alerts] == [a.alert_id for o in second for a in o.alerts]


def test_partitions_are_grouped_in_order() -> None:
    places = [(1, 0), (0, 0), (1, 1), (2, 5), (0, 1)]
    groups = by_partition([Message("in", p, o, 0, None, None) for p, o in places])

    assert [(key.partition, index.tolist()) for key, index in groups] == [(1, [0, 2]), (0, [1, 4]), (2, [3])]


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
fields = st.sampled_from(["id", "amount", "merchant", "merchant.country", "channel", "online", "at", "else"])


def as_json(value: object) -> bytes:
    import json

    return json.dumps(value).encode("utf-8", "surrogatepass")


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.none()
        | st.binary(max_size=60)
        | json_values.map(as_json)
        | st.dictionaries(fields, json_values, max_size=8).map(as_json),
        min_size=1,
        max_size=20,
    )
)
@example([b'{"amount": 1e308}', b'{"amount": -1e308}', b'{"amount": 5e-324}'])
@example([b"{" * 100_000, b"[" * 100_000, b'{"a":' * 1000 + b"1" + b"}" * 1000])
@example([b'{"amount": 1, "amount": 2}', b"NaN", b"Infinity", b'{"amount": NaN}'])
@example([b"x" * 10_000_000, b'{"id": "' + b"x" * 2_000_000 + b'"}'])
def test_any_bytes_are_scored_or_dead_lettered_once_and_the_next_batch_works(values: list[bytes | None]) -> None:
    pipeline = traffic.pipeline()
    messages = [Message("in", 0, offset, 0, None, value) for offset, value in enumerate(values)]

    outcome = pipeline.process(messages, "2026-01-01T00:00:00.000Z")
    after = pipeline.process([Message("in", 0, len(values), 0, None, orjson.dumps(traffic.rows(1)[0]))])

    seen = [m.offset for m in outcome.scores.messages] + [d.message.offset for d in outcome.dead_letters]
    assert sorted(seen) == [offset for offset, value in enumerate(values) if value is not None]
    assert np.isfinite(outcome.scores.score).all()
    assert len(after.scores.messages) == 1
    for alert in outcome.alerts:
        assert orjson.loads(encode_alert(alert))["alert_id"] == alert.alert_id


def test_a_silence_about_the_direction_of_a_redacted_number_still_holds() -> None:
    from worker.alerts.silences import Silence, Silences
    from worker.pipeline import Pipeline
    from worker.redaction import Redaction

    silenced = [
        Pipeline(
            Model(traffic.bundle(), redaction=Redaction(fields)),
            threshold_factory=traffic.plain_threshold(),
            silences=Silences([Silence("high", field="amount", direction="above")]),
        )
        .process(traffic.messages(1000))
        .silenced
        for fields in ([], ["amount"])
    ]

    assert silenced[0] == silenced[1] != {}
