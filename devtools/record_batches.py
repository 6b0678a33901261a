"""Record batches as brokers keep them: built, broken on purpose, and read as the consumer reads a fetch of them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from kafka import TopicPartition
from kafka.record.default_records import DefaultRecordBase as Format
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder
from kafka.record.util import calc_crc32c, encode_varint

from worker.broker.base import Unreadable
from worker.broker.fetching import BoundedFetcher, OnUnreadable
from worker.broker.record_batch import UnpackLimits, split
from worker.records import Headers, UnreadableValue

HEAD = Format.HEADER_STRUCT
Edit = Callable[[bytearray], None]


class Reading(NamedTuple):
    """What became of a fetch. next_offset: where the next one begins. polls: bytes that each poll handed over."""

    records: Sequence[Any]
    unreadable: Sequence[Unreadable]
    next_offset: int
    polls: Sequence[int]

    def sound(self) -> list[int]:
        """Offsets of the records that could be read."""
        return [record.offset for record in self.records if not isinstance(record.value, UnreadableValue)]

    def dead(self) -> list[int]:
        """Offsets of those whose bytes are handed over as unreadable."""
        return [record.offset for record in self.records if isinstance(record.value, UnreadableValue)]

    def named(self) -> list[int]:
        """Offsets that were passed over."""
        return [offset for place in self.unreadable for offset in range(place.first_offset, place.last_offset + 1)]


def batch(
    values: Sequence[bytes | None], *, base: int = 0, codec: int = 0, key: bytes | None = None, headers: Headers = ()
) -> bytearray:
    """A record batch of format 2."""
    builder = MemoryRecordsBuilder(2, codec, 1 << 30)
    for number, value in enumerate(values):
        builder.append(1_700_000_000_000 + number, key, value, list(headers))
    builder.close()
    raw = bytearray(builder.buffer())
    raw[:8] = base.to_bytes(8, "big")
    return raw


def from_records(records: Sequence[bytes], *, base: int = 0, count: int | None = None) -> bytearray:
    """A batch whose records are these bytes, whatever they are."""
    body = b"".join(records)
    number = len(records) if count is None else count
    raw = bytearray(HEAD.size) + body
    HEAD.pack_into(raw, 0, base, len(raw) - 12, 0, 2, 0, 0, number - 1, 0, 0, -1, -1, -1, number)
    return with_checksum(raw)


def record(delta: int, value: bytes, *, length: int | None = None, **fields: int) -> bytes:
    """The bytes of one record. length and fields (key_size, value_size, headers): other numbers than the right ones."""
    body = bytearray(b"\0")
    encode_varint(0, body.append)
    encode_varint(delta, body.append)
    encode_varint(fields.get("key_size", -1), body.append)
    encode_varint(fields.get("value_size", len(value)), body.append)
    body += value
    encode_varint(fields.get("headers", 0), body.append)
    head = bytearray()
    encode_varint(len(body) if length is None else length, head.append)
    return bytes(head + body)


def with_checksum(raw: bytearray) -> bytearray:
    """The batch with the checksum that its bytes have now."""
    checksum = calc_crc32c(memoryview(raw)[Format.ATTRIBUTES_OFFSET :])
    raw[Format.CRC_OFFSET : Format.CRC_OFFSET + 4] = checksum.to_bytes(4, "big")
    return raw


def edited(raw: bytearray, edit: Edit) -> bytearray:
    """The batch after an edit, with its checksum."""
    edit(raw)
    return with_checksum(raw)


def tamper(log_file: Path, edits: Callable[[int], tuple[Edit, bool] | None]) -> None:
    """Changes record batches of a log in their place; each keeps its length.

    edits: how to change the batch of a number, and whether it gets the right checksum; None leaves it
    """
    position = 0
    with log_file.open("r+b") as file:
        for number, data in enumerate(split(memoryview(log_file.read_bytes()))):
            if (entry := edits(number)) is not None:
                edit, checksum = entry
                changed = bytearray(data)
                edit(changed)
                assert len(changed) == len(data), "a batch in a log keeps its length"
                file.seek(position)
                file.write(with_checksum(changed) if checksum else changed)
            position += len(data)


def spoil(log_file: Path, edit: Edit, *, number: int = 1, checksum: bool = True) -> None:
    """Changes one record batch of a log. checksum: and gives it the right one."""
    tamper(log_file, lambda this: (edit, checksum) if this == number else None)


def read(
    data: bytes | bytearray,
    *,
    fetch_offset: int = 0,
    max_records: int = 8192,
    max_bytes: int = 1 << 40,
    fetches: int = 3,
    limits: UnpackLimits = UnpackLimits(),  # noqa: B008  # frozen
    on_unreadable: OnUnreadable = "skip",
) -> Reading:
    """As polls of a consumer would have it; the same bytes are fetched again where the consumer asks for it."""
    place = TopicPartition("in", 0)
    nothing: Any = SimpleNamespace(_manager=SimpleNamespace(_net=None))
    fetcher = BoundedFetcher(nothing, None, limits=limits, on_unreadable=on_unreadable)
    fetcher.max_bytes = max_bytes
    records: list[Any] = []
    polls: list[int] = []
    for _ in range(fetches):
        part = fetcher.PartitionRecords(
            fetch_offset, place, MemoryRecords(bytes(data)), aborted_transactions=None, on_drain=lambda _: None
        )
        while part:
            fetcher.handed_bytes = 0
            records += part.take(max_records)
            polls.append(fetcher.handed_bytes)
        fetch_offset = part.next_fetch_offset
    return Reading(records, fetcher.take_unreadable(), fetch_offset, polls)
