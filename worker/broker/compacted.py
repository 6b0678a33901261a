"""A compacted topic: created where it is missing, looked at where it is there."""

from collections.abc import Mapping
from typing import Final

from kafka.admin import ConfigResource, ConfigResourceType

from worker.broker.admin import close_admin, ensure_topics, topic_partitions
from worker.broker.client import Connection, build_admin
from worker.broker.deadline import bounded
from worker.broker.translate import translated
from worker.errors import BrokerUnavailable, FatalError, MissingTopic

COMPACTED: Final[Mapping[str, str]] = {
    "cleanup.policy": "compact",
    "segment.bytes": str(16 << 20),  # the newest segment is never compacted, and a restore reads all of it
    "min.cleanable.dirty.ratio": "0.2",
    "min.compaction.lag.ms": "60000",  # what a crash left half written can still be told from what came before it
}
_POLICY = "cleanup.policy"


def ensure_compacted(connection: Connection, topic: str, like: str) -> str | None:
    """Creates `topic` with as many partitions as `like` has, where it is missing; says what is wrong with it, if so.

    Raises MissingTopic (there is no `like` yet), BrokerUnavailable, FatalError (it may not be created; the message says
    what to do).
    """
    known = topic_partitions(connection)
    if topic not in known:
        if like not in known:
            raise MissingTopic(f"no such topic on {connection.bootstrap_servers}: {like}")
        try:
            ensure_topics(connection, {topic: known[like]}, COMPACTED)
        except FatalError as error:
            raise FatalError(
                f"the topic {topic} is missing and can't be created: create it with {_POLICY}=compact and "
                f"{known[like]} partitions, or do without (WORKER_KAFKA__STATE_TOPIC=); {error}"
            ) from error
        return None
    policy = _cleanup_policy(connection, topic)
    if policy is not None and "compact" not in policy:
        return f"{topic} has {_POLICY}={policy}: it grows, or forgets; set {_POLICY}=compact"
    return None


def _cleanup_policy(connection: Connection, topic: str) -> str | None:
    """None where the broker doesn't tell."""
    admin = build_admin(connection)

    def ask() -> str:
        answer = admin.describe_configs(
            [ConfigResource(ConfigResourceType.TOPIC, topic, [_POLICY])], config_filter="all"
        )
        return str(answer["topic"][topic][_POLICY]["value"])

    try:
        with translated("asking for the settings of a topic"):
            return bounded(ask, connection.connect_timeout_s, "asking for the settings of a topic")
    except (FatalError, BrokerUnavailable, LookupError):
        return None
    finally:
        close_admin(admin)
