"""Producers on Kafka whose every send is accounted for: acknowledged, refused, or the producer is dead.

kafka-python's idempotent producer dies silently: once a batch that was sent has expired, the futures of later sends
neither complete nor fail. So any failure is final here, and nothing waits for a future without a deadline.
"""

import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from kafka import errors as kafka_errors
from typing_extensions import override

from worker.broker.base import Producer, TransactionalProducer
from worker.broker.calls import asked, bounded, quietly, translate, translated
from worker.broker.client import Connection, build_producer
from worker.broker.consumer import as_kafka_offsets
from worker.errors import (
    BrokerUnavailable,
    CommitRefused,
    DeliveryError,
    Displaced,
    FatalError,
    Fenced,
    RecordTooLarge,
    WorkerError,
)
from worker.records import Outgoing, Partition

_TOO_LARGE: Final = (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)
_RECORD_OVERHEAD: Final = 128  # bytes of a batch's and a record's own fields, more than the format needs
_HEADER_OVERHEAD: Final = 10


class AcknowledgedProducer(Producer):
    """A Producer on Kafka. Raises (on creation) BrokerUnavailable, SettingsError, FatalError."""

    def __init__(self, connection: Connection, **config: Any) -> None:
        self._client = build_producer(connection, **config)
        self._limit = int(self._client.config["max_request_size"])
        self._pending: list[tuple[Any, Outgoing]] = []
        self._failed: list[tuple[Exception, Outgoing]] = []  # in the order in which they failed
        self._closed = False

    @override
    def fits(self, outgoing: Outgoing) -> bool:
        size = _RECORD_OVERHEAD + len(outgoing.key or b"") + len(outgoing.value or b"")
        size += sum(len(name) * 4 + len(value or b"") + _HEADER_OVERHEAD for name, value in outgoing.headers)
        return size <= self._limit

    @override
    def send(self, outgoing: Outgoing) -> None:
        headers = [(name, value or b"") for name, value in outgoing.headers]
        topic = outgoing.topic
        try:
            future = self._client.send(
                topic, value=outgoing.value, key=outgoing.key, headers=headers, partition=outgoing.partition
            )
        except _TOO_LARGE as error:
            raise RecordTooLarge(f"a record for {topic} is too large: {error}", [outgoing]) from error
        except kafka_errors.KafkaTimeoutError as error:
            raise DeliveryError(
                f"sending to {topic}: the broker is away, or the topic does not exist ({error})"
            ) from error
        except kafka_errors.KafkaError as error:
            raise self._failure(error, topic) from error
        self._pending.append((future, outgoing))
        future.add_errback(lambda error: self._failed.append((error, outgoing)))

    @override
    def flush(self, timeout_s: float) -> None:
        pending, self._pending = self._pending, []
        if not pending:
            return
        deadline = time.monotonic() + timeout_s
        # Splitting a batch that was too large breaks flush's own wait; the futures below tell the truth.
        with contextlib.suppress(kafka_errors.KafkaError):
            self._client.flush(timeout_s)
        errors = [(error, sent) for future, sent in pending if (error := _outcome(future, deadline)) is not None]
        if any(isinstance(error, _TOO_LARGE) for error, _ in errors):
            # The client gives all that it still holds the error of the first one, whatever their sizes.
            refused = next(sent for error, sent in self._failed if isinstance(error, _TOO_LARGE))
            size = len(refused.value or b"")
            raise RecordTooLarge(f"a record of {size} bytes is too large for {refused.topic}", [refused])
        if errors:
            error, sent = errors[0]
            raise self._failure(error, sent.topic, len(errors)) from error

    def _failure(self, error: Exception, topic: str, count: int = 1) -> WorkerError:
        ours = translate(error, f"sending to {topic}")
        if isinstance(ours, Fenced) and self._client.config["transactional_id"] is None:
            return DeliveryError(str(ours))  # its own retries outdated its epoch; there is no other process
        if isinstance(ours, FatalError) and not isinstance(error, kafka_errors.IllegalStateError):
            return ours  # not authorised, fenced, ...: sending again can't help
        return DeliveryError(f"{count} records were not acknowledged; {ours}")

    @override
    def close(self, timeout_s: float) -> None:
        if not self._closed:
            self._closed = True
            self._pending.clear()
            close_client(self._client, timeout_s)


class TransactionalKafkaProducer(AcknowledgedProducer, TransactionalProducer):
    """A TransactionalProducer on Kafka: begin, send, offsets, commit, each transaction one call.

    timeout_s              for a whole transaction
    transaction_timeout_s  after it the broker aborts what a killed process left open; the next owner of its partitions
                           waits that long (plus the broker's scan, up to 10 s)

    Raises (on creation) BrokerUnavailable, SettingsError, FatalError.
    """

    def __init__(
        self,
        connection: Connection,
        transactional_id: str,
        *,
        timeout_s: float = 30.0,
        transaction_timeout_s: float = 10.0,
        **config: Any,
    ) -> None:
        self._timeout_s = timeout_s
        self._transaction_timeout_s = transaction_timeout_s
        transaction_timeout_ms = int(transaction_timeout_s * 1000)
        super().__init__(
            connection, transactional_id=transactional_id, transaction_timeout_ms=transaction_timeout_ms, **config
        )
        try:
            asked(self._client.init_transactions, timeout_s, "starting the transactional producer")
        except BaseException:
            self.close(1.0)
            raise

    @override
    def transact(self, outgoing: Sequence[Outgoing], offsets: Mapping[Partition, int], membership: object) -> None:
        started = time.monotonic()
        try:
            bounded(lambda: self._transact(outgoing, offsets, membership), self._timeout_s, "committing a transaction")
        except Fenced as error:
            if time.monotonic() - started >= self._transaction_timeout_s:
                # The broker aborts a transaction that is too old in the same way as a new owner of the id does.
                raise BrokerUnavailable(f"the transaction took too long and was aborted: {error}") from error
            raise

    def _transact(self, outgoing: Sequence[Outgoing], offsets: Mapping[Partition, int], membership: Any) -> None:
        if membership.generation_id < 0:
            # The broker takes offsets without a generation unchecked: a worker that woke up late would commit them.
            raise CommitRefused("this process is not a member of its group any more")
        with translated("beginning a transaction"):
            self._client.begin_transaction()
        try:
            # 1. Every record is acknowledged ...
            for record in outgoing:
                self.send(record)
            self.flush(self._timeout_s)
            # 2. ... and the offsets are part of the transaction ...
            with translated("adding offsets to the transaction"):
                self._client.send_offsets_to_transaction(as_kafka_offsets(offsets), membership)
        except Displaced as error:
            # No newer producer has outdated this one; the consumer's poll finds out whether it is true.
            refused = CommitRefused(str(error))
            self._abort(refused)
            raise refused from error
        except (FatalError, BrokerUnavailable):
            raise
        except WorkerError as error:  # CommitRefused, RecordTooLarge, DeliveryError: nothing may be committed
            self._abort(error)
            raise
        # 3. ... before it is committed.
        with translated("committing a transaction"):
            self._client.commit_transaction()

    def _abort(self, cause: WorkerError) -> None:
        try:
            self._client.abort_transaction()
        except kafka_errors.KafkaError as error:
            if isinstance(cause, DeliveryError):
                return  # dead either way; the next producer with this id aborts it
            ours = translate(error, "aborting a transaction")
            raise (ours if isinstance(ours, Fenced) else DeliveryError(str(ours))) from cause


def _outcome(future: Any, deadline: float) -> Exception | None:
    """Why a send failed, None once it is acknowledged; waits until the deadline."""
    if not future.is_done:
        try:
            future.get(timeout=max(0.0, deadline - time.monotonic()))
        except kafka_errors.KafkaError as error:
            ours: Exception = error
            return ours
    failure = future.exception
    return failure if isinstance(failure, Exception) else None


def close_client(client: Any, timeout_s: float) -> None:
    """Closes a KafkaProducer within about `timeout_s`, dropping what is still unsent; never raises.

    KafkaProducer.close raises when its flush times out and then leaves its thread running: that is stopped here.
    """

    def close() -> None:
        try:
            client.close(timeout=timeout_s)
        except kafka_errors.KafkaError:
            client._sender.force_close()  # noqa: SLF001  # there is no public way to stop it
            client.close(timeout=0)

    quietly(close, timeout_s + 1.0, "closing a producer")
