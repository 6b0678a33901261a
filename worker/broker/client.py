"""Kafka clients from plain values: one way to connect, defaults for large batches, and errors that are ours.

Defaults of kafka-python that are changed, and why:
- enable_auto_commit off: offsets are committed after the results are acknowledged, never by a timer.
- auto_offset_reset "none": a missing offset and one out of range look the same to the client's own policies.
  The consumer decides about each (worker.broker.consumer).
- max_poll_interval_ms 2 minutes: a rebalance waits that long for a member that the broker believes in and nobody sees
  any more. Apache Kafka 4.3.1 has such after a crash (worker.broker.watermark): for 5 minutes by its default.
- fetches of megabytes: with 1 MiB fetches and 500 records a poll, a record costs several times more CPU.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import kafka
from kafka.net.compat import KafkaNetClient

from worker.broker.deadline import bounded
from worker.broker.translate import translate
from worker.errors import BrokerUnavailable, SettingsError
from worker.texts import did_you_mean

CONSUMER_DEFAULTS: Final[Mapping[str, Any]] = {
    "enable_auto_commit": False,
    "auto_offset_reset": "none",
    "allow_auto_create_topics": False,
    "max_poll_records": 8192,
    "max_poll_interval_ms": 120_000,
    "fetch_max_bytes": 32 << 20,
    "max_partition_fetch_bytes": 8 << 20,
    "metadata_max_age_ms": 30_000,  # a topic that is created after the worker started is read 30 s later, not 5 min
    "reconnect_backoff_max_ms": 2_000,
}
PRODUCER_DEFAULTS: Final[Mapping[str, Any]] = {
    "acks": "all",
    "enable_idempotence": True,
    "linger_ms": 5,
    "batch_size": 256 << 10,
    "max_request_size": 64 << 20,  # the broker decides what is too large
    "max_block_ms": 15_000,
    "request_timeout_ms": 15_000,
    "delivery_timeout_ms": 30_000,
    "reconnect_backoff_max_ms": 2_000,
}
ADMIN_DEFAULTS: Final[Mapping[str, Any]] = {"reconnect_backoff_max_ms": 2_000}

_CLASSES: Final = (kafka.KafkaConsumer, kafka.KafkaProducer, kafka.KafkaAdminClient)
_RESERVED: Final = {
    "bootstrap_servers": "kafka.bootstrap_servers",
    "group_id": "kafka.group_id",
    "transactional_id": "delivery",
    "enable_auto_commit": "nothing: offsets are committed after the results are acknowledged",
    "auto_offset_reset": "WORKER_KAFKA__START_FROM and WORKER_KAFKA__OFFSET_OUT_OF_RANGE",
    "acks": "nothing: every in-sync replica has to acknowledge",
    "kafka_client": "nothing",
    "key_deserializer": "nothing",
    "value_deserializer": "nothing",
    "key_serializer": "nothing",
    "value_serializer": "nothing",
}


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach the broker, the same for every client.

    options: kafka-python keywords for every client that knows them (TLS, SASL, timeouts); checked on creation.
    connect_timeout_s: a client that can't be built within it raises BrokerUnavailable.
    Raises SettingsError for an option that no client knows, that the worker sets itself, or of the wrong type.
    """

    bootstrap_servers: str
    client_id: str = "anomaly-worker"
    options: Mapping[str, Any] = field(default_factory=dict)
    connect_timeout_s: float = 30.0

    def __post_init__(self) -> None:
        check_options(self.options)


def check_options(options: Mapping[str, Any]) -> None:
    """Raises SettingsError naming the first option that is unknown, reserved, of the wrong type or a missing file."""
    known = {name: default for client in _CLASSES for name, default in client.DEFAULT_CONFIG.items()}
    for name, value in options.items():
        if name in _RESERVED:
            raise SettingsError(f"kafka.options: {name} can't be set here; use {_RESERVED[name]}")
        if name not in known:
            raise SettingsError(f"kafka.options: no Kafka client knows {name!r}{did_you_mean(name, known)}")
        _check_type(name, value, known[name])
        if name in {"ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_crlfile"} and not Path(str(value)).is_file():
            raise SettingsError(f"kafka.options: {name}={value!r} is not a file")


def _check_type(name: str, value: Any, default: Any) -> None:
    if isinstance(default, bool):
        right = isinstance(value, bool)
    elif isinstance(default, int | float):
        right = isinstance(value, int | float) and not isinstance(value, bool)
    elif isinstance(default, str):
        right = isinstance(value, str)
    else:
        return
    if not right:
        raise SettingsError(f"kafka.options: {name}={value!r} must be of type {type(default).__name__}")


def build_consumer(connection: Connection, **config: Any) -> Any:
    """A kafka.KafkaConsumer. Raises BrokerUnavailable within the connect timeout, SettingsError, FatalError."""
    return _build(
        kafka.KafkaConsumer, connection, {**CONSUMER_DEFAULTS, **_known(kafka.KafkaConsumer, connection), **config}
    )


def build_producer(connection: Connection, **config: Any) -> Any:
    """A kafka.KafkaProducer. Raises BrokerUnavailable within the connect timeout, SettingsError, FatalError."""
    return _build(
        kafka.KafkaProducer, connection, {**PRODUCER_DEFAULTS, **_known(kafka.KafkaProducer, connection), **config}
    )


def build_admin(connection: Connection) -> Any:
    """A kafka.KafkaAdminClient. Raises BrokerUnavailable within the connect timeout, SettingsError, FatalError."""
    return _build(kafka.KafkaAdminClient, connection, {**ADMIN_DEFAULTS, **_known(kafka.KafkaAdminClient, connection)})


def _known(client: Any, connection: Connection) -> dict[str, Any]:
    return {name: value for name, value in connection.options.items() if name in client.DEFAULT_CONFIG}


def _build(client: Callable[..., Any], connection: Connection, config: Mapping[str, Any]) -> Any:
    """Builds a client within the connect timeout; one that fails half-way leaves no thread and no socket behind."""
    parts: list[Any] = []

    def remember(**kwargs: Any) -> Any:
        parts.append(KafkaNetClient(**kwargs))
        return parts[-1]

    timeout_s = connection.connect_timeout_s
    # A consumer option such as request_timeout_ms can be shorter than the connect timeout, never the reverse.
    own = {
        "bootstrap_servers": [server.strip() for server in connection.bootstrap_servers.split(",")],
        "client_id": connection.client_id,
        "bootstrap_timeout_ms": int(timeout_s * 1000),
        "kafka_client": remember,
    }
    action = f"connecting to {connection.bootstrap_servers}"
    try:
        return bounded(lambda: client(**{**config, **own}), timeout_s + 5.0, action)
    except Exception as error:
        for part in parts:
            _close_quietly(part)
        if isinstance(error, ValueError | TypeError):  # the client's own checks of its configuration
            raise SettingsError(f"kafka.options: {error}") from error
        raise translate(error, action) from error


def _close_quietly(part: Any) -> None:
    try:
        bounded(part.close, 2.0, "closing a client")
    except (BrokerUnavailable, RuntimeError, OSError):
        return
