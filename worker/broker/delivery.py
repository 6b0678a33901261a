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

    def publish(
        self, outgoing: Sequence[Outgoing], next_offsets: Mapping[Partition, int], state: Sequence[Outgoing] = ()
    ) -> None:
        """Publishes, then commits; see Delivery.publish.

        1. Hand over every result, wait until each is acknowledged; one that isn't ends here, with nothing committed.
        2. The same for the state, which says that the results before its offsets are out.
        3. Commit the offsets.
        """
        if outgoing or state:
            self.open()
            assert self._producer is not None  # noqa: S101  # open() built it
            refuse_oversized(self._producer, [*outgoing, *state])
            # 1. 2.
            for records in (outgoing, state):
                self._send(self._producer, records)
        # 3.
        self._consumer.commit(next_offsets)

    def _send(self, producer: Producer, records: Sequence[Outgoing]) -> None:
        try:
            for record in records:
                producer.send(record)
            if records:
                producer.flush(self._flush_timeout_s)
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
        self._said: Mapping[Partition, int | None] | None = None

    def open(self) -> None:
        """See Delivery.open."""
        if self._producer is None:
            self._producer = self._make_producer()

    def publish(
        self, outgoing: Sequence[Outgoing], next_offsets: Mapping[Partition, int], state: Sequence[Outgoing] = ()
    ) -> None:
        """Publishes and commits as one; see Delivery.publish.

        1. Build the producer if the last one died: the broker ends what that one left open.
        2. If it isn't known how the last transaction ended, ask for the committed offsets; it may be done already.
        3. Send results, state and offsets, and commit all.
        """
        # 1.
        self.open()
        assert self._producer is not None  # noqa: S101  # open() built it
        # 2.
        if self._is_committed(next_offsets):
            return
        records = [*outgoing, *state]
        refuse_oversized(self._producer, records)
        # 3.
        self._unsure = self._said = None
        try:
            self._producer.transact(records, next_offsets, self._consumer.membership())
        except CommitRefused:
            raise  # aborted; the producer lives on
        except BrokerUnavailable:
            self._unsure = dict(next_offsets)
            self.close(_CLOSE_DEAD_S)
            raise
        except WorkerError:
            self.close(_CLOSE_DEAD_S)
            raise
        self._consumer.note_committed(next_offsets)

    def _is_committed(self, next_offsets: Mapping[Partition, int]) -> bool:
        """Whether the transaction of unknown outcome held this one and was committed.

        It may have held partitions that were revoked since: what is left of the batch was committed all the same.
        A broker that has just come back can say less than there is (worker.broker.watermark). So one yes counts for all
        of the transaction, and a no when it was said twice, at two calls of publish; BrokerUnavailable the first time.
        """
        if self._unsure is None or not next_offsets.items() <= self._unsure.items():
            return False
        committed = dict(self._consumer.committed(next_offsets))
        if committed.items() & next_offsets.items():
            self._unsure = self._said = None
            return True
        if committed != self._said:
            self._said = committed
            raise BrokerUnavailable("the last transaction does not seem to be committed: asking once more")
        return False

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
