"""What a batch leads to is published before its offsets are committed, or together with them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from typing_extensions import override

from worker.broker.base import AnyProducer, Consumer, Delivery, Offsets, Producer, TransactionalProducer
from worker.broker.limits import portions
from worker.errors import BrokerUnavailable, CommitRefused, OutcomeUnknown, RecordTooLarge, WorkerError
from worker.records import Outgoing, Partition

P = TypeVar("P", bound=AnyProducer)
_CLOSE_DEAD_S = 0.5


class _ProducerDelivery(Delivery, Generic[P]):
    """A delivery that owns a producer, and builds another after one has died."""

    def __init__(self, consumer: Consumer, make_producer: Callable[[], P]) -> None:
        self._consumer = consumer
        self._make_producer = make_producer
        self._producer: P | None = None
        self._fits: Callable[[Outgoing], bool] = lambda _: True  # of the last producer: it may be dead already

    @override
    def open(self) -> None:
        self._producer_for(())

    def _producer_for(self, outgoing: Sequence[Outgoing]) -> P:
        """Raises RecordTooLarge before anything is sent, so that shortening a record publishes nothing twice."""
        if self._producer is None:
            self._producer = self._make_producer()
        self._fits = self._producer.fits
        if refused := [record for record in outgoing if not self._fits(record)]:
            raise RecordTooLarge(f"{len(refused)} records are larger than the broker or the client takes", refused)
        return self._producer

    @override
    def fits(self, outgoing: Outgoing) -> bool:
        return self._fits(outgoing)

    @override
    def close(self, timeout_s: float) -> None:
        if self._producer is not None:
            self._producer.close(timeout_s)
            self._producer = None


class AtLeastOnce(_ProducerDelivery[Producer]):
    """A crash between the two steps publishes a batch again, with the same ids.

    make_producer    builds a producer; called again after one has died
    flush_timeout_s  how long acknowledgements may take; longer than the client's delivery timeout
    """

    def __init__(
        self, consumer: Consumer, make_producer: Callable[[], Producer], *, flush_timeout_s: float = 35.0
    ) -> None:
        super().__init__(consumer, make_producer)
        self._flush_timeout_s = flush_timeout_s
        self._acknowledged: list[Sequence[Outgoing]] = []  # of the batch on its way, in earlier attempts

    @override
    def publish(self, outgoing: Sequence[Outgoing], next_offsets: Offsets, state: Sequence[Outgoing] = ()) -> None:
        """Publishes, then commits.

        1. Hand over every result that no earlier attempt got through, wait until each is acknowledged; one that isn't
           ends here, with nothing committed.
        2. The same for the state, which says that the results before its offsets are out.
        3. Commit the offsets.
        """
        if self._acknowledged:
            acknowledged = {id(record) for records in self._acknowledged for record in records}
            outgoing = [record for record in outgoing if id(record) not in acknowledged]
        if outgoing or state:
            producer = self._producer_for([*outgoing, *state])
            try:
                for records in (*portions(outgoing), *portions(state)):  # 1. 2.
                    for record in records:
                        producer.send(record)
                    producer.flush(self._flush_timeout_s)
                    self._acknowledged.append(records)
            except WorkerError:
                self._acknowledged.append(producer.acknowledged())
                self.close(_CLOSE_DEAD_S)
                raise
        self._consumer.commit(next_offsets)  # 3.
        self._acknowledged.clear()


class ExactlyOnce(_ProducerDelivery[TransactionalProducer]):
    """Records and offsets in one transaction, fenced by the group's generation.

    consumer       must read committed, else a new owner can read offsets that a commit has just replaced
    make_producer  builds a producer, always with the same transactional id of this process
    """

    # The transaction of unknown outcome.
    #
    # When the answer to a commit is lost, the transaction can have ended either way: sending the batch again may
    # publish it twice, dropping it may lose it. The committed offsets tell, for they are part of the transaction; but
    # not before it has ended. Building the next producer with the same transactional id ends it, and a consumer that
    # reads committed waits for offsets that are about to become visible.
    #
    # Two things make the answer less than certain. Partitions can be revoked between two calls: what is left of the
    # batch is a part of the transaction and still tells of all of it, another batch tells nothing. And a broker that
    # has just come back can name older offsets than there are (worker.broker.assignments), never newer ones. So one
    # yes, for any partition, counts at once; a no when the same offsets were named at two calls.

    def __init__(self, consumer: Consumer, make_producer: Callable[[], TransactionalProducer]) -> None:
        super().__init__(consumer, make_producer)
        self._unknown: Offsets | None = None  # next offsets of the transaction of unknown outcome
        self._last_answer: Mapping[Partition, int | None] | None = None

    @override
    def publish(self, outgoing: Sequence[Outgoing], next_offsets: Offsets, state: Sequence[Outgoing] = ()) -> None:
        """Publishes and commits as one.

        1. Build the producer if the last one died: the broker ends what that one left open.
        2. If it isn't known how the last transaction ended, ask for the committed offsets; it may be done already.
        3. Send results, state and offsets, and commit all.
        """
        self.open()  # 1.
        if self._is_committed(next_offsets):  # 2.
            return
        records = [*outgoing, *state]
        producer = self._producer_for(records)
        self._unknown = self._last_answer = None
        try:
            producer.transact(records, next_offsets, self._consumer.membership())  # 3.
        except CommitRefused:
            raise  # aborted; the producer lives on
        except WorkerError as error:
            self._unknown = dict(next_offsets) if isinstance(error, BrokerUnavailable) else None
            self.close(_CLOSE_DEAD_S)
            raise
        self._consumer.note_committed(next_offsets)

    def _is_committed(self, next_offsets: Offsets) -> bool:
        """Whether the transaction of unknown outcome held this batch and was committed.

        Raises OutcomeUnknown after the first no.
        """
        if self._unknown is None or not next_offsets.items() <= self._unknown.items():
            return False
        committed = dict(self._consumer.committed(next_offsets))
        if committed.items() & next_offsets.items():
            self._unknown = self._last_answer = None
            return True
        if committed != self._last_answer:
            self._last_answer = committed
            raise OutcomeUnknown("the last transaction does not seem to be committed: asking once more")
        return False
