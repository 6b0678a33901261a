"""Kafka clients from plain values, and around every call of theirs a deadline of its own and errors that are ours.

Defaults of kafka-python that are changed, and why:
- enable_auto_commit off: offsets are committed after the results are acknowledged, never by a timer.
- auto_offset_reset "none": a missing offset and one out of range look the same to the client's own policies.
  The consumer decides about each (worker.broker.consumer).
- max_poll_interval_ms 2 minutes: a rebalance waits that long for a member that the broker believes in and that has
  gone. Apache Kafka 4.3.1 has such members after a crash (worker.broker.assignments): for 5 minutes by its default.
- fetches of megabytes: with 1 MiB fetches and 500 records a poll, a record costs several times more CPU. They follow
  the bytes of a batch (Connection), and so does what a poll hands over (worker.broker.fetching).
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import kafka
from kafka import errors as kafka_errors
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor

from worker import errors
from worker.broker.contact import Contact, watched_client
from worker.broker.fetching import BoundedFetcher, OnUnreadable
from worker.broker.options import require_options
from worker.broker.probe import refusal_of
from worker.broker.record_batch import UnpackLimits
from worker.errors import BrokerUnavailable, FatalError, SettingsError, WorkerError
from worker.registry import Registry

T = TypeVar("T")

RECONNECT_MS: Final = 1_000  # at most between two attempts, as in Kafka's own clients; kafka-python waits up to 30 s
CONSUMER_DEFAULTS: Final[Mapping[str, Any]] = {
    "enable_auto_commit": False,
    "auto_offset_reset": "none",
    "allow_auto_create_topics": False,
    "max_poll_records": 8192,
    "max_poll_interval_ms": 120_000,
    "metadata_max_age_ms": 5_000,  # until a topic that is new, or another one of the same name, is noticed; not 5 min
    "reconnect_backoff_max_ms": RECONNECT_MS,
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
    "reconnect_backoff_max_ms": RECONNECT_MS,
}
ASK_TIMEOUT_MS: Final = 4_000  # an open transaction of a killed owner can take 20 s; meanwhile a stop is heard
_FIRST_PROBE_S: Final = 2.0  # a client that is not built by then may never be
_SECOND_PROBE_S: Final = 3.0
_SILENT_S: Final = 5.0  # an idle client hears from its broker every 2 to 3 s
ADMIN_DEFAULTS: Final[Mapping[str, Any]] = {"reconnect_backoff_max_ms": RECONNECT_MS}

# What the record loop does next, and the client's errors that lead to it; of an error and its bases, the nearest in the
# table decides. Any other KafkaError passes with time: timeouts, elections, lost connections.
_CAUSES: Final[Mapping[type[WorkerError], str]] = {
    errors.CommitRefused: "CommitFailedError RebalanceInProgressError IllegalGenerationError UnknownMemberIdError",
    errors.Fenced: "ProducerFencedError InvalidProducerEpochError",
    errors.Displaced: "FencedInstanceIdError",
    errors.RecordTooLarge: "MessageSizeTooLargeError RecordListTooLargeError",
    errors.OffsetOutOfRange: "OffsetOutOfRangeError LogTruncationError",
    errors.MissingTopic: "UnknownTopicOrPartitionError UnknownTopicIdError",
    SettingsError: "KafkaConfigurationError IllegalArgumentError InvalidSessionTimeoutError InvalidGroupIdError "
    "InvalidTransactionTimeoutError UnsupportedSaslMechanismError InconsistentGroupProtocolError "
    "GroupMaxSizeReachedError",
    FatalError: "AuthorizationError SaslAuthenticationFailedError UnsupportedVersionError UnsupportedCodecError "
    "CorruptRecordError InvalidTopicError PolicyViolationError IllegalStateError",
    BrokerUnavailable: "KafkaError",
}
# What can be done about some of them, in addition to the broker's words.
_ADVICE: Final[Mapping[str, str]] = {
    "InconsistentGroupProtocolError": "the group has members with another assignor or protocol: [kafka.assignor] "
    "has to be the same for all of them, or choose another [kafka.group_id]",
    "GroupMaxSizeReachedError": "run fewer processes in this [kafka.group_id], or raise the broker's group.max.size",
    "InvalidGroupIdError": "choose another [kafka.group_id]",
    "InvalidSessionTimeoutError": "session_timeout_ms in [kafka.options] has to lie between the broker's "
    "group.min.session.timeout.ms and group.max.session.timeout.ms",
    "InvalidTransactionTimeoutError": "raise the broker's transaction.max.timeout.ms",
    "GroupAuthorizationFailedError": "this user needs the right READ on the group [kafka.group_id]",
    "SaslAuthenticationFailedError": "check sasl_plain_username and sasl_plain_password, or where the token comes from",
    "TopicAuthorizationFailedError": "this user needs the right READ on a topic that is read, WRITE on one that is "
    "written",
    "TransactionalIdAuthorizationFailedError": "this user needs the rights WRITE and DESCRIBE on transactional ids "
    "that begin with [kafka.group_id], or [delivery] = at_least_once",
    "ClusterAuthorizationFailedError": "this user needs the right IDEMPOTENT_WRITE on the cluster",
}
_TRANSLATIONS = {getattr(kafka_errors, name): ours for ours, names in _CAUSES.items() for name in names.split()}


def _static_first(assignor: Any) -> Any:
    """The assignor, shown static members first.

    kafka-python 3.0.12 forgets members where static and dynamic ones alternate: they get no partitions.
    """

    class StaticFirst(assignor):  # type: ignore[misc]  # kafka-python ships no types
        @classmethod
        def assign(cls, cluster: Any, members: Sequence[Any]) -> Any:
            return super().assign(cluster, sorted(members, key=lambda member: member.group_instance_id is None))

    return StaticFirst


ASSIGNORS: Final[Registry[Any]] = Registry("assignor")  # how a group shares its partitions out
ASSIGNORS.register("range", _static_first(RangePartitionAssignor))
ASSIGNORS.register("roundrobin", _static_first(RoundRobinPartitionAssignor))
ASSIGNORS.register("cooperative-sticky", CooperativeStickyAssignor)


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach the broker and to read from it, the same for every client.

    options            kafka-python keywords for every client that knows them (TLS, SASL, timeouts)
    connect_timeout_s  a client that can't be built within it raises BrokerUnavailable
    rebootstrap_s      time without an answer, after which a client asks the bootstrap servers again
    contact            hears of every answer to a client of this connection
    max_batch_bytes    of the records of one batch; fetches follow it, unless `options` say otherwise
    max_unpacked_bytes what a compressed record batch may unpack to; what lies beyond can't be read
    unreadable         what can't be read is passed over and named, or stops the process
    token              gives the tokens of OAUTHBEARER: a kafka.net.sasl.oauth.AbstractTokenProvider

    Raises SettingsError for an option that no client knows, that the worker sets itself, of the wrong type or value, or
    that names a file which isn't there.
    """

    bootstrap_servers: str
    client_id: str = "anomaly-worker"
    options: Mapping[str, Any] = field(default_factory=dict)
    connect_timeout_s: float = 30.0
    rebootstrap_s: float = 20.0
    contact: Contact = field(default_factory=Contact, compare=False)
    max_batch_bytes: int = 16 << 20
    max_unpacked_bytes: int = 256 << 20
    unreadable: OnUnreadable = "skip"
    token: Any = None

    def __post_init__(self) -> None:
        require_options(self.options, with_token=self.token is not None)

    @property
    def servers(self) -> list[str]:
        """The list to begin with, each `host:port`."""
        return [server.strip() for server in self.bootstrap_servers.split(",") if server.strip()]

    @property
    def client_options(self) -> Mapping[str, Any]:
        """What every client takes, where it knows it; never log it."""
        return self.options if self.token is None else {**self.options, "sasl_oauth_token_provider": self.token}


def build_consumer(connection: Connection, **config: Any) -> Any:
    """A kafka.KafkaConsumer whose `_fetcher` is a BoundedFetcher.

    Raises BrokerUnavailable within the connect timeout, SettingsError, FatalError.
    """
    fetches = {
        "fetch_max_bytes": connection.max_batch_bytes,
        "max_partition_fetch_bytes": max(1, connection.max_batch_bytes // 2),
    }
    consumer = _build(kafka.KafkaConsumer, connection, {**CONSUMER_DEFAULTS, **fetches}, config)
    # There is no public way to choose the fetcher; nothing but the consumer itself knows the one it was built with.
    consumer._fetcher = BoundedFetcher(  # noqa: SLF001
        consumer._client,  # noqa: SLF001
        consumer._subscription,  # noqa: SLF001
        limits=UnpackLimits(connection.max_unpacked_bytes),
        on_unreadable=connection.unreadable,
        **consumer.config,
    )
    return consumer


def build_producer(connection: Connection, **config: Any) -> Any:
    """A kafka.KafkaProducer. Raises BrokerUnavailable within the connect timeout, SettingsError, FatalError."""
    return _build(kafka.KafkaProducer, connection, PRODUCER_DEFAULTS, config)


@contextmanager
def admin_client(connection: Connection) -> Iterator[Any]:
    """A kafka.KafkaAdminClient, closed at the end. Raises BrokerUnavailable within the connect timeout, FatalError."""
    admin = _build(kafka.KafkaAdminClient, connection, ADMIN_DEFAULTS, {})
    try:
        yield admin
    finally:
        quietly(admin.close, 2.0, "closing the admin client")


def _build(client: Any, connection: Connection, defaults: Mapping[str, Any], config: Mapping[str, Any]) -> Any:
    """Builds a client within the connect timeout; one that fails half-way leaves no thread and no socket behind."""
    parts: list[Any] = []

    def remember(**kwargs: Any) -> Any:
        parts.append(watched_client(connection.contact, connection.rebootstrap_s, **kwargs))
        # kafka-python 3.0.12 doesn't hand this option on: by asking for a topic, a consumer would bring it back.
        parts[-1].cluster.config["allow_auto_create_topics"] = kwargs.get("allow_auto_create_topics", False)
        return parts[-1]

    options = {name: value for name, value in connection.client_options.items() if name in client.DEFAULT_CONFIG}
    # A consumer option such as request_timeout_ms can be shorter than the connect timeout, never the reverse.
    own = {
        "bootstrap_servers": connection.servers,
        "client_id": connection.client_id,
        "bootstrap_timeout_ms": int(connection.connect_timeout_s * 1000),
        "kafka_client": remember,
    }
    config, action = {**defaults, **options, **config, **own}, f"connecting to {connection.bootstrap_servers}"
    future, refusal = _started(lambda: client(**config), action), None
    try:
        refusal = _require_welcome(future, connection)
        return _result(future, connection.connect_timeout_s + 5.0, action)
    except Exception as error:
        for part in parts:
            quietly(part.close, 2.0, "closing a client")
        if isinstance(error, ValueError | TypeError | AssertionError):  # the client's own checks of its configuration
            raise SettingsError(f"[kafka.options]: {error}") from error
        ours = translate(error, action)
        if isinstance(ours, BrokerUnavailable) and refusal is not None:
            ours = BrokerUnavailable(f"{action}: {refusal}")
        raise ours from error.__cause__ or error


# The client reports a wrong password, a foreign authority and a closed port alike, after its timeout. So while it
# tries, the broker is asked for its reason in a conversation of our own (worker.broker.probe), and what is wrong for
# good ends the attempt. It is asked twice: a node that has just started can refuse a login that it takes soon after.
def _require_welcome(future: "Future[Any]", connection: Connection) -> WorkerError | None:
    """Why the broker can't be reached, as far as is known, while a client is being built. SettingsError for good."""
    refusal: WorkerError | None = None
    for pause_s in (_FIRST_PROBE_S, _SECOND_PROBE_S):
        if wait([future], min(pause_s, connection.connect_timeout_s)).done:
            return refusal
        refusal = refusal_of(connection.servers, connection.client_options)
        if not isinstance(refusal, SettingsError):
            return refusal
    assert refusal is not None  # noqa: S101 - there was at least one look
    raise refusal


class Welcome:
    """Whether the broker still takes a client that was built: its password can change, its certificate can expire.

    The client itself only tries again, for ever. So where nothing answers it any more, the broker is asked why.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._asked_at = time.monotonic()
        self._refused = False

    def require(self) -> None:
        """Raises SettingsError where it is refused for good, twice in a row. In an outage it may block for seconds."""
        now = time.monotonic()
        if self._connection.contact.silence_s() < _SILENT_S or now - self._asked_at < _SECOND_PROBE_S:
            return
        refusal = refusal_of(self._connection.servers, self._connection.client_options)
        self._asked_at = time.monotonic()
        if isinstance(refusal, SettingsError) and self._refused:
            raise refusal
        self._refused = isinstance(refusal, SettingsError)


def translate(error: Exception, action: str) -> WorkerError:
    """The error that the rooms above understand; `action` says what was being done."""
    if isinstance(error, WorkerError):
        return error
    if type(error) is kafka_errors.KafkaError:  # a general one carries the error that it is about
        error = next((arg for arg in error.args if isinstance(arg, kafka_errors.KafkaError)), error)
    other = BrokerUnavailable if isinstance(error, OSError) else FatalError
    kind = next((_TRANSLATIONS[base] for base in type(error).__mro__ if base in _TRANSLATIONS), other)
    details = "; ".join(str(arg) for arg in error.args if arg is not None)
    reason = details or getattr(error, "description", None) or "no details"
    advice = _ADVICE.get(type(error).__name__)
    translation = kind(f"{action}: {type(error).__name__}: {reason}" + (f"; {advice}" if advice else ""))
    if isinstance(error, kafka_errors.UnsupportedCodecError):
        translation.hint = errors.Hint.INSTALL_COMPRESSION
    return translation


@contextmanager
def translated(action: str) -> Iterator[None]:
    """Raises what `translate` makes of a client's error inside the block; bugs (TypeError, ...) pass unchanged.

    A RuntimeError or an AttributeError of the client after its close is not expected and passes unchanged too.
    """
    try:
        yield
    except (kafka_errors.KafkaError, OSError) as error:
        raise translate(error, action) from error


def asked(call: Callable[[], T], timeout_s: float, action: str) -> T:
    """The result of `call`, run in a helper thread; what it raises is raised here, an error of the client translated.

    When it isn't done after `timeout_s` seconds, raises BrokerUnavailable and leaves the (daemon) thread behind:
    it ends when the client lets go. What the call touched must not be used any more, except to close it.
    """
    return _result(_started(call, action), timeout_s, action)


def _started(call: Callable[[], T], action: str) -> Future[T]:
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
            future.set_exception(error)

    threading.Thread(target=run, name=f"asked: {action}", daemon=True).start()
    return future


def _result(future: Future[T], timeout_s: float, action: str) -> T:
    if not wait([future], timeout_s).done:
        raise BrokerUnavailable(f"{action}: no answer from the broker within {timeout_s:g} s")
    with translated(action):
        return future.result()


def quietly(close: Callable[[], object], timeout_s: float, action: str) -> None:
    """Runs `close` within the timeout, and gives it up where it fails: the broker notices by a timeout of its own."""
    with contextlib.suppress(WorkerError, RuntimeError):
        asked(close, timeout_s, action)
