"""From the client's exceptions to worker.errors, sorted by what the record loop does next."""

from collections.abc import Iterator
from contextlib import contextmanager

from kafka import errors as kafka_errors

from worker.errors import (
    BrokerUnavailable,
    CommitRefused,
    Displaced,
    FatalError,
    Fenced,
    MissingTopic,
    OffsetOutOfRange,
    RecordTooLarge,
    SettingsError,
    WorkerError,
)

# The first match decides, so the special ones stand before the general ones.
_TRANSLATIONS: tuple[tuple[tuple[type[Exception], ...], type[WorkerError]], ...] = (
    (
        (
            kafka_errors.CommitFailedError,
            kafka_errors.RebalanceInProgressError,
            kafka_errors.IllegalGenerationError,
            kafka_errors.UnknownMemberIdError,
        ),
        CommitRefused,
    ),
    (
        (
            kafka_errors.ProducerFencedError,
            kafka_errors.InvalidProducerEpochError,
        ),
        Fenced,
    ),
    ((kafka_errors.FencedInstanceIdError,), Displaced),
    ((kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError), RecordTooLarge),
    ((kafka_errors.OffsetOutOfRangeError, kafka_errors.LogTruncationError), OffsetOutOfRange),
    ((kafka_errors.UnknownTopicOrPartitionError, kafka_errors.UnknownTopicIdError), MissingTopic),
    (
        (
            kafka_errors.KafkaConfigurationError,
            kafka_errors.IllegalArgumentError,
            kafka_errors.InvalidSessionTimeoutError,
            kafka_errors.InvalidTransactionTimeoutError,
            kafka_errors.UnsupportedSaslMechanismError,
        ),
        SettingsError,
    ),
    (
        (
            kafka_errors.AuthorizationError,
            kafka_errors.SaslAuthenticationFailedError,
            kafka_errors.TopicAuthorizationFailedError,
            kafka_errors.UnsupportedVersionError,
            kafka_errors.UnsupportedCodecError,
            kafka_errors.CorruptRecordError,
            kafka_errors.InvalidTopicError,
            kafka_errors.PolicyViolationError,
            kafka_errors.IllegalStateError,
        ),
        FatalError,
    ),
    # What is left is time: timeouts, elections, lost connections, answers that no client expects.
    ((kafka_errors.KafkaError, OSError), BrokerUnavailable),
)


def translate(error: Exception, action: str) -> WorkerError:
    """The error that the rooms above understand; `action` says what was being done."""
    if isinstance(error, WorkerError):
        return error
    if type(error) is kafka_errors.KafkaError:  # a general one carries the error that it is about
        error = next((arg for arg in error.args if isinstance(arg, kafka_errors.KafkaError)), error)
    kind = next((ours for theirs, ours in _TRANSLATIONS if isinstance(error, theirs)), FatalError)
    hint = ""
    if isinstance(error, kafka_errors.UnsupportedCodecError):
        hint = "; pip install 'kafka-anomaly-worker[compression]'"
    return kind(f"{action}: {type(error).__name__}: {_reason(error)}{hint}")


def _reason(error: Exception) -> str:
    details = "; ".join(str(arg) for arg in error.args if arg is not None)
    return details or getattr(error, "description", None) or "no details"


@contextmanager
def translated(action: str) -> Iterator[None]:
    """Raises what `translate` makes of a client's error inside the block; bugs (TypeError, ...) pass unchanged.

    A RuntimeError or an AttributeError of the client after its close is not expected and passes unchanged too.
    """
    try:
        yield
    except (kafka_errors.KafkaError, OSError) as error:
        raise translate(error, action) from error
