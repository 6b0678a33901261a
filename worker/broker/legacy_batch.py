"""Records of Kafka's formats 0 and 1, which brokers before 4.0 may still hold: read whole, or not at all."""

from collections.abc import Sequence
from struct import error as StructError  # noqa: N812  # it is named like a function
from struct import unpack_from
from typing import Any

from kafka.errors import CorruptRecordError
from kafka.record.legacy_records import LegacyRecordBatch
from typing_extensions import override

from worker.broker.compression import UnpackError, unpacked


class _Legacy(LegacyRecordBatch):  # type: ignore[misc]  # kafka-python ships no types
    """kafka-python's, unpacked within a bound."""

    def __init__(self, data: memoryview, magic: int, max_bytes: int) -> None:
        super().__init__(data, magic)
        self._max_bytes = max_bytes

    @override
    def _decompress(self, key_offset: int) -> bytes:
        position = key_offset
        for _ in range(2):  # the key, then the value, which holds all records
            (size,) = unpack_from(">i", self._buffer, position)
            data = self._buffer[position + 4 : position + 4 + max(0, size)]
            position += 4 + max(0, size)
        return b"".join(unpacked(self.compression_type, data, self._max_bytes))


def read_legacy(data: memoryview, magic: int, max_bytes: int) -> tuple[Sequence[Any], int, str]:
    """The records of a message set, its last offset, and why there are none, else "".

    Raises FatalError where the package of its codec is missing.
    """
    last_offset = int.from_bytes(data[:8], "big", signed=True)
    try:
        batch = _Legacy(data, magic, max_bytes)
        records = list(batch) if batch.validate_crc() else []
        intact = bool(records) and all(record.validate_crc() for record in records)
    except UnpackError as error:
        return [], last_offset, str(error)
    except (CorruptRecordError, AssertionError, IndexError, ValueError, StructError):
        intact = False
    return (records, last_offset, "") if intact else ([], last_offset, "its checksum or a length in it is wrong")
