"""A topic that can't take results: found out before anything is published, and named with what is missing."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from devtools import traffic
from devtools.brokers import produce, produce_values, read_all, values_of
from devtools.sites import Site
from tests.faults.secure import SecureBroker
from worker.broker.admin import ensure_topics
from worker.broker.client import Connection
from worker.broker.consumer import GroupConsumer
from worker.broker.delivery import AtLeastOnce, ExactlyOnce
from worker.broker.limits import RecordLimits
from worker.broker.producer import AcknowledgedProducer, TransactionalKafkaProducer
from worker.broker.topics import Topics, require_topics
from worker.errors import FatalError, MissingTopic, SettingsError
from worker.records import Outgoing, Partition

pytestmark = [
    pytest.mark.broker,
    pytest.mark.kafka,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl"),
]
WRITE = "needs the right WRITE on it"
REFUSED = {
    "denied to write": ("results", ("WRITE",), {}, FatalError, WRITE),
    "denied to see": ("results", ("DESCRIBE",), {}, FatalError, WRITE),
    "denied altogether": ("results", ("ALL",), {}, FatalError, WRITE),
    "denied to read": ("reads", ("READ",), {}, FatalError, "needs the right READ on it"),
    "state that is denied to write": ("state", ("WRITE",), {}, FatalError, WRITE),
    "state that is denied to read": ("state", ("READ",), {}, FatalError, "needs the right READ on it"),
    "missing": ("results", None, {}, MissingTopic, "does not exist, and the broker does not create it"),
    "compacted": ("results", (), {"cleanup.policy": "compact"}, SettingsError, "set cleanup.policy=delete"),
    "compacted and deleted": ("results", (), {"cleanup.policy": "compact,delete"}, SettingsError, "cleanup.policy"),
    "for tiny records": ("results", (), {"max.message.bytes": "500"}, SettingsError, "raise its max.message.bytes"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_topic_that_refuses_is_named_with_what_is_missing(secure_broker: SecureBroker, group: str, what: str) -> None:
    part, denied, settings, error, words = REFUSED[what]
    plain, topic = Connection(secure_broker.bootstrap_servers), f"refuses-{group}"
    ensure_topics(plain, {f"takes-{group}": 1})
    if denied is not None:
        ensure_topics(plain, {topic: 1}, settings)
    if denied:
        secure_broker.deny(topic, *denied)
    topics: dict[str, Any] = {"reads": [], "results": [f"takes-{group}"], "state": None}
    topics[part] = topic if part == "state" else [topic]
    link = Connection(secure_broker.scram, options=secure_broker.scram_options())

    with pytest.raises(error, match=words) as caught:
        require_topics(link, Topics(**topics), RecordLimits())

    assert topic in str(caught.value)


@pytest.mark.parametrize("settings", [{}, {"max.message.bytes": "5000"}])
def test_a_topic_that_takes_results_says_how_large_they_may_be(
    secure_broker: SecureBroker, group: str, settings: Mapping[str, str]
) -> None:
    ensure_topics(Connection(secure_broker.bootstrap_servers), {f"takes-{group}": 1}, settings)
    link, limits = Connection(secure_broker.scram, options=secure_broker.scram_options()), RecordLimits()

    require_topics(link, Topics([], [f"takes-{group}"]), limits)

    assert limits.max_record_bytes(f"takes-{group}") == int(settings.get("max.message.bytes", 1_048_588))


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_a_topic_that_is_denied_during_work_stops_it_with_topic_and_right(
    secure_broker: SecureBroker, group: str, guarantee: str
) -> None:
    plain = Connection(secure_broker.bootstrap_servers)
    link = Connection(secure_broker.scram, options=secure_broker.scram_options())
    source, denied = f"in-{group}", f"out-{group}"
    ensure_topics(plain, {source: 1, denied: 1})
    produce_values(plain, source, [b"0"])
    consumer = GroupConsumer(link, [source], group, read_committed=True)
    while not consumer.poll(200, 1):
        pass
    delivery: AtLeastOnce | ExactlyOnce = (
        AtLeastOnce(consumer, lambda: AcknowledgedProducer(link))
        if guarantee == "at_least_once"
        else ExactlyOnce(consumer, lambda: TransactionalKafkaProducer(link, group))
    )
    delivery.open()
    secure_broker.deny(denied, "WRITE")

    with pytest.raises(FatalError, match="WRITE on one that is written") as caught:
        delivery.publish([Outgoing(denied, None, b"1")], {Partition(source, 0): 1})

    assert denied in str(caught.value)
    assert consumer.committed([Partition(source, 0)]) == {Partition(source, 0): None}
    delivery.close(1)
    consumer.close(1)


def test_restarts_repeat_nothing_while_the_alerts_topic_is_denied(
    secure_broker: SecureBroker, make_site: Callable[[Mapping[str, str]], Site], tmp_path: Path
) -> None:
    site = make_site(secure_broker.scram_settings(tmp_path))
    site.put_model()
    secure_broker.deny(site.alerts, "WRITE")
    produce(site.connection, [Outgoing(site.input_topic, m.key, m.value) for m in traffic.messages(300)])

    ends = [site.run("run") for _ in range(2)]
    checked = site.run("check")

    for end in ends:
        *_, last = end.stderr.splitlines()
        assert end.returncode == 1
        assert last == f"error: this user may not use the topic {site.alerts}: it needs the right WRITE on it"
    assert values_of(read_all(site.connection, site.scores)) == []
    assert checked.returncode == 1
    assert f"the topic {site.alerts}: it needs the right WRITE" in checked.stdout
