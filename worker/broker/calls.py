"""Around every call of the Kafka client: a deadline of its own, and errors that are ours."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from kafka import errors as kafka_errors

from worker.errors import (
    BrokerUnavailable,
    CommitRefused,
    Displaced,
    FatalError,
    Fenced,
    Hint,
    MissingTopic,
    OffsetOutOfRange,
    RecordTooLarge,
    SettingsError,
    WorkerError,
)

T = TypeVar("T")

# Sorted by what the record loop does next; of an error and its bases, the first that is listed decides.
_TRANSLATIONS: Mapping[type[BaseException], type[WorkerError]] = {
    kafka_errors.CommitFailedError: CommitRefused,
    kafka_errors.RebalanceInProgressError: CommitRefused,
    kafka_errors.IllegalGenerationError: CommitRefused,
    kafka_errors.UnknownMemberIdError: CommitRefused,
    kafka_errors.ProducerFencedError: Fenced,
    kafka_errors.InvalidProducerEpochError: Fenced,
    kafka_errors.FencedInstanceIdError: Displaced,
    kafka_errors.MessageSizeTooLargeError: RecordTooLarge,
    kafka_errors.RecordListTooLargeError: RecordTooLarge,
    kafka_errors.OffsetOutOfRangeError: OffsetOutOfRange,
    kafka_errors.LogTruncationError: OffsetOutOfRange,
    kafka_errors.UnknownTopicOrPartitionError: MissingTopic,
    kafka_errors.UnknownTopicIdError: MissingTopic,
    kafka_errors.KafkaConfigurationError: SettingsError,
    kafka_errors.IllegalArgumentError: SettingsError,
    kafka_errors.InvalidSessionTimeoutError: SettingsError,
    kafka_errors.InvalidTransactionTimeoutError: SettingsError,
    kafka_errors.UnsupportedSaslMechanismError: SettingsError,
    kafka_errors.AuthorizationError: FatalError,
    kafka_errors.SaslAuthenticationFailedError: FatalError,
    kafka_errors.UnsupportedVersionError: FatalError,
    kafka_errors.UnsupportedCodecError: FatalError,
    kafka_errors.CorruptRecordError: FatalError,
    kafka_errors.InvalidTopicError: FatalError,
    kafka_errors.PolicyViolationError: FatalError,
    kafka_errors.IllegalStateError: FatalError,
    # What is left passes with time: timeouts, elections, lost connections, answers that no client expects.
    kafka_errors.KafkaError: BrokerUnavailable,
    OSError: BrokerUnavailable,
}


def translate(error: Exception, action: str) -> WorkerError:
    """The error that the rooms above understand; `action` says what was being done."""
    if isinstance(error, WorkerError):
        return error
    if type(error) is kafka_errors.KafkaError:  # a general one carries the error that it is about
        error = next((arg for arg in error.args if isinstance(arg, kafka_errors.KafkaError)), error)
    kind = next((_TRANSLATIONS[base] for base in type(error).__mro__ if base in _TRANSLATIONS), FatalError)
    details = "; ".join(str(arg) for arg in error.args if arg is not None)
    reason = details or getattr(error, "description", None) or "no details"
    translation = kind(f"{action}: {type(error).__name__}: {reason}")
    if isinstance(error, kafka_errors.UnsupportedCodecError):
        translation.hint = Hint.INSTALL_COMPRESSION
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


def bounded(call: Callable[[], T], timeout_s: float, action: str) -> T:
    """The result of `call`, run in a helper thread; whatever it raises is raised here.

    When it isn't done after `timeout_s` seconds, raises BrokerUnavailable and leaves the (daemon) thread behind:
    it ends when the client lets go. What the call touched must not be used any more, except to close it.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run, name=f"bounded: {action}", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if errors:
        raise errors[0]
    if results:
        return results[0]
    raise BrokerUnavailable(f"{action}: no answer from the broker within {timeout_s:g} s")


def asked(call: Callable[[], T], timeout_s: float, action: str) -> T:
    """The result of `call`, bounded and with its errors translated."""
    with translated(action):
        return bounded(call, timeout_s, action)


def quietly(close: Callable[[], object], timeout_s: float, action: str) -> None:
    """Runs `close` within the timeout, and gives it up where it fails: the broker notices by a timeout of its own."""
    with contextlib.suppress(BrokerUnavailable, kafka_errors.KafkaError, RuntimeError, OSError):
        bounded(close, timeout_s, action)
