"""Whether the topics of a worker take what it will write, found out before it writes anything."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

from kafka import errors as kafka_errors
from kafka.admin import ConfigResource, ConfigResourceType

from worker.broker.admin import creates_topics
from worker.broker.client import Connection, admin_client, asked, build_producer, quietly
from worker.broker.limits import RecordLimits
from worker.errors import BrokerUnavailable, FatalError, MissingTopic, SettingsError

MIN_RECORD_BYTES: Final = 2_048  # of a topic of results: what is left of one after all that is long was left out
_MAX_BYTES, _POLICY = "max.message.bytes", "cleanup.policy"
_CREATE_MS: Final = 5_000


class TopicFacts(NamedTuple):
    """What the broker tells this user of a topic.

    exists     False: there is none, or the user may not know of it
    denied     the user may not even know whether it exists
    rights     READ, WRITE, DESCRIBE, …; None where it isn't told
    settings   max.message.bytes and cleanup.policy, where they are told
    """

    exists: bool
    denied: bool
    rights: frozenset[str] | None
    settings: Mapping[str, str]


def topic_facts(connection: Connection, topics: Collection[str]) -> Mapping[str, TopicFacts]:
    """Two questions to the broker. Raises BrokerUnavailable, FatalError."""
    with admin_client(connection) as admin:
        described = asked(
            lambda: admin.describe_topics(list(topics)), connection.connect_timeout_s, "asking for topics"
        )
        settings = _settings(admin, connection, [topic["name"] for topic in described if not topic["error_code"]])
    denied = kafka_errors.TopicAuthorizationFailedError.errno
    facts = {}
    for topic in described:
        name, code, rights = topic["name"], topic["error_code"], topic.get("authorized_operations")
        stated = frozenset(rights) if rights else None
        facts[name] = TopicFacts(not code, code == denied, stated, settings.get(name, {}))
    return {name: facts.get(name, TopicFacts(False, False, None, {})) for name in topics}


def _settings(admin: Any, connection: Connection, topics: Collection[str]) -> Mapping[str, Mapping[str, str]]:
    """By topic, as far as they are told: the right DESCRIBE_CONFIGS can be missing."""
    if not topics:
        return {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name, [_MAX_BYTES, _POLICY]) for name in topics]
    try:
        answer = asked(
            lambda: admin.describe_configs(resources, config_filter="all"),
            connection.connect_timeout_s,
            "asking for the settings of topics",
        )
    except (FatalError, BrokerUnavailable):  # the embedded broker ends the connection over this question
        return {}
    return {
        name: {key: str(entry["value"]) for key, entry in entries.items() if entry.get("value") is not None}
        for name, entries in answer.get("topic", {}).items()
    }


class Topics(NamedTuple):
    """The topics of a worker: those that are only read, those of results, and that of checkpoints."""

    reads: Sequence[str]
    results: Sequence[str]
    state: str | None = None

    @property
    def needs(self) -> Mapping[str, Sequence[str]]:
        """The rights that it takes, by topic."""
        needs = {**dict.fromkeys(self.reads, ("READ",)), **dict.fromkeys(self.results, ("WRITE",))}
        return needs if self.state is None else {**needs, self.state: ("READ", "WRITE")}


def require_topics(connection: Connection, topics: Topics, limits: RecordLimits) -> None:
    """Tells `limits` what the topics take; creates missing ones of results where the broker does that for a client.

    Raises MissingTopic where it doesn't (somebody may create it yet), FatalError that names topic and right where one
    is missing, SettingsError where a topic's settings refuse results; BrokerUnavailable.
    """
    facts = topic_facts(connection, topics.needs)
    require_rights(topics, facts)
    for name in topics.results:
        if not facts[name].exists:
            _create(connection, name)
    max_bytes = {name: fact.settings[_MAX_BYTES] for name, fact in facts.items() if _MAX_BYTES in fact.settings}
    limits.tell({name: int(text) for name, text in max_bytes.items()})


def require_rights(topics: Topics, facts: Mapping[str, TopicFacts]) -> None:
    """FatalError that names topic and right where one is missing, SettingsError where a topic can't hold results."""
    for name, rights in topics.needs.items():
        stated = facts[name].rights
        lacking = [right for right in rights if facts[name].denied or (stated is not None and right not in stated)]
        if lacking:
            raise FatalError(
                f"this user may not use the topic {name}: it needs the right {' and '.join(lacking)} on it"
            )
    for name in topics.results:
        _require_settings(name, facts[name])


def _require_settings(name: str, facts: TopicFacts) -> None:
    """SettingsError where a topic refuses results, or forgets them."""
    policy, max_bytes = facts.settings.get(_POLICY, ""), int(facts.settings.get(_MAX_BYTES, MIN_RECORD_BYTES))
    if "compact" in policy:
        raise SettingsError(
            f"the topic {name} has {_POLICY}={policy}: it refuses results without a key and keeps only the last of a "
            f"key; set {_POLICY}=delete"
        )
    if max_bytes < MIN_RECORD_BYTES:
        raise SettingsError(
            f"the topic {name} has {_MAX_BYTES}={max_bytes}: without all that is long in it a result can have "
            f"{MIN_RECORD_BYTES} bytes; raise its {_MAX_BYTES}"
        )


def _create(connection: Connection, topic: str) -> None:
    """Asks for a topic in the way that makes a broker create it, where it creates topics at all."""
    missing = f"the topic {topic} does not exist"
    if creates_topics(connection) is False:
        raise MissingTopic(f"{missing}, and the broker does not create it: somebody has to")
    producer = build_producer(connection, max_block_ms=_CREATE_MS)
    try:
        asked(lambda: producer.partitions_for(topic), connection.connect_timeout_s, f"creating topic {topic}")
    except BrokerUnavailable as error:
        raise MissingTopic(f"{missing}, and asking for it did not create it: {error}") from error
    except FatalError as error:
        raise FatalError(f"{missing}, and this user may not create it: {error}") from error
    finally:
        quietly(lambda: producer.close(timeout=1), 2.0, "closing a producer")
