"""A sample that is spread over all of a source, in the order of its records."""

import heapq
from collections.abc import Iterable, Sequence
from random import Random
from typing import NamedTuple

from worker.formats.base import decoded_bytes
from worker.records import RawMessage

LARGE = 64  # a record that takes this part of the memory pushes out no others


class SampledMessages(NamedTuple):
    """messages in the order of the source; records: of how many; full: fewer than were asked for, for their size."""

    messages: list[RawMessage]
    records: int
    full: bool


def sample_messages(
    batches: Iterable[Sequence[RawMessage]], limit: int, *, max_bytes: int, seed: int = 0
) -> SampledMessages:
    """A uniform random sample of a source whose length nobody knows, in one pass.

    Each record draws a number, and those with the lowest are kept (bottom-k sampling: Cohen and Kaplan, "Summarizing
    Data Using Bottom-k Sketches", PODC 2007). So a record that is too much for the memory pushes out the one that drew
    highest, and what is kept is a uniform sample still, only a smaller one; a record of a 64th of the memory is passed
    over where there is no room. It works badly for what is rarer than one in as many records as it keeps: that may not
    be in it.

    batches     all records; a source that never ends is never finished
    limit       records to keep
    max_bytes   about what the kept ones may take when they are decoded; at least one is kept
    seed        of the draws: the same records give the same sample

    >>> from worker.records import Message
    >>> batch = [Message("in", 0, n, -1, None, b"{}") for n in range(1000)]
    >>> [message.offset for message in sample_messages([batch], 5, max_bytes=1 << 20).messages]
    [40, 186, 402, 583, 993]
    """
    draw = Random(seed).random  # noqa: S311  # a sample is no secret
    kept: list[tuple[float, int, int, RawMessage]] = []  # a heap with the highest draw on top
    records, held, highest, full = 0, 0, 1.0, False
    for messages in batches:
        for message in messages:
            number = draw()
            records += 1
            if number >= highest:  # as it would have been dropped: most records cost one draw
                continue
            size = decoded_bytes(message.value)
            if size > max_bytes // LARGE and held + size > max_bytes and kept:
                full = True
                continue
            heapq.heappush(kept, (-number, records, size, message))
            held += size
            while len(kept) > limit or (held > max_bytes and len(kept) > 1):
                full = full or len(kept) <= limit
                dropped, _, size, _ = heapq.heappop(kept)
                held, highest = held - size, -dropped
    kept.sort(key=lambda entry: entry[1])
    return SampledMessages([message for *_, message in kept], records, full)
