"""Deduplication, suppression and the rate cap in the pipeline: the same whatever the batching, and across restarts."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import orjson
import pytest

from tests import traffic
from tests.contracts import VALID_ALERT
from worker.cli.wiring import make_pipeline
from worker.detect.alert import encode_alert, encode_scores
from worker.detect.hygiene import HygieneOptions
from worker.detect.suppress import Suppression, load_suppression
from worker.detect.tail import severity
from worker.errors import SettingsError
from worker.pipeline import Model, Pipeline
from worker.records import Message, Outcome, Partition
from worker.settings import AlertSettings, Settings
from worker.stream.saved import Head, decode_head

HYGIENE = HygieneOptions(("merchant.country",), cooldown_s=120, max_per_minute=4)
RULES = """
[rules.pigeons]
field = "channel"
values = ["carrier pigeon"]
[rules.large-at-ten]
field = "amount"
direction = "above"
daily = "10:03-10:04"
"""


@cache
def model(seed: int = 0) -> Model:
    return Model(traffic.bundle(seed))


@pytest.fixture
def suppression(tmp_path: Path) -> Suppression:
    path = tmp_path / "rules.toml"
    path.write_text(RULES, encoding="utf-8")
    return load_suppression(path)


def make(suppression: Suppression | None = None, hygiene: HygieneOptions = HYGIENE) -> Pipeline:
    return Pipeline(
        model(),
        make_threshold=traffic.plain_threshold(window=20_000),
        hygiene=hygiene,
        suppression=suppression or Suppression(),
    )


def bursts(count: int = 1500, partitions: int = 2) -> list[Message]:
    """Traffic in event time, a record every half second, with minutes of bursts, pigeons and some wrong clocks."""
    found = []
    for number, record in enumerate(traffic.rows(count, seed=3)):
        at_ms = 36_000_000 + number * 500
        if number % 500 >= 400:
            record |= {"amount": 5e6 + number, "merchant": {"country": "DE" if number % 9 else "US"}}
        if number % 37 == 5:
            record["channel"] = "carrier pigeon"
        if number % 101 == 7:
            at_ms += 10**9
        record["at"] = f"2026-01-{9 + at_ms // 86_400_000:02d}T" + _clock(at_ms % 86_400_000)
        place = number % partitions
        key = None if number % 3 else str(number % 5).encode()
        found.append(Message("in", place, number // partitions, 1_767_225_600_000, key, orjson.dumps(record)))
    return found


def _clock(ms: int) -> str:
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}.{ms % 1000:03d}Z"


def process(pipeline: Pipeline, messages: Sequence[Message], size: int = 4096) -> list[Outcome]:
    return [pipeline.process(messages[i : i + size]) for i in range(0, len(messages), size)]


def alerts(outcomes: Sequence[Outcome]) -> list[bytes]:
    return [encode_alert(alert) for outcome in outcomes for alert in outcome.alerts]


def counts(outcomes: Sequence[Outcome]) -> tuple[Counter[str], int, int]:
    suppressed = sum((Counter(outcome.suppressed) for outcome in outcomes), Counter[str]())
    return suppressed, sum(outcome.collapsed for outcome in outcomes), sum(outcome.withheld for outcome in outcomes)


def test_with_all_of_it_on_alerts_are_the_same_bytes_in_every_batch_size(suppression: Suppression) -> None:
    messages = bursts()
    whole = process(make(suppression), messages)
    kinds = Counter(
        (alert.summary and "summary") or (alert.episode and alert.episode.state) for o in whole for alert in o.alerts
    )

    assert {"summary", "opening", "update", "closing"} <= kinds.keys()
    for size in (1, 7, 256):
        parts = process(make(suppression), messages, size)
        assert alerts(parts) == alerts(whole), f"batches of {size}"
        assert counts(parts) == counts(whole)


@pytest.mark.parametrize("border", [1, 333, 700, 1101])
def test_a_restart_in_the_middle_changes_nothing(suppression: Suppression, border: int) -> None:
    messages = bursts()
    undisturbed = alerts(process(make(suppression), messages, 100))
    before, after = make(suppression), make(suppression)
    first = process(before, messages[:border], 100)
    for place in range(2):
        partition = Partition("in", place)
        state = before.threshold(partition).state()._replace(head=_saved_and_read(before.head(partition)))
        after.restore(partition, state)

    assert alerts([*first, *process(after, messages[border:], 100)]) == undisturbed


def _saved_and_read(head: bytes) -> bytes:
    saved = Head("00" * 8, None, 0, "v", "f", {}, 0, 0, head)
    return decode_head(saved.encode()).threshold


def test_every_record_above_its_threshold_has_an_alert_or_is_counted_once(suppression: Suppression) -> None:
    outcomes = process(make(suppression), bursts())
    suppressed, collapsed, withheld = counts(outcomes)
    own = sum(alert.of_one_record for outcome in outcomes for alert in outcome.alerts)

    assert suppressed.keys() == {"pigeons", "large-at-ten"}
    assert min(*suppressed.values(), collapsed, withheld, own) > 3
    assert own + suppressed.total() + collapsed + withheld == sum(int(o.scores.alert.sum()) for o in outcomes)


def test_scores_and_thresholds_do_not_depend_on_it(suppression: Suppression) -> None:
    (plain,) = process(make(hygiene=HygieneOptions()), bursts())
    (clean,) = process(make(suppression), bursts())

    assert list(encode_scores(clean.scores)) == list(encode_scores(plain.scores))
    assert clean.next_offsets == plain.next_offsets


def test_its_alerts_follow_the_published_schema_and_their_ids_differ(suppression: Suppression) -> None:
    documents = [orjson.loads(value) for value in alerts(process(make(suppression), bursts()))]

    for document in documents:
        VALID_ALERT.validate(document)
        of_many = "summary" in document or document["episode"]["state"] == "closing"
        assert (document["record"] is None, document["explanation"] == []) == (of_many, of_many)
    assert len({document["alert_id"] for document in documents}) == len(documents)


def test_off_it_leaves_each_alert_as_it_is_and_the_state_as_small() -> None:
    pipeline = make(hygiene=HygieneOptions())
    (outcome,) = process(pipeline, bursts())

    assert len(outcome.alerts) == int(outcome.scores.alert.sum())
    assert all(alert.episode is None and alert.summary is None for alert in outcome.alerts)
    assert counts([outcome]) == (Counter(), 0, 0)
    assert pipeline.head(Partition("in", 0)) == pipeline.threshold(Partition("in", 0)).head()


def test_a_partition_that_was_forgotten_or_restored_without_episodes_has_none() -> None:
    partition = Partition("in", 0)
    pipeline = make()
    process(pipeline, bursts())
    episodes = orjson.loads(pipeline.head(partition))["hygiene"]["episodes"]
    pipeline.restore(partition, pipeline.threshold(partition).state())
    restored = orjson.loads(pipeline.head(partition))["hygiene"]["episodes"]
    process(pipeline, bursts())
    pipeline.forget([partition])

    assert len(episodes) > 0
    assert restored == []
    assert orjson.loads(pipeline.head(partition))["hygiene"]["episodes"] == []


def test_an_episode_goes_on_across_a_model_swap() -> None:
    pipeline = make(hygiene=replace(HYGIENE, max_per_minute=0))
    burst = [message for number, message in enumerate(bursts(partitions=1)) if 400 <= number < 490 and number != 411]
    (before,) = process(pipeline, burst[:40])
    pipeline.swap(Model(traffic.bundle(1)))
    (after,) = process(pipeline, burst[40:])

    states = [alert.episode.state for alert in (*before.alerts, *after.alerts) if alert.episode]
    assert Counter(states) == {"opening": 2, "update": 2}
    assert after.collapsed > 10


def test_severity_and_tail_probability_come_from_the_threshold_policy() -> None:
    (outcome,) = process(make(hygiene=HygieneOptions()), traffic.messages(1000))
    tails = [alert.tail_probability or 0 for alert in outcome.alerts]

    assert 0 < min(tails) < max(tails) < 0.05
    assert [alert.severity for alert in outcome.alerts] == [severity(tail) for tail in tails]
    assert len({alert.severity for alert in outcome.alerts}) > 1


def test_the_settings_reach_the_pipeline(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text('[rules.web]\nfield = "channel"\nvalues = ["web"]', encoding="utf-8")
    chosen = AlertSettings(dedup_key=("channel",), cooldown_s=60, suppression_file=str(path), max_per_minute=5)
    (outcome,) = process(make_pipeline(Settings(alerts=chosen), model()), bursts(partitions=1))

    assert outcome.suppressed["web"] > 0
    assert outcome.collapsed > 0
    assert all(alert.episode is not None for alert in outcome.alerts if alert.summary is None)


def test_a_rule_for_a_field_that_the_model_lacks_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text('[rules.typo]\nfield = "amuont"', encoding="utf-8")

    with pytest.raises(SettingsError, match="'typo': the model has no field 'amuont'"):
        make_pipeline(Settings(alerts=AlertSettings(suppression_file=str(path))), model())
