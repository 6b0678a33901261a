"""Topics and the broker's settings: which exist, creating those that don't, and what is wrong with them."""

import contextlib
import re
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from kafka import errors as kafka_errors
from kafka.admin import ConfigResource, ConfigResourceType

from worker.broker.client import Connection, admin_client, asked
from worker.broker.probe import complaints_of_client
from worker.broker.topic_names import fitting_topics
from worker.errors import BrokerUnavailable, FatalError, MissingTopic

COMPACTED: Final[Mapping[str, str]] = {
    "cleanup.policy": "compact",
    "segment.bytes": str(16 << 20),  # the newest segment is never compacted, and a restore reads all of it
    "min.cleanable.dirty.ratio": "0.2",
    "min.compaction.lag.ms": "60000",  # what a crash left half written can still be told from what came before it
}
_POLICY = "cleanup.policy"


def topic_partitions(connection: Connection) -> Mapping[str, int]:
    """The number of partitions of every topic that this user may see. Raises BrokerUnavailable, FatalError."""
    with admin_client(connection) as admin:
        topics = asked(admin.describe_topics, connection.connect_timeout_s, "listing topics")
    return {topic["name"]: len(topic["partitions"]) for topic in topics if not topic["error_code"]}


def probe_client(connection: Connection) -> Mapping[str, int]:
    """The number of partitions of every topic, asked for by the Kafka client, for a broker that `probe` has reached.

    Raises BrokerUnavailable with the reason: the client often raises only that it can't connect; why is in its log.
    """
    with complaints_of_client() as complaints:
        try:
            return topic_partitions(connection)
        except (BrokerUnavailable, FatalError) as error:
            of_login = [text for text in complaints if "sasl" in text.lower() or "authenticat" in text.lower()]
            reason = re.sub(r"^.*Error: | \(backoff .*$", "", of_login[-1]) if of_login else ""
            protocol = connection.options.get("security_protocol", "PLAINTEXT")
            raise BrokerUnavailable(
                f"the broker refuses the login: {reason}; check sasl_mechanism and what it needs"
                if of_login
                else f"{error}; the port answers, so check security_protocol (now {protocol}) and that the addresses "
                f"which the broker advertises can be reached from here{': ' + complaints[-1] if complaints else ''}"
            ) from error


def ensure_topics(connection: Connection, topics: Mapping[str, int], configs: Mapping[str, str] | None = None) -> None:
    """Creates the topics that don't exist, with their number of partitions; existing ones stay as they are.

    configs: broker settings of the new topics; as many replicas as the broker's default.
    Returns when they can be used. Raises BrokerUnavailable, FatalError.
    """
    timeout_s = connection.connect_timeout_s
    with admin_client(connection) as admin:

        def create(spec: Mapping[str, Any]) -> None:
            with contextlib.suppress(kafka_errors.TopicAlreadyExistsError):
                admin.create_topics(spec, timeout_ms=int(timeout_s * 1000), wait_for_metadata=True)

        for name, partitions in topics.items():
            spec = {"num_partitions": partitions, "replication_factor": -1, "configs": dict(configs or {})}
            asked(partial(create, {name: spec}), timeout_s, f"creating topic {name}")


def ensure_compacted(connection: Connection, topic: str, like: str) -> str | None:
    """Creates `topic` with as many partitions as `like` has, where it is missing, of several as the one with the
    highest number; says what is wrong with it, if so.

    Raises MissingTopic (there is no `like` yet), BrokerUnavailable, FatalError (it may not be created; the message says
    what to do).
    """
    partitions = topic_partitions(connection)
    if topic in partitions:
        policy = _config(connection, ConfigResourceType.TOPIC, topic, _POLICY)
        if policy is None or "compact" in policy:
            return None
        return f"{topic} has {_POLICY}={policy}: it grows, or forgets; set {_POLICY}=compact"
    counts = [partitions[name] for name in fitting_topics(like, partitions)]
    if not counts:
        raise MissingTopic(f"no such topic on {connection.bootstrap_servers}: {like}")
    try:
        ensure_topics(connection, {topic: max(counts)}, COMPACTED)
    except FatalError as error:
        raise FatalError(
            f"the topic {topic} is missing and can't be created: create it with {_POLICY}=compact and "
            f"{max(counts)} partitions, or do without, with an empty [kafka.state_topic]; {error}"
        ) from error
    return None


def creates_topics(connection: Connection) -> bool | None:
    """Whether the broker creates a topic when a client writes to it; None where it doesn't say.

    Raises BrokerUnavailable, FatalError when no client can be built.
    """
    enabled = _config(connection, ConfigResourceType.BROKER, None, "auto.create.topics.enable")
    return None if enabled is None else enabled == "true"


def _config(connection: Connection, kind: ConfigResourceType, name: str | None, key: str) -> str | None:
    """One setting of a topic, or of any broker; None where it isn't told: not authorised, or no such question."""
    with admin_client(connection) as admin:

        def describe() -> str:
            resource = str(admin.describe_cluster()["brokers"][0]["broker_id"]) if name is None else name
            answer = admin.describe_configs([ConfigResource(kind, resource, [key])], config_filter="all")
            return str(answer[kind.name.lower()][resource][key]["value"])

        try:
            return asked(describe, connection.connect_timeout_s, f"asking for {key}")
        except (FatalError, BrokerUnavailable, LookupError):
            return None
