"""Records out of one record batch of Kafka's format 2, a piece at a time; what can't be read costs itself alone.

kafka-python reads a batch record by record through several objects, and raises for a flaw of one of them at every poll
again. Here the good path is one loop over bytes; whatever stops that loop is sorted out beside it:

    a header name that isn't UTF-8            the record is read, the name keeps its bytes
    a record whose fields contradict it       an UnreadableValue with the record's bytes: it becomes a dead letter
    a record that is too large when unpacked  passed over and named
    a length that leads nowhere               the rest of the batch as one UnreadableValue; further offsets are named
    garbage in a compressed batch             the rest of the batch is named
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from kafka.consumer.fetcher import ConsumerRecord
from kafka.record.default_records import DefaultRecordBase as Format
from kafka.record.util import calc_crc32c, decode_varint
from typing_extensions import override

from worker.broker.base import Unreadable
from worker.broker.compression import PIECE_BYTES, UnpackError, unpacked
from worker.records import NO_TIME, Partition, UnreadableValue

# What a record takes in memory beside its bytes: the client's object, and its row when it is decoded.
RECORD_OVERHEAD_BYTES: Final = 512
HEADER_OVERHEAD_BYTES: Final = 128
MAX_HEADERS: Final = 10_000  # of one record: two bytes each in the batch, and sixty times as many in memory
MAX_LENGTH_BYTES: Final = 10  # of a varint
INT64: Final = range(-(1 << 63), 1 << 63)


class HeaderName(str):
    """A header name that isn't UTF-8: readable as text, and encoded it is the bytes that it was."""

    __slots__ = ("raw",)
    raw: bytes

    def __new__(cls, raw: bytes) -> "HeaderName":  # noqa: D102  # the class says it
        name = super().__new__(cls, raw.decode(errors="backslashreplace"))
        name.raw = raw
        return name

    @override
    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return self.raw


class RecordBatch:
    """The head of a record batch, and its bytes. Raises struct.error where these are too few."""

    HEAD_BYTES = Format.HEADER_STRUCT.size

    def __init__(self, data: memoryview) -> None:
        self.data = data
        head = Format.HEADER_STRUCT.unpack_from(data)
        self.base_offset, _, self.leader_epoch, self.magic, self.crc, self.attributes = head[:6]
        self.last_offset = self.base_offset + head[6]
        self.first_timestamp, self.max_timestamp, self.producer_id = head[7:10]
        self.count = head[12]

    @property
    def codec(self) -> int:
        """Of its records; 0 = none."""
        return int(self.attributes & Format.CODEC_MASK)

    @property
    def is_control_batch(self) -> bool:
        """Whether it is the marker of a transaction's end."""
        return bool(self.attributes & Format.CONTROL_MASK)

    @property
    def is_transactional(self) -> bool:
        """Whether a transaction wrote it."""
        return bool(self.attributes & Format.TRANSACTIONAL_MASK)

    def is_intact(self) -> bool:
        """Whether its checksum is that of its bytes."""
        return bool(calc_crc32c(self.data[Format.ATTRIBUTES_OFFSET :]) == self.crc)


@dataclass(frozen=True, slots=True)
class UnpackLimits:
    """What a compressed record batch may unpack to, in bytes: all of it, and one record of it."""

    batch_bytes: int = 256 << 20

    @property
    def record_bytes(self) -> int:
        """Of one record: it is held at once."""
        return self.batch_bytes // 4


class BatchReader:
    """Reads one batch from front to back.

    next_offset   where the next record can stand; behind the batch once it is finished
    size          bytes of memory that the records of the last piece take, about
    unreadable    what the last piece had to pass over
    """

    def __init__(self, batch: RecordBatch, partition: Partition, limits: UnpackLimits) -> None:
        self.next_offset = int(batch.base_offset)
        self.size = 0
        self.unreadable: list[Unreadable] = []
        self._batch = batch
        self._partition = partition
        self._limits = limits
        self._left = batch.count
        # Compaction leaves gaps between offsets; where it took nothing, a gap is a flaw.
        self._is_dense = batch.count == batch.last_offset - batch.base_offset + 1
        self._is_finished = False
        self._log_append_time = bool(batch.attributes & Format.TIMESTAMP_TYPE_MASK)
        body = batch.data[RecordBatch.HEAD_BYTES :]
        # Bytes, not a view of them: slices of it are what records are made of.
        self._buffer, self._position = (b"", 0) if batch.codec else (bytes(body), 0)
        self._source: Iterator[bytes] | None = unpacked(batch.codec, body, limits.batch_bytes) if batch.codec else None
        self._is_touched = not batch.codec

    @property
    def is_finished(self) -> bool:
        """Whether all of it was read, or passed over."""
        return self._is_finished

    def read(self) -> list[Any]:
        """The next records, about a megabyte of them; what is `unreadable` stands behind them.

        Raises FatalError where the package of its codec is missing.
        """
        records: list[Any] = []
        self.size, self.unreadable = 0, []
        while self._left > 0 and self.size < PIECE_BYTES and not self.unreadable:
            before = self._position
            end = min(before + PIECE_BYTES - self.size, len(self._buffer))
            records += self._sound_records(end)
            self.size += self._position - before
            if self._position < end or self._position == len(self._buffer):
                self._go_on(records)
        if self._left <= 0:
            self._finish()
        self.size += RECORD_OVERHEAD_BYTES * len(records)
        return records

    def _sound_records(self, end: int) -> list[Any]:
        """Records from the position on, up to the first that is not whole or not sound, or that begins behind `end`."""
        batch, buffer, start = self._batch, self._buffer, self._position
        topic, number, epoch, last_offset = *self._partition, batch.leader_epoch, batch.last_offset
        base, first_time, kind = batch.base_offset, batch.first_timestamp, int(self._log_append_time)
        left, next_offset, size = self._left, self.next_offset, len(buffer)
        varint, new, dense = decode_varint, tuple.__new__, self._is_dense
        records: list[Any] = []
        append, pos = records.append, start
        try:
            while left > 0 and pos < end:
                length, pos = varint(buffer, pos)
                stop = pos + length
                if length <= 0 or stop > size:
                    break
                delta, pos = varint(buffer, pos + 1)  # behind the attributes, which say nothing yet
                time = batch.max_timestamp if kind else first_time + delta
                delta, pos = varint(buffer, pos)
                offset = base + delta
                key_size, pos = varint(buffer, pos)
                key = None
                if key_size >= 0:
                    key = buffer[pos : pos + key_size]
                    pos += key_size
                value_size, pos = varint(buffer, pos)
                value = None
                if value_size >= 0:
                    value = buffer[pos : pos + value_size]
                    pos += value_size
                count, pos = varint(buffer, pos)
                headers: list[Any] = []
                if count:
                    headers, pos = _headers(buffer, pos, count)
                    self.size += HEADER_OVERHEAD_BYTES * count
                if pos != stop or (offset != next_offset and (dense or not next_offset < offset <= last_offset)):
                    break
                if time not in INT64:
                    time = NO_TIME
                row = (topic, number, epoch, offset, time, kind, key, value, headers, None, key_size, value_size, -1)
                append(new(ConsumerRecord, row))
                start, next_offset, left = pos, offset + 1, left - 1
        except (IndexError, ValueError):  # the varint is cut off, or none
            pass
        self._position, self.next_offset, self._left = start, next_offset, left
        return records

    def _go_on(self, records: list[Any]) -> None:
        """Past what stopped the loop: more bytes of the batch, one record that is no good, or its end."""
        if self._left <= 0:
            return
        start = self._position
        try:
            length, body = decode_varint(self._buffer, start)
        except (IndexError, ValueError):
            missing = MAX_LENGTH_BYTES - (len(self._buffer) - start)
            if missing > 0 and self._source is not None:
                self._fill(1)
            else:
                self._give_up(records, "the length of a record can't be read")
            return
        stop = body + length
        if length <= 0:
            self._give_up(records, f"a record has a length of {length}")
        elif stop <= len(self._buffer):
            self._take_unsound(records, body, stop)
        elif self._source is None:
            self._give_up(records, f"a record of {length} bytes is cut off")
        elif length > self._limits.record_bytes:
            self._name(self.next_offset, f"a record unpacks to {length} bytes, more than {self._limits.record_bytes}")
            self.next_offset, self._left = self.next_offset + 1, self._left - 1
            self._fill(stop - len(self._buffer), keep=False)
        else:
            self._fill(stop - len(self._buffer))

    def _fill(self, size: int, *, keep: bool = True) -> None:
        """At least `size` more bytes, as long as there are any: behind what was not read yet, or instead of it."""
        pieces = [self._buffer[self._position :]] if keep else []
        missing, self._is_touched = size, True
        try:
            while missing > 0 and self._source is not None:
                piece = next(self._source, None)
                if piece is None:
                    self._source = None
                    break
                missing -= len(piece)
                if keep or missing < 0:
                    pieces.append(piece if keep else piece[missing:])
        except UnpackError as error:
            self._source = None
            self._name(self.next_offset, str(error), self._batch.last_offset)
            self._left, self.next_offset, pieces = 0, self._batch.last_offset + 1, []
        self._buffer, self._position = b"".join(pieces), 0

    def _take_unsound(self, records: list[Any], body: int, stop: int) -> None:
        """A record whose end is known: only it is no good."""
        offset = self._offset_at(body)
        self._add(records, offset, self._buffer[self._position : stop], "the record's fields contradict its length")
        self._position, self.next_offset, self._left = stop, offset + 1, self._left - 1

    def _offset_at(self, body: int) -> int:
        try:
            _, pos = decode_varint(self._buffer, body + 1)
            delta, _ = decode_varint(self._buffer, pos)
        except (IndexError, ValueError):
            return self.next_offset
        offset = int(self._batch.base_offset + delta)
        return (
            offset if not self._is_dense and self.next_offset <= offset <= self._batch.last_offset else self.next_offset
        )

    def _give_up(self, records: list[Any], why: str) -> None:
        """Nothing behind this can be told apart: its bytes stand for the first record of it, the others are named."""
        rest, first = self._buffer[self._position :], self.next_offset
        if rest and first <= self._batch.last_offset:
            self._add(records, first, rest, why)
            first += 1
        self._name(first, why, self._batch.last_offset)
        self._left, self._position = 0, len(self._buffer)

    def _add(self, records: list[Any], offset: int, raw: bytes, why: str) -> None:
        epoch, time = self._batch.leader_epoch, self._batch.max_timestamp
        value = UnreadableValue(raw, why)
        records.append(
            ConsumerRecord(*self._partition, epoch, offset, time, 0, None, value, [], None, -1, len(raw), -1)
        )
        self.size += len(raw)

    def _name(self, first: int, why: str, last: int | None = None) -> None:
        last = first if last is None else last
        if first > last:
            return
        if self.unreadable and self.unreadable[-1].last_offset == first - 1:  # one line for all that one flaw costs
            self.unreadable[-1] = self.unreadable[-1]._replace(last_offset=last)
        else:
            self.unreadable.append(Unreadable(self._partition, first, last, why))

    def _finish(self) -> None:
        self._is_finished = True
        last_offset = self._batch.last_offset
        untouched = not self._is_touched and len(self._batch.data) > RecordBatch.HEAD_BYTES
        if untouched or self._position < len(self._buffer):
            self._name(self.next_offset, "more bytes follow than its count of records allows", last_offset)
        self.next_offset = max(self.next_offset, last_offset + 1)  # compaction keeps a batch's last offset
        self._source, self._buffer, self._position, self._left = None, b"", 0, 0


def _headers(buffer: bytes, pos: int, count: int) -> tuple[list[tuple[str, bytes | None]], int]:
    """The headers at a position, and where they end. ValueError, IndexError where there are none."""
    if not 0 < count <= MAX_HEADERS:
        raise ValueError(f"{count} headers")
    headers: list[tuple[str, bytes | None]] = []
    for _ in range(count):
        size, pos = decode_varint(buffer, pos)
        if size < 0:
            raise ValueError("a header without a name")
        raw = buffer[pos : pos + size]
        pos += size
        size, pos = decode_varint(buffer, pos)
        value = None
        if size >= 0:
            value = buffer[pos : pos + size]
            pos += size
        try:
            headers.append((raw.decode(), value))
        except UnicodeDecodeError:
            headers.append((HeaderName(raw), value))
    return headers, pos


def split(data: memoryview) -> Iterator[memoryview]:
    """The whole record batches in a fetch; what is cut off at its end is fetched again."""
    position = 0
    while position + Format.AFTER_LEN_OFFSET <= len(data):
        length = int.from_bytes(data[position + 8 : position + 12], "big", signed=True)
        end = position + Format.AFTER_LEN_OFFSET + length
        if length <= 0 or end > len(data):
            return
        yield data[position:end]
        position = end
