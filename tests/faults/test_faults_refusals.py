"""What a broker refuses for good ends a process with the broker's reason; one that is only away is waited for."""

import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from devtools.brokers import eventually, free_ports
from devtools.sites import Site
from tests.faults.secure import PASSWORD, Certificates, SecureBroker
from worker.broker import client
from worker.broker.admin import ensure_topics
from worker.broker.client import Connection, Welcome, build_consumer, build_producer, translate
from worker.broker.consumer import GroupConsumer
from worker.errors import BrokerUnavailable, FatalError, SettingsError, WorkerError

pytestmark = [
    pytest.mark.broker,
    pytest.mark.kafka,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl"),
]
Options = dict[str, Any]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker is asked for its reason at once."""
    monkeypatch.setattr(client, "_FIRST_PROBE_S", 0.1)
    monkeypatch.setattr(client, "_SECOND_PROBE_S", 0.1)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("foreign") / "tls")


def refused(broker: SecureBroker, foreign: Certificates) -> Mapping[str, tuple[str, Mapping[str, Any], str]]:
    """Address, options and the words of the refusal."""
    scram = dict(broker.scram_options())
    plain: Options = {"security_protocol": "SASL_PLAINTEXT"}
    tls: Options = {"security_protocol": "SSL", "ssl_cafile": str(broker.certificates.ca)}
    certificate: Options = {"ssl_certfile": str(foreign.client), "ssl_keyfile": str(foreign.client_key)}
    return {
        "a wrong password": (broker.scram, broker.scram_options("wrong"), "invalid credentials"),
        "an unknown user": (broker.scram, broker.scram_options(user="nobody"), "invalid credentials"),
        "another mechanism": (broker.scram, scram | {"sasl_mechanism": "PLAIN"}, "takes sasl_mechanism SCRAM-SHA-256"),
        "a foreign authority": (broker.scram, scram | {"ssl_cafile": str(foreign.ca)}, "check ssl_cafile"),
        "no client certificate": (broker.mutual, tls, "See ssl_certfile"),
        "a foreign client certificate": (
            broker.mutual,
            tls | certificate | {"ssl_password": "staple-of-the-key"},
            "See ssl_certfile",
        ),
        "a wrong password of the key": (broker.mutual, tls | certificate | {"ssl_password": "no"}, "a TLS file"),
        "clear text to TLS": (broker.mutual, {}, "this port speaks TLS"),
        "a login in clear text to TLS": (broker.scram, scram | plain, "this port speaks TLS"),
        "TLS to clear text": (broker.bootstrap_servers, tls, "this port speaks no TLS"),
        "a login where none is wanted": (broker.bootstrap_servers, scram | plain, "this port wants no login"),
        "a login over TLS where none is wanted": (
            broker.mutual,
            scram | certificate | {"ssl_password": "staple-of-the-key"},
            "See ssl_certfile",
        ),
        "no login where one is wanted": (broker.token, {}, "wants a login"),
        "no login over TLS where one is wanted": (broker.scram, tls, "wants a login"),
        "no authority in the file": (broker.scram, scram | {"ssl_cafile": "/etc/hostname"}, "a TLS file is unusable"),
        "one address away, one refuses": (
            f"127.0.0.1:1,{broker.scram}",
            broker.scram_options("wrong"),
            "invalid credentials",
        ),
    }


REFUSED = (
    "a wrong password",
    "an unknown user",
    "another mechanism",
    "a foreign authority",
    "no client certificate",
    "a foreign client certificate",
    "a wrong password of the key",
    "clear text to TLS",
    "a login in clear text to TLS",
    "TLS to clear text",
    "a login where none is wanted",
    "a login over TLS where none is wanted",
    "no login where one is wanted",
    "no login over TLS where one is wanted",
    "no authority in the file",
    "one address away, one refuses",
)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("what", REFUSED)
def test_a_refusal_ends_the_attempt_with_the_reason(
    secure_broker: SecureBroker, foreign: Certificates, what: str
) -> None:
    address, options, words = refused(secure_broker, foreign)[what]

    with pytest.raises(SettingsError, match=words) as caught:
        build_consumer(Connection(address, options=options, connect_timeout_s=10.0))

    assert "wrong" not in str(caught.value)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("servers", ["127.0.0.1:{port}", "127.0.0.1:{port},127.0.0.1:1", "nowhere.invalid:9092"])
def test_a_broker_that_is_only_away_is_waited_for(secure_broker: SecureBroker, servers: str) -> None:
    (port,) = free_ports(1)
    link = Connection(servers.format(port=port), options=secure_broker.scram_options(), connect_timeout_s=1.0)

    with pytest.raises(BrokerUnavailable, match=r"connection refused|unknown here"):
        build_consumer(link)


@pytest.mark.usefixtures("impatient")
def test_one_server_that_lets_the_client_in_is_enough(secure_broker: SecureBroker) -> None:
    options = secure_broker.scram_options()

    build_producer(Connection(f"127.0.0.1:1,{secure_broker.scram}", options=options)).close()


def test_every_command_ends_with_the_reason(
    secure_broker: SecureBroker, make_site: Callable[[Mapping[str, str]], Site], tmp_path: Path
) -> None:
    site = make_site(secure_broker.scram_settings(tmp_path, password="wrong-horse"))
    site.put_model()
    from_topic = ("--topic", site.input_topic)
    commands = [("run",), ("train", "--once"), ("infer-schema", *from_topic), ("replay", *from_topic)]

    processes = [site.start(*command) for command in commands]

    for process in processes:
        assert process.wait(150) == 1, process.log.read_text()
        *_, error = (line for line in process.log.read_text().splitlines() if line.startswith("error: "))
        assert "the broker refuses the login" in error
        assert not process.said("wrong-horse")


def test_a_password_that_is_changed_ends_a_member_with_the_reason(secure_broker: SecureBroker, group: str) -> None:
    ensure_topics(Connection(secure_broker.bootstrap_servers), {f"in-{group}": 1})
    link = Connection(secure_broker.scram, options=secure_broker.scram_options())
    consumer = GroupConsumer(link, [f"in-{group}"], group)
    eventually(lambda: not consumer.poll(100, 1) and consumer.is_member(), 30, "a member")

    try:
        secure_broker.set_password("changed-battery")
        with pytest.raises(FatalError, match="invalid credentials"):
            eventually(lambda: bool(consumer.poll(100, 1)), 60, "an error")
    finally:
        secure_broker.set_password(PASSWORD)
    consumer.close(1)


def test_a_client_that_gets_no_answer_any_more_asks_for_the_reason(
    secure_broker: SecureBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = Connection(secure_broker.scram, options=secure_broker.scram_options("wrong"))
    monkeypatch.setattr(client, "_SECOND_PROBE_S", 0.0)
    monkeypatch.setattr(link.contact, "silence_s", lambda: 6.0)
    welcome = Welcome(link)

    welcome.require()
    with pytest.raises(SettingsError, match="the broker refuses the login"):
        welcome.require()


class Join(NamedTuple):
    """A member that is refused: how it differs from `members` that are in the group already, and what it says."""

    words: str
    error: type[FatalError] = SettingsError
    assignor: str = "range"
    session_timeout_ms: int = 6000
    members: int = 1


JOINS = {
    "another assignor": Join(r"\[kafka.assignor\] has to be the same", assignor="roundrobin"),
    "one member too many": Join(r"group\.max\.size", members=2),
    "a session too short": Join(r"group\.min\.session\.timeout\.ms", session_timeout_ms=400, members=0),
    "a session too long": Join(r"group\.max\.session\.timeout\.ms", session_timeout_ms=3_000_000, members=0),
    "no right": Join("the right READ on the group", FatalError, members=0),
}


@pytest.mark.parametrize("what", JOINS)
def test_a_join_that_is_refused_names_the_cause_and_the_way_out(
    secure_broker: SecureBroker, group: str, what: str
) -> None:
    join, topic, plain = JOINS[what], f"in-{group}", Connection(secure_broker.bootstrap_servers)
    ensure_topics(plain, {topic: 1})
    if what == "no right":
        secure_broker.deny(group, "READ", kind="GROUP")
    members = [GroupConsumer(plain, [topic], group) for _ in range(join.members)]
    eventually(lambda: all_members(members), 30, "members")
    options = {
        **secure_broker.scram_options(),
        "session_timeout_ms": join.session_timeout_ms,
        "heartbeat_interval_ms": 100,
    }
    refused = GroupConsumer(Connection(secure_broker.scram, options=options), [topic], group, assignor=join.assignor)

    with pytest.raises(join.error, match=join.words):
        eventually(lambda: all_members([*members, refused]), 30, "an error")

    for consumer in (*members, refused):
        consumer.close(1)


def all_members(consumers: list[GroupConsumer]) -> bool:
    """Each polls on a thread of its own, for a rebalance needs them all."""
    with ThreadPoolExecutor(max(1, len(consumers))) as threads:
        list(threads.map(lambda consumer: consumer.poll(500, 1), consumers))
    return all(consumer.is_member() for consumer in consumers)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"security_protocol": "TLS"}, "allowed is PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL"),
        ({"security_protocol": "SASL_SSL"}, "needs sasl_mechanism"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "scram"}, "allowed is PLAIN, SCRAM"),
        ({"sasl_mechanism": "PLAIN"}, "needs security_protocol SASL_SSL"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN"}, "needs sasl_plain_username"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"}, r"needs \[oauth.token_file\]"),
        ({"compression_type": "brotli"}, "allowed is gzip, snappy, lz4, zstd"),
        ({"isolation_level": "committed"}, "allowed is read_committed"),
        ({"ssl_context": "default"}, "takes a Python object"),
        ({"sasl_oauth_token_provider": "me"}, r"use \[oauth.token_file\]"),
        ({"group_instance_id": "a"}, r"use \[instance_id\]"),
        ({"partition_assignment_strategy": "range"}, r"use \[kafka.assignor\]"),
        ({"client_dns_lookup": "never"}, "client_dns_lookup must be one of"),
    ],
)
def test_options_that_can_not_work_are_refused_without_a_broker(options: Mapping[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        build_consumer(Connection("127.0.0.1:1", options=options, connect_timeout_s=1.0))


@pytest.mark.parametrize("kind", [OSError("reset"), TimeoutError("late")])
def test_what_passes_is_tried_again(kind: Exception) -> None:
    ours: WorkerError = translate(kind, "asking")

    assert isinstance(ours, BrokerUnavailable)
