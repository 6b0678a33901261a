"""Groups, silences and the rate limit in the pipeline: the same whatever the batching, and across restarts."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from devtools import traffic
from devtools.grouping import GROUPING, bursts, make, model
from devtools.score_streams import state_of
from tests.contracts import VALID_ALERT
from worker.alerts.encode import encode_alert, encode_scores
from worker.alerts.grouping import GroupingOptions
from worker.alerts.silences import Silences, load_silences
from worker.errors import SettingsError
from worker.pipeline import Model, Pipeline
from worker.processes.wiring import make_pipeline
from worker.records import Message, Outcome, Partition
from worker.settings import AlertSettings, Settings
from worker.stream.checkpoint_format import CheckpointHead, decode_head
from worker.thresholds.severity import SEVERITIES, level_of

SILENCES = """
[silences.pigeons]
field = "channel"
values = ["carrier pigeon"]
[silences.large-at-ten]
field = "amount"
direction = "above"
daily = "10:03-10:04"
"""


@pytest.fixture
def silences(tmp_path: Path) -> Silences:
    path = tmp_path / "silences.toml"
    path.write_text(SILENCES, encoding="utf-8")
    return load_silences(path)


def process(pipeline: Pipeline, messages: Sequence[Message], size: int = 4096) -> list[Outcome]:
    return [pipeline.process(messages[i : i + size]) for i in range(0, len(messages), size)]


def alerts(outcomes: Sequence[Outcome]) -> list[bytes]:
    return [encode_alert(alert) for outcome in outcomes for alert in outcome.alerts]


def counts(outcomes: Sequence[Outcome]) -> tuple[Counter[str], int, int]:
    silenced = sum((Counter(outcome.silenced) for outcome in outcomes), Counter[str]())
    return silenced, sum(outcome.grouped for outcome in outcomes), sum(outcome.rate_limited for outcome in outcomes)


def test_with_all_of_it_on_alerts_are_the_same_bytes_in_every_batch_size(silences: Silences) -> None:
    messages = bursts()
    whole = process(make(silences), messages)
    kinds = Counter(
        (alert.summary and "summary") or (alert.group and alert.group.state) for o in whole for alert in o.alerts
    )

    assert {"summary", "opening", "update", "closing"} <= kinds.keys()
    for size in (1, 7, 256):
        parts = process(make(silences), messages, size)
        assert alerts(parts) == alerts(whole), f"batches of {size}"
        assert counts(parts) == counts(whole)


@pytest.mark.parametrize("border", [1, 333, 700, 1101])
def test_a_restart_in_the_middle_changes_nothing(silences: Silences, border: int) -> None:
    messages = bursts()
    undisturbed = alerts(process(make(silences), messages, 100))
    before, after = make(silences), make(silences)
    first = process(before, messages[:border], 100)
    for place in range(2):
        partition = Partition("in", place)
        state = state_of(before.threshold(partition))._replace(head=_saved_and_read(before.head(partition)))
        after.restore(partition, state)

    assert alerts([*first, *process(after, messages[border:], 100)]) == undisturbed


def _saved_and_read(head: bytes) -> bytes:
    saved = CheckpointHead("g|in|0|", None, False, "00" * 8, None, 0, "v", "f", {}, 0, 0, head)
    return decode_head(saved.encode()).threshold


def test_every_record_above_its_threshold_has_an_alert_or_is_counted_once(silences: Silences) -> None:
    outcomes = process(make(silences), bursts())
    silenced, grouped, rate_limited = counts(outcomes)
    own = sum(alert.of_one_record for outcome in outcomes for alert in outcome.alerts)

    assert silenced.keys() == {"pigeons", "large-at-ten"}
    assert min(*silenced.values(), grouped, rate_limited, own) > 0
    assert own + silenced.total() + grouped + rate_limited == sum(int(o.scores.alert.sum()) for o in outcomes)


def test_scores_and_thresholds_do_not_depend_on_it(silences: Silences) -> None:
    (plain,) = process(make(grouping=GroupingOptions()), bursts())
    (clean,) = process(make(silences), bursts())

    assert list(encode_scores(clean.scores)) == list(encode_scores(plain.scores))
    assert clean.next_offsets == plain.next_offsets


def test_its_alerts_follow_the_published_schema_and_their_ids_differ(silences: Silences) -> None:
    documents = [orjson.loads(value) for value in alerts(process(make(silences), bursts()))]

    for document in documents:
        VALID_ALERT.validate(document)
        of_many = "summary" in document or document["group"]["state"] == "closing"
        assert (document["record"] is None, document["explanation"] == []) == (of_many, of_many)
    assert len({document["alert_id"] for document in documents}) == len(documents)


def test_off_it_leaves_each_alert_as_it_is_and_the_state_as_small() -> None:
    pipeline = make(grouping=GroupingOptions())
    (outcome,) = process(pipeline, bursts())

    assert len(outcome.alerts) == int(outcome.scores.alert.sum())
    assert all(alert.group is None and alert.summary is None for alert in outcome.alerts)
    assert counts([outcome]) == (Counter(), 0, 0)
    assert pipeline.head(Partition("in", 0)) == pipeline.threshold(Partition("in", 0)).head()


def test_a_partition_that_was_forgotten_or_restored_without_groups_has_none() -> None:
    partition = Partition("in", 0)
    pipeline = make()
    process(pipeline, bursts())
    groups = orjson.loads(pipeline.head(partition))["grouping"]["groups"]
    pipeline.restore(partition, state_of(pipeline.threshold(partition)))
    restored = orjson.loads(pipeline.head(partition))["grouping"]["groups"]
    process(pipeline, bursts())
    pipeline.forget([partition])

    assert len(groups) > 0
    assert restored == []
    assert orjson.loads(pipeline.head(partition))["grouping"]["groups"] == []


def test_a_group_goes_on_across_a_model_swap() -> None:
    pipeline = make(grouping=replace(GROUPING, max_per_minute=0))
    burst = [message for number, message in enumerate(bursts(partitions=1)) if 400 <= number < 490 and number != 411]
    (before,) = process(pipeline, burst[:40])
    pipeline.swap(Model(traffic.bundle(1)))
    (after,) = process(pipeline, burst[40:])

    states = [alert.group.state for alert in (*before.alerts, *after.alerts) if alert.group]
    assert Counter(states) == {"opening": 2, "update": 2}
    assert after.grouped > 10


def test_severity_and_tail_probability_come_from_the_threshold_policy() -> None:
    (outcome,) = process(make(grouping=GroupingOptions()), traffic.messages(1000))
    tails = [alert.tail_probability or 0 for alert in outcome.alerts]

    assert 0 < min(tails) < max(tails) < 0.05
    assert [alert.severity for alert in outcome.alerts] == [SEVERITIES[level_of(tail)] for tail in tails]
    assert len({alert.severity for alert in outcome.alerts}) > 1


def test_the_settings_reach_the_pipeline(tmp_path: Path) -> None:
    path = tmp_path / "silences.toml"
    path.write_text('[silences.web]\nfield = "channel"\nvalues = ["web"]', encoding="utf-8")
    chosen = AlertSettings(group_by=("channel",), cooldown_s=60, silences_file=str(path), max_per_minute=5)
    (outcome,) = process(make_pipeline(Settings(alerts=chosen), model()), bursts(partitions=1))

    assert outcome.silenced["web"] > 0
    assert outcome.grouped > 0
    assert all(alert.group is not None for alert in outcome.alerts if alert.summary is None)


def test_a_silence_for_a_field_that_the_model_lacks_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "silences.toml"
    path.write_text('[silences.typo]\nfield = "amuont"', encoding="utf-8")

    with pytest.raises(SettingsError, match="'typo': the model has no field 'amuont'"):
        make_pipeline(Settings(alerts=AlertSettings(silences_file=str(path))), model())
