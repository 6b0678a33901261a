"""How large a record may be: what the client and each topic take, as far as the broker tells or its refusals teach."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from worker.records import Outgoing

BATCH_OVERHEAD: Final = 96  # bytes of the fields of a batch (61) and of its record (up to 26) around their content
HEADER_OVERHEAD: Final = 10  # bytes of the two lengths of a header, at most
MAX_UNACKNOWLEDGED_BYTES: Final = 32 << 20


def record_bytes(outgoing: Outgoing) -> int:
    """Bytes of a batch that holds this record alone, uncompressed: what a topic's max.message.bytes is compared with.

    Up to 70 bytes more than it is, never less.

    >>> record_bytes(Outgoing("out", b"key", b"value", (("name", b"text"),)))
    122
    """
    size = BATCH_OVERHEAD + len(outgoing.key or b"") + len(outgoing.value or b"")
    for name, value in outgoing.headers:
        size += (len(name) if name.isascii() else len(name.encode())) + len(value or b"") + HEADER_OVERHEAD
    return size


def portions(records: Sequence[Outgoing]) -> Iterator[Sequence[Outgoing]]:
    """The records in their order, in parts of MAX_UNACKNOWLEDGED_BYTES that are acknowledged one after the other.

    The client holds a copy of what is not acknowledged, and has one delivery timeout for all of it: without parts, the
    results of a batch of large records would neither fit into memory nor into that time.
    """
    sizes = list(map(record_bytes, records))
    if sum(sizes) <= MAX_UNACKNOWLEDGED_BYTES:
        yield from [records] if records else []
        return
    start = total = 0
    for end, size in enumerate(sizes):
        if total + size > MAX_UNACKNOWLEDGED_BYTES and end > start:
            yield records[start:end]
            start, total = end, 0
        total += size
    yield records[start:]


class RecordLimits:
    """The limits of one process's results, kept over its producers.

    Where the broker tells a topic's max.message.bytes, what is too large is known before anything is sent. Where it
    doesn't (the user lacks DESCRIBE_CONFIGS), a refusal teaches that the limit lies below what was refused; half of
    that counts from then on. So all that could be refused as well is shortened at once, instead of record by record,
    each with a publication of its own; the price is that some are shortened which the topic would have taken.
    """

    def __init__(self) -> None:
        self._stated: dict[str, int] = {}
        self._refused: dict[str, int] = {}

    def tell(self, max_bytes: Mapping[str, int]) -> None:
        """The broker's own words, by topic."""
        self._stated |= max_bytes

    def refuse(self, outgoing: Outgoing) -> None:
        """The broker found this record too large."""
        size = record_bytes(outgoing)
        self._refused[outgoing.topic] = min(size, self._refused.get(outgoing.topic, size))

    def max_record_bytes(self, topic: str, *, compressed: bool = False) -> int | None:
        """Bytes of the largest record that the topic takes; None = not known.

        compressed   the client compresses: the broker speaks of the outcome of that, which counts for nothing here
        """
        stated, refused = None if compressed else self._stated.get(topic), self._refused.get(topic)
        if refused is not None and (stated is None or stated >= refused):
            return refused // 2
        return stated

    def batch_bytes(self, default: int) -> int:
        """Bytes of a batch that every topic takes; a larger one would be refused although its records are small."""
        return min([default, *self._stated.values()])
