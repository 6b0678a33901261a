"""Producers on Kafka whose every send is accounted for: acknowledged, refused, or the producer is dead.

kafka-python's idempotent producer dies silently: once a batch that was sent has expired, the futures of later sends
neither complete nor fail. So any failure is final here, and nothing waits for a future without a deadline.
"""

import contextlib
import time
from collections.abc import Sequence
from typing import Any, Final

from kafka import errors as kafka_errors
from typing_extensions import override

from worker.broker.base import Offsets, Producer, TransactionalProducer
from worker.broker.client import (
    PRODUCER_DEFAULTS,
    Connection,
    asked,
    build_producer,
    quietly,
    translate,
    translated,
)
from worker.broker.limits import RecordLimits, portions, record_bytes
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
from worker.records import Outgoing

_TOO_LARGE: Final = (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)
# The broker aborts then what a killed process left open, and the next owner of its partitions waits for that (plus the
# broker's scan, up to 10 s).
_TRANSACTION_S: Final = 10.0


class AcknowledgedProducer(Producer):
    """A Producer on Kafka.

    limits   what is known of the topics; it learns from what the broker refuses

    Raises (on creation) BrokerUnavailable, SettingsError, FatalError.
    """

    def __init__(self, connection: Connection, limits: RecordLimits | None = None, **config: Any) -> None:
        self._limits = RecordLimits() if limits is None else limits
        batch_size = connection.options.get("batch_size", PRODUCER_DEFAULTS["batch_size"])
        self._client = build_producer(connection, **{"batch_size": self._limits.batch_bytes(batch_size), **config})
        self._max_bytes = int(self._client.config["max_request_size"])
        self._compressed = self._client.config["compression_type"] is not None
        self._limit_of: dict[str, int] = {}  # by topic; what it learns ends this producer
        self._pending: list[tuple[Any, Outgoing]] = []
        self._failed: list[tuple[Exception, Outgoing]] = []  # in the order in which they failed
        self._closed = False

    @override
    def fits(self, outgoing: Outgoing) -> bool:
        limit = self._limit_of.get(outgoing.topic)
        if limit is None:
            known = self._limits.max_record_bytes(outgoing.topic, compressed=self._compressed)
            limit = self._limit_of[outgoing.topic] = min(self._max_bytes, known or self._max_bytes)
        return record_bytes(outgoing) <= limit

    @override
    def send(self, outgoing: Outgoing) -> None:
        topic, headers = outgoing.topic, [(name, value or b"") for name, value in outgoing.headers]
        try:
            future = self._client.send(topic, outgoing.value, outgoing.key, headers, outgoing.partition)
        except _TOO_LARGE as error:
            raise RecordTooLarge(f"a record for {topic} is too large: {error}", [outgoing]) from error
        except kafka_errors.KafkaTimeoutError as error:
            reason = f"the broker is away, or the topic does not exist ({error})"
            raise DeliveryError(f"sending to {topic}: {reason}") from error
        except kafka_errors.KafkaError as error:
            raise self._failure(error, topic) from error
        self._pending.append((future, outgoing))
        future.add_errback(lambda error: self._failed.append((error, outgoing)))

    @override
    def acknowledged(self) -> Sequence[Outgoing]:
        return [sent for future, sent in self._pending if future.succeeded()]

    @override
    def flush(self, timeout_s: float) -> None:
        pending = self._pending
        if not pending:
            return
        deadline = time.monotonic() + timeout_s
        # Splitting a batch that was too large breaks flush's own wait; the futures below tell the truth.
        with contextlib.suppress(kafka_errors.KafkaError):
            self._client.flush(timeout_s)
        errors = [(error, sent) for future, sent in pending if (error := _outcome(future, deadline)) is not None]
        if errors:
            error, sent = next((entry for entry in errors if isinstance(entry[0], _TOO_LARGE)), errors[0])
            raise self._failure(error, sent.topic, len(errors)) from error
        self._pending = []

    def _failure(self, error: Exception, topic: str, count: int = 1) -> WorkerError:
        ours = translate(error, f"sending to {topic}")
        if isinstance(ours, RecordTooLarge):
            # The client gives all that it still holds, and in a transaction all that follows, the first one's error.
            refused = next(sent for error, sent in self._failed if isinstance(error, _TOO_LARGE))
            self._limits.refuse(refused)
            size = record_bytes(refused)
            return RecordTooLarge(f"a record of {size} bytes is too large for {refused.topic}", [refused])
        if isinstance(ours, Fenced) and self._client.config["transactional_id"] is None:
            return DeliveryError(str(ours))  # its own retries outdated its epoch; there is no other process
        if isinstance(ours, FatalError) and not isinstance(error, kafka_errors.IllegalStateError):
            return ours  # not authorised, fenced, ...: sending again can't help
        return DeliveryError(f"{count} records were not acknowledged; {ours}")

    @override
    def close(self, timeout_s: float) -> None:
        if self._closed:
            return
        self._closed = True
        self._pending.clear()

        def close() -> None:
            try:
                self._client.close(timeout=timeout_s)
            except kafka_errors.KafkaError:  # its flush timed out, and then it leaves its thread running
                self._client._sender.force_close()  # noqa: SLF001  # there is no public way to stop it
                self._client.close(timeout=0)

        quietly(close, timeout_s + 1.0, "closing a producer")


class TransactionalKafkaProducer(AcknowledgedProducer, TransactionalProducer):
    """A TransactionalProducer on Kafka: begin, send, offsets, commit, each transaction one call of at most `timeout_s`.

    Raises (on creation) BrokerUnavailable, SettingsError, FatalError.
    """

    def __init__(
        self,
        connection: Connection,
        transactional_id: str,
        limits: RecordLimits | None = None,
        *,
        timeout_s: float = 30.0,
        **config: Any,
    ) -> None:
        self._timeout_s = timeout_s
        config |= {"transactional_id": transactional_id, "transaction_timeout_ms": int(_TRANSACTION_S * 1000)}
        super().__init__(connection, limits, **config)
        try:
            asked(self._client.init_transactions, timeout_s, "starting the transactional producer")
        except BaseException:  # also when a stop interrupts it: the client has threads, and nobody else knows it
            self.close(1.0)
            raise

    @override
    def transact(self, outgoing: Sequence[Outgoing], offsets: Offsets, membership: object) -> None:
        started = time.monotonic()
        try:
            asked(lambda: self._transact(outgoing, offsets, membership), self._timeout_s, "committing a transaction")
        except Fenced as error:
            if time.monotonic() - started >= _TRANSACTION_S:
                # The broker aborts a transaction that is too old in the same way as a new owner of the id does.
                raise BrokerUnavailable(f"the transaction took too long and was aborted: {error}") from error
            raise

    def _transact(self, outgoing: Sequence[Outgoing], offsets: Offsets, membership: Any) -> None:
        if membership.group.generation_id < 0:
            # The broker takes offsets without a generation unchecked: a worker that woke up late would commit them.
            raise CommitRefused("this process is not a member of its group any more")
        with translated("beginning a transaction"):
            self._client.begin_transaction()
        try:
            # 1. Every record is acknowledged ...
            for records in portions(outgoing):
                for record in records:
                    self.send(record)
                self.flush(self._timeout_s)
            # 2. ... and the offsets are part of the transaction ...
            with translated("adding offsets to the transaction"):
                theirs = membership.topic_ids.as_kafka_offsets(offsets)
                self._client.send_offsets_to_transaction(theirs, membership.group)
        except WorkerError as error:
            # Displaced: no newer producer has outdated this one; the consumer's poll finds out whether it is true.
            cause = CommitRefused(str(error)) if isinstance(error, Displaced) else error
            if not isinstance(cause, FatalError | BrokerUnavailable):  # nothing of it may be committed
                self._abort(cause)
            raise cause from error.__cause__
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


def _outcome(future: Any, deadline: float) -> Any:
    """Why a send failed, None once it is acknowledged; waits until the deadline."""
    try:
        if not future.is_done:
            future.get(timeout=max(0.0, deadline - time.monotonic()))
    except kafka_errors.KafkaError as error:
        return error
    return future.exception
