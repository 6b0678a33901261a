"""Topics: which exist, and creating those that don't."""

import contextlib
from collections.abc import Collection, Mapping
from typing import Any

from kafka import errors as kafka_errors

from worker.broker.client import Connection, build_admin
from worker.broker.deadline import bounded
from worker.broker.translate import translated
from worker.errors import MissingTopic, WorkerError


def topic_partitions(connection: Connection) -> Mapping[str, int]:
    """The number of partitions of every topic that this user may see. Raises BrokerUnavailable, FatalError."""
    admin = build_admin(connection)
    try:
        with translated("listing topics"):
            topics = bounded(admin.describe_topics, connection.connect_timeout_s, "listing topics")
    finally:
        close_admin(admin)
    return {topic["name"]: len(topic["partitions"]) for topic in topics if not topic["error_code"]}


def require_topics(connection: Connection, topics: Collection[str]) -> None:
    """Raises MissingTopic naming the topics that don't exist; BrokerUnavailable, FatalError."""
    missing = sorted(set(topics) - set(topic_partitions(connection)))
    if missing:
        raise MissingTopic(f"no such topic on {connection.bootstrap_servers}: {', '.join(missing)}")


def ensure_topics(
    connection: Connection, topics: Mapping[str, int], configs: Mapping[str, str] | None = None, replication: int = -1
) -> None:
    """Creates the topics that don't exist, with their number of partitions; existing ones stay as they are.

    configs: broker settings of the new topics. replication: -1 is the broker's default.
    Returns when they can be used. Raises BrokerUnavailable, FatalError.
    """
    admin = build_admin(connection)
    try:
        for name, partitions in topics.items():
            spec = {"num_partitions": partitions, "replication_factor": replication, "configs": dict(configs or {})}
            _create(admin, name, spec, connection.connect_timeout_s)
    finally:
        close_admin(admin)


def _create(admin: Any, name: str, spec: Mapping[str, Any], timeout_s: float) -> None:
    def create() -> None:
        try:
            admin.create_topics({name: spec}, timeout_ms=int(timeout_s * 1000), wait_for_metadata=True)
        except kafka_errors.TopicAlreadyExistsError:
            return

    with translated(f"creating topic {name}"):
        bounded(create, timeout_s, f"creating topic {name}")


def close_admin(admin: Any) -> None:
    """Closes an admin client within 2 s; never raises."""
    with contextlib.suppress(WorkerError, kafka_errors.KafkaError, RuntimeError, OSError):
        bounded(admin.close, 2.0, "closing the admin client")
