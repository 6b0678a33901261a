"""What a batch leads to is published before its offsets are committed, or together with them."""

from collections.abc import Callable, Mapping, Sequence

from worker.broker.base import Consumer, Producer, TransactionalProducer
from worker.errors import BrokerUnavailable, CommitRefused, RecordTooLarge, WorkerError
from worker.records import Outgoing, Partition

_CLOSE_DEAD_S = 0.5


class AtLeastOnce:
    """worker.broker.base.Delivery: a crash between the two steps publishes a batch again, with the same ids.

    make_producer: builds a producer; called again after one has died.
    flush_timeout_s: how long acknowledgements may take; longer than the client's delivery timeout.
    """

    def __init__(
        self, consumer: Consumer, make_producer: Callable[[], Producer], *, flush_timeout_s: float = 35.0
    ) -> None:
        self._consumer = consumer
        self._make_producer = make_producer
        self._flush_timeout_s = flush_timeout_s
        self._producer: Producer | None = None

    def open(self) -> None:
        """See Delivery.open."""
        if self._producer is None:
            self._producer = self._make_producer()

    def publish(self, outgoing: Sequence[Outgoing], next_offsets: Mapping[Partition, int]) -> None:
        """Publishes, then commits; see Delivery.publish.

        1. Hand every record to the producer.
        2. Wait until each one is acknowledged; one that isn't ends here, with nothing committed.
        3. Commit the offsets.
        """
        if outgoing:
            self._send(outgoing)
        # 3.
        self._consumer.commit(next_offsets)

    def _send(self, outgoing: Sequence[Outgoing]) -> None:
        self.open()
        assert self._producer is not None  # noqa: S101  # open() built it
        refuse_oversized(self._producer, outgoing)
        try:
            # 1.
            for record in outgoing:
                self._producer.send(record)
            # 2.
            self._producer.flush(self._flush_timeout_s)
        except WorkerError:
            self.close(_CLOSE_DEAD_S)
            raise

    def close(self, timeout_s: float) -> None:
        """See Delivery.close."""
        if self._producer is not None:
            self._producer.close(timeout_s)
            self._producer = None


class ExactlyOnce:
    """worker.broker.base.Delivery: records and offsets in one transaction, fenced by the group's generation.

    consumer: must read committed, else a new owner can read offsets that a commit has just replaced.
    make_producer: builds a producer, always with the same transactional id of this process.
    """

    def __init__(self, consumer: Consumer, make_producer: Callable[[], TransactionalProducer]) -> None:
        self._consumer = consumer
        self._make_producer = make_producer
        self._producer: TransactionalProducer | None = None
        self._unsure: Mapping[Partition, int] | None = None

    def open(self) -> None:
        """See Delivery.open."""
        if self._producer is None:
            self._producer = self._make_producer()

    def publish(self, outgoing: Sequence[Outgoing], next_offsets: Mapping[Partition, int]) -> None:
        """Publishes and commits as one; see Delivery.publish.

        1. Build the producer if the last one died: the broker ends what that one left open.
        2. If it isn't known how the last transaction ended, ask for the committed offsets; it may be done already.
        3. Send the records and the offsets, and commit both.
        """
        # 1.
        self.open()
        assert self._producer is not None  # noqa: S101  # open() built it
        # 2.
        if self._unsure is not None and self._is_committed(next_offsets):
            return
        refuse_oversized(self._producer, outgoing)
        # 3.
        try:
            self._producer.transact(outgoing, next_offsets, self._consumer.membership())
        except CommitRefused:
            raise  # aborted; the producer lives on
        except BrokerUnavailable:
            self._unsure = dict(next_offsets)
            self.close(_CLOSE_DEAD_S)
            raise
        except WorkerError:
            self.close(_CLOSE_DEAD_S)
            raise

    def _is_committed(self, next_offsets: Mapping[Partition, int]) -> bool:
        """Whether the transaction of unknown outcome was this one and was committed."""
        committed = self._consumer.committed(next_offsets)
        same = self._unsure == next_offsets
        self._unsure = None
        return same and dict(committed) == dict(next_offsets)

    def close(self, timeout_s: float) -> None:
        """See Delivery.close."""
        if self._producer is not None:
            self._producer.close(timeout_s)
            self._producer = None


def refuse_oversized(producer: Producer | TransactionalProducer, outgoing: Sequence[Outgoing]) -> None:
    """Raises RecordTooLarge before anything is sent, so that shortening a record publishes nothing twice."""
    refused = [record for record in outgoing if not producer.fits(record)]
    if refused:
        raise RecordTooLarge(f"{len(refused)} records are larger than the producer's max_request_size", refused)
