"""What a consumer's fetches hold, handed over by bytes; what can't be read is named and passed over.

kafka-python's fetcher keeps its requests, sessions and positions. Replaced is what it does with the bytes of a
response: how much of them a poll hands over, and what becomes of records that it can't read.

    an unsound record                     a dead letter (worker.broker.record_batch)
    a batch whose checksum is wrong, or whose offsets overlap the next one's
                                          fetched twice more, for it may have been the network; then its records are
                                          dead letters where they can be told apart, and named where not
    an unknown format, garbage, a bomb    named and passed over, or FatalError
    a place that the broker can't read    the same, offset by offset
"""

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from kafka import errors as kafka_errors
from kafka.consumer.fetcher import ConsumerRecord, Fetcher
from kafka.protocol.consumer import IsolationLevel
from kafka.structs import OffsetAndMetadata
from typing_extensions import override

from worker.broker.base import Unreadable
from worker.broker.legacy_batch import read_legacy
from worker.broker.record_batch import RECORD_OVERHEAD_BYTES, BatchReader, RecordBatch, UnpackLimits, split
from worker.errors import FatalError
from worker.records import Partition, UnreadableValue

OnUnreadable = Literal["skip", "stop"]

MAX_READS: Final = 3
MAX_PLAUSIBLE_RECORDS: Final = 1 << 20
_MAGIC_POSITION: Final = 16
_ABORT_KEY: Final = b"\x00\x00\x00\x00"  # of a control record: version 0, type 0


class BoundedFetcher(Fetcher):  # type: ignore[misc]  # kafka-python ships no types
    """kafka-python's fetcher with bounds in bytes.

    limits         what a compressed record batch may unpack to
    on_unreadable  what the client can't read is passed over, or stops the process
    max_bytes      what the next call of `fetched_records` hands over at most, and a piece of about a megabyte more
    handed_bytes   what the last one has handed over: memory that the records take, about
    """

    def __init__(
        self, client: Any, subscriptions: Any, *, limits: UnpackLimits, on_unreadable: OnUnreadable, **config: Any
    ) -> None:
        super().__init__(client, subscriptions, **config)
        self.limits = limits
        self.on_unreadable = on_unreadable
        self.max_bytes = sys.maxsize
        self.handed_bytes = 0
        self._unreadable: list[Unreadable] = []
        self.check_crcs = bool(self.config["check_crcs"])
        self.isolation_level = self._isolation_level
        self._fetch_max_bytes: int = self.config["fetch_max_bytes"]
        self._reads: dict[Any, tuple[int, int]] = {}  # offset of a place that was no good, and how often it was read

    @override
    def fetched_records(self, max_records: int | None = None, update_offsets: bool = True) -> Any:
        self.handed_bytes = 0
        return super().fetched_records(max_records, update_offsets=update_offsets)

    @override
    def _append(self, drained: Any, part: Any, max_records: int, update_offsets: bool) -> Any:
        taken = super()._append(drained, part, max_records, update_offsets)
        return taken if self.handed_bytes < self.max_bytes else max_records  # no room for bytes is no room for records

    @override
    def _create_fetch_requests(self) -> Any:
        # Every leader answers beside the others: all of them together may fill the bound.
        subscribed = self._subscriptions.assigned_partitions()
        leaders = {self._manager.cluster.leader_for_partition(partition) for partition in subscribed}
        self.config["fetch_max_bytes"] = max(1, self._fetch_max_bytes // max(1, len(leaders)))
        return super()._create_fetch_requests()

    @override
    def _parse_fetched_data(self, completed_fetch: Any) -> Any:
        try:
            return super()._parse_fetched_data(completed_fetch)
        except kafka_errors.KafkaError as error:
            # What the broker answered, or a batch that is longer than all that it sent; nothing was parsed yet.
            if type(error) not in {kafka_errors.CorruptRecordError, kafka_errors.KafkaError}:
                raise
            place, offset = completed_fetch.topic_partition, completed_fetch.fetched_offset
            if not self.reads_again(place, offset):
                self.name([Unreadable(Partition(*place), offset, offset, "the broker can't read it from its log")])
                self._subscriptions.assignment[place].position = OffsetAndMetadata(offset + 1, "", -1)
            return None

    def PartitionRecords(self, fetch_offset: int, place: Any, records: Any, **options: Any) -> Any:  # noqa: N802
        """What the client makes of a partition's part of a response; the name is its own."""
        return FetchedRecords(self, fetch_offset, place, records, **options)

    def reads_again(self, place: Any, offset: int) -> bool:
        """Whether a place that was no good is worth another fetch; counts it."""
        known, times = self._reads.get(place, (-1, 0))
        times = times + 1 if known == offset else 1
        self._reads[place] = offset, times
        return times < MAX_READS

    def name(self, unreadable: Sequence[Unreadable]) -> None:
        """Remembers what is passed over; FatalError where nothing may be."""
        if unreadable and self.on_unreadable == "stop":
            raise FatalError(f"{unreadable[0]}; to pass over what can't be read: [kafka.unreadable] = skip")
        for place in unreadable:
            last = self._unreadable[-1] if self._unreadable else place
            if (last.partition, last.last_offset + 1, last.why) == (place.partition, place.first_offset, place.why):
                self._unreadable[-1] = last._replace(last_offset=place.last_offset)  # one line for what is one flaw
            else:
                self._unreadable.append(place)

    def take_unreadable(self) -> Sequence[Unreadable]:
        """What was passed over since it was last asked."""
        unreadable, self._unreadable = self._unreadable, []
        return unreadable


@dataclass(slots=True)
class _Piece:
    """Records to hand over; behind them, what is passed over; then reading goes on at next_offset."""

    records: Sequence[Any]
    next_offset: int
    size: int = 0
    leader_epoch: int = -1
    unreadable: Sequence[Unreadable] = ()


class FetchedRecords:
    """A partition's part of a response: the interface of kafka-python's PartitionRecords, read a piece at a time.

    Behind the last record that is handed over, markers of transactions and records of aborted ones are passed over at
    once: `next_fetch_offset` becomes the position, and the position is what is committed.
    """

    def __init__(self, fetcher: BoundedFetcher, fetch_offset: int, place: Any, records: Any, **options: Any) -> None:
        self.topic_partition = place
        self.next_fetch_offset = fetch_offset
        self.leader_epoch = -1
        self.bytes_read = 0
        self._fetcher = fetcher
        self._partition = Partition(*place)
        self._fetch_offset = fetch_offset
        aborted = options["aborted_transactions"] or []
        self._aborted_transactions = deque(sorted(aborted, key=lambda transaction: transaction.first_offset))
        self._aborted_producers: set[int] = set()
        self._on_drain = options["on_drain"]
        self._batches = list(split(memoryview(records._buffer)))  # noqa: SLF001  # there is no public way
        self._pieces: Iterator[_Piece] | None = self._read()
        self._piece: _Piece | None = None
        self._error: FatalError | None = None

    def __bool__(self) -> bool:
        return self._pieces is not None

    def drain(self) -> None:
        """It is read, or not needed any more."""
        if self._pieces is not None:
            self._pieces, self._piece, self._batches = None, None, []
            self._on_drain(self)

    def take(self, max_records: int) -> list[Any]:
        """The next records, as many as the fetcher has room for. Raises FatalError, once there is none before it."""
        fetcher = self._fetcher
        records: list[Any] = []
        while len(records) < max_records and fetcher.handed_bytes < fetcher.max_bytes and self._has_piece():
            piece, room = self._piece, max_records - len(records)
            assert piece is not None  # noqa: S101  # _has_piece said so
            part, size = piece.records[:room], piece.size * room // max(room, len(piece.records))
            records += part
            piece.records, piece.size = piece.records[room:], piece.size - size
            fetcher.handed_bytes += size
            self.next_fetch_offset, self.leader_epoch = part[-1].offset + 1, piece.leader_epoch
        self._has_piece()  # what is no record is passed over now
        if self._error is not None and not records:
            raise self._error
        return records

    def _has_piece(self) -> bool:
        """Whether records are ready; passes over what is none before them."""
        try:
            while self._error is None and self._pieces is not None:
                piece = self._piece
                if piece is not None and piece.records:
                    return True
                if piece is not None:
                    self._fetcher.name(piece.unreadable)
                    self.next_fetch_offset, self.leader_epoch = piece.next_offset, piece.leader_epoch
                self._piece = next(self._pieces, None)
                if self._piece is None:
                    self.drain()
                else:
                    self.bytes_read += self._piece.size
        except FatalError as error:
            self._error = error
        return False

    def _read(self) -> Iterator[_Piece]:
        first = self._base_offset(0)  # a fetch can begin inside of a batch
        next_offset = self._fetch_offset if first is None else min(first, self._fetch_offset)
        for number, data in enumerate(self._batches):
            magic = data[_MAGIC_POSITION] if len(data) > _MAGIC_POSITION else -1
            if magic in {0, 1}:
                pieces = self._read_legacy(data, magic, next_offset)
            elif magic == 2 and len(data) >= RecordBatch.HEAD_BYTES:
                batch = RecordBatch(data)
                flaw = ""
                if self._fetcher.check_crcs and not batch.is_intact():
                    if self._fetcher.reads_again(self.topic_partition, batch.base_offset):
                        return  # the position stays in front of it
                    flaw = "the checksum of its record batch is wrong"
                elif self._overlaps(batch, number, next_offset):
                    batch.base_offset = next_offset
                    flaw = "the offsets of its record batch overlap those of its neighbours"
                pieces = self._read_flawed(batch, number, flaw) if flaw else self._read_batch(batch)
            else:
                why = f"its format {magic} is unknown" if magic > 2 else "a record batch is too short"
                pieces = self._pass_over(self._base_offset(number) or 0, self._end_of(number, None), why)
            for piece in pieces:
                next_offset = piece.next_offset = max(piece.next_offset, next_offset)
                if piece.next_offset > self._fetch_offset:
                    yield self._from_fetch_offset(piece)

    def _from_fetch_offset(self, piece: _Piece) -> _Piece:
        """A fetch can begin inside of a batch."""
        first = self._fetch_offset
        if piece.records and piece.records[0].offset < first:
            piece.records = [record for record in piece.records if record.offset >= first]
        if piece.unreadable:
            clipped = [place._replace(first_offset=max(place.first_offset, first)) for place in piece.unreadable]
            piece.unreadable = [place for place in clipped if place.records > 0]
        return piece

    def _overlaps(self, batch: RecordBatch, number: int, next_offset: int) -> bool:
        """Whether its offsets can't be right: the first one has no part in the checksum."""
        if batch.base_offset <= next_offset:
            return number > 0 and batch.base_offset < next_offset
        following = self._base_offset(number + 1)  # it leaves a gap, as after compaction, or lies too far ahead
        return following is not None and batch.last_offset >= following

    def _base_offset(self, number: int) -> int | None:
        if number >= len(self._batches):
            return None
        return int.from_bytes(self._batches[number][:8], "big", signed=True)

    def _end_of(self, number: int, batch: RecordBatch | None) -> int:
        """Where reading goes on behind a batch whose own words are not to be trusted."""
        first = int.from_bytes(self._batches[number][:8], "big", signed=True) if batch is None else batch.base_offset
        following = self._base_offset(number + 1)
        if following is not None:
            return following if following > first else first + 1
        if (
            batch is not None
            and 0 < batch.count <= MAX_PLAUSIBLE_RECORDS
            and batch.last_offset == first + batch.count - 1
        ):
            return int(batch.last_offset + 1)
        return max(first, self._fetch_offset) + 1  # what is left of it is fetched again

    def _read_batch(self, batch: RecordBatch) -> Iterator[_Piece]:
        behind = _Piece([], batch.last_offset + 1, leader_epoch=batch.leader_epoch)
        if self._fetcher.isolation_level == IsolationLevel.READ_COMMITTED and batch.producer_id >= 0:
            self._note_aborted(batch.last_offset)
            if batch.is_control_batch and self._is_abort_marker(batch):
                self._aborted_producers.discard(batch.producer_id)
            elif batch.is_transactional and batch.producer_id in self._aborted_producers:
                yield behind
                return
        if batch.is_control_batch:
            yield behind
            return
        reader = BatchReader(batch, self._partition, self._fetcher.limits)
        while not reader.is_finished:
            records = reader.read()
            yield _Piece(records, reader.next_offset, reader.size, batch.leader_epoch, reader.unreadable)

    def _note_aborted(self, up_to: int) -> None:
        while self._aborted_transactions and self._aborted_transactions[0].first_offset <= up_to:
            self._aborted_producers.add(self._aborted_transactions.popleft().producer_id)

    def _is_abort_marker(self, batch: RecordBatch) -> bool:
        records = BatchReader(batch, self._partition, self._fetcher.limits).read()
        return bool(records) and records[0].key == _ABORT_KEY

    def _read_flawed(self, batch: RecordBatch, number: int, why: str) -> Iterator[_Piece]:
        """The records of a batch that is not to be trusted: dead letters as far as they can be told apart."""
        end = self._end_of(number, batch)
        batch.last_offset = end - 1
        if batch.is_control_batch:
            yield from self._pass_over(batch.base_offset, end, why)
            return
        reader = BatchReader(batch, self._partition, self._fetcher.limits)
        while not reader.is_finished:
            records = reader.read()
            damaged = [record._replace(value=UnreadableValue(record.value or b"", why)) for record in records]
            unreadable = [place._replace(why=why) for place in reader.unreadable]
            yield _Piece(damaged, reader.next_offset, reader.size, batch.leader_epoch, unreadable)

    def _pass_over(self, first: int, end: int, why: str) -> Iterator[_Piece]:
        yield _Piece([], end, unreadable=[Unreadable(self._partition, first, end - 1, why)])

    def _read_legacy(self, data: memoryview, magic: int, next_offset: int) -> Iterator[_Piece]:
        records, last_offset, why = read_legacy(data, magic, self._fetcher.limits.record_bytes)
        if why:
            yield from self._pass_over(min(next_offset, last_offset), last_offset + 1, why)
            return
        entries = [
            ConsumerRecord(
                *self._partition, -1, one.offset, one.timestamp, one.timestamp_type, one.key, one.value, [], None,
                -1 if one.key is None else len(one.key), -1 if one.value is None else len(one.value), -1,
            )
            for one in records
        ]  # fmt: skip
        yield _Piece(entries, last_offset + 1, len(data) + RECORD_OVERHEAD_BYTES * len(entries))
