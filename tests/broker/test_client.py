"""Settings for the clients are checked before anything is connected, and only our errors leave the room."""

import kafka
import pytest
from kafka import errors as kafka_errors

from worker.broker.client import (
    ADMIN_DEFAULTS,
    CONSUMER_DEFAULTS,
    PRODUCER_DEFAULTS,
    Connection,
    translate,
    translated,
)
from worker.errors import (
    BrokerUnavailable,
    CommitRefused,
    FatalError,
    Fenced,
    MissingTopic,
    OffsetOutOfRange,
    SettingsError,
    WorkerError,
)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"sesion_timeout_ms": 6000}, ["sesion_timeout_ms", "session_timeout_ms"]),
        ({"nonsense": 1}, ["nonsense"]),
        ({"group_id": "mine"}, ["group_id", "kafka.group_id"]),
        ({"enable_auto_commit": True}, ["enable_auto_commit"]),
        ({"session_timeout_ms": "6000"}, ["session_timeout_ms", "'6000'", "int"]),
        ({"check_crcs": 1}, ["check_crcs", "bool"]),
        ({"request_timeout_ms": True}, ["request_timeout_ms"]),
        ({"security_protocol": 1}, ["security_protocol", "str"]),
        ({"ssl_cafile": "/no/such/ca.pem"}, ["ssl_cafile", "/no/such/ca.pem"]),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, object], names: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        Connection("localhost", options=options)

    assert all(name in str(caught.value) for name in names)


def test_an_option_of_one_client_alone_is_allowed() -> None:
    Connection("localhost", options={"linger_ms": 0, "fetch_max_wait_ms": 100, "compression_type": "gzip"})


def test_every_default_is_known_to_its_client() -> None:
    assert set(CONSUMER_DEFAULTS) <= set(kafka.KafkaConsumer.DEFAULT_CONFIG)
    assert set(PRODUCER_DEFAULTS) <= set(kafka.KafkaProducer.DEFAULT_CONFIG)
    assert set(ADMIN_DEFAULTS) <= set(kafka.KafkaAdminClient.DEFAULT_CONFIG)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (kafka_errors.CommitFailedError(), CommitRefused),
        (kafka_errors.RebalanceInProgressError(), CommitRefused),
        (kafka_errors.ProducerFencedError(), Fenced),
        (kafka_errors.KafkaError("can't send", kafka_errors.ProducerFencedError()), Fenced),
        (kafka_errors.OffsetOutOfRangeError({}), OffsetOutOfRange),
        (kafka_errors.UnknownTopicOrPartitionError(), MissingTopic),
        (kafka_errors.KafkaConfigurationError("wrong"), SettingsError),
        (kafka_errors.TopicAuthorizationFailedError("topic"), FatalError),
        (kafka_errors.UnsupportedCodecError("zstd"), FatalError),
        (kafka_errors.KafkaTimeoutError("late"), BrokerUnavailable),
        (kafka_errors.KafkaConnectionError("gone"), BrokerUnavailable),
        (kafka_errors.NotEnoughReplicasError(), BrokerUnavailable),
        (ConnectionResetError(104, "reset"), BrokerUnavailable),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else type(value).__name__,
)
def test_an_error_of_the_client_becomes_what_the_loop_does_next(theirs: Exception, ours: type[WorkerError]) -> None:
    with pytest.raises(ours, match="doing something") as caught, translated("doing something"):
        raise theirs

    assert type(caught.value) is ours


def test_every_error_of_the_client_is_translated() -> None:
    def below(kind: type[Exception]) -> list[type[Exception]]:
        return [kind, *(deeper for child in kind.__subclasses__() for deeper in below(child))]

    for kind in below(kafka_errors.KafkaError):
        error = kind({}) if kind is kafka_errors.LogTruncationError else kind()
        assert isinstance(translate(error, "doing something"), WorkerError)


def test_a_bug_is_not_translated() -> None:
    with pytest.raises(TypeError), translated("doing something"):
        raise TypeError("a bug")
