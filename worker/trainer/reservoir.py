"""The recent traffic that a refit learns from: a sample that fades with age.

Why a record's key is drawn from its place and its time, not from a generator:

- The draw is a hash of partition, offset and seed, so a record has the same key whoever reads it, in whatever batches,
  before or after a restart. A generator's state would depend on the order of the calls: two trainers of one topic, or a
  replay of what a trainer saw, would learn from different records, and no difference between them could be explained.
- The weight is an exponential of the record's time alone. Ages then never have to be brought up to date: only the order
  of two keys matters, and as time goes on both of their weights fade by the same factor.
- So the sample of two streams is the `size` smallest keys of both, and a saved reservoir goes on as if nothing had
  happened.
- A second draw, with another seed, splits the rows of a fit (`split_draw`): a record that was fitted on at one check is
  fitted on at the next, so a candidate is never judged on rows that its predecessor learned from.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.records import FloatArray, RawMessage
from worker.rollout.paired import hashes, mix

_PER_PARTITION = np.uint64(0x632BE59BD9B4E019)  # odd, so that no two partitions share their numbers
_SLACK = 2  # it grows to this many times its size before it is trimmed
_SLACK_BYTES = 1.25
_MAX_SHARE = 1 / 16  # of the bytes that one record may take: a larger one would push out too many others


@dataclass(frozen=True, slots=True)
class ReservoirRecords:
    """Records in order of arrival.

    values       their bytes, length R
    time_ms      int64 (R,), UTC
    number       int64 (R,), how many came before each
    split_draw   uniform in (0, 1), float64 (R,), to split them by
    key          float64 (R,), the smallest stay
    """

    values: list[bytes]
    time_ms: NDArray[np.int64]
    number: NDArray[np.int64]
    split_draw: FloatArray
    key: FloatArray

    def __len__(self) -> int:
        return len(self.values)

    def take(self, index: NDArray[np.int64]) -> "ReservoirRecords":
        """These records, int64 (n,)."""
        columns = (column[index] for column in self.columns())
        return ReservoirRecords([self.values[position] for position in index.tolist()], *columns)

    def columns(self) -> tuple[NDArray[Any], ...]:
        """All but the values."""
        return self.time_ms, self.number, self.split_draw, self.key


class Reservoir:
    """A weighted random sample of a stream, without replacement: a record's chance halves with every half-life.

    Every record draws a key, the logarithm of an exponential variable over its weight; the `size` smallest keys are
    kept. The rate of the topic and its batches bear on nothing.

    It works badly where times are wrong: records from the far future push out all others until their time has come.
    Kinds of records that are rare in the stream are rare in it, too.

    size          records that are kept
    half_life_s   of event time; records without a time age by count, with `size` records as the half-life
    seed          of all draws
    max_bytes     of the records' values; where they are wide, fewer are kept, and none above a sixteenth of it

    >>> from worker.records import Message
    >>> reservoir = Reservoir(3, half_life_s=60)
    >>> times = np.array([0, 0, 0, 0, 3_600_000, 3_600_000, 3_600_000])
    >>> reservoir.add([Message("t", 0, i, -1, None, b"%d" % i) for i in range(7)], times)
    >>> reservoir.records().values
    [b'4', b'5', b'6']

    Efraimidis and Spirakis, Weighted random sampling with a reservoir (2006); Cormode et al., Forward decay (2009).
    """

    def __init__(self, size: int, *, half_life_s: float, seed: int = 0, max_bytes: int = 256 << 20) -> None:
        self.size = size
        self.seed = seed
        self._half_life_ms = half_life_s * 1000
        self.max_bytes = max_bytes
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        numbers, draws = np.empty(0, np.int64), np.empty(0)
        self.restore(ReservoirRecords([], numbers, numbers, draws, draws), 0)

    def restore(self, records: ReservoirRecords, seen: int) -> None:
        """Go on from what `records()` gave; seen: records that had come until then."""
        self._records, self.seen = records, seen
        self._bytes = sum(map(len, records.values))

    def __len__(self) -> int:
        return min(len(self._records), self.size)

    def add(self, messages: Sequence[RawMessage], time_ms: NDArray[np.int64]) -> None:
        """Let records (B,) in. time_ms: int64 (B,), UTC, below 0 where a record has no time."""
        if not messages:
            return
        number = self.seen + np.arange(len(messages))
        draw, split_draw = uniform_of(messages, self.seed), uniform_of(messages, self.seed + 1)
        age = np.where(time_ms >= 0, time_ms / self._half_life_ms, number / self.size)
        key = np.log(-np.log(draw)) - math.log(2) * age
        new = ReservoirRecords(
            [message.value or b"" for message in messages], time_ms.astype(np.int64), number, split_draw, key
        )
        sizes = np.fromiter(map(len, new.values), np.int64, len(new))
        if (sizes > _MAX_SHARE * self.max_bytes).any():
            new = new.take(np.flatnonzero(sizes <= _MAX_SHARE * self.max_bytes))
        columns = [np.concatenate(pair) for pair in zip(self._records.columns(), new.columns(), strict=True)]
        self._records = ReservoirRecords(self._records.values + new.values, *columns)
        self._bytes += sum(map(len, new.values))
        self.seen += len(messages)
        if len(self._records) > _SLACK * self.size or self._bytes > _SLACK_BYTES * self.max_bytes:
            self._trim()

    def records(self) -> ReservoirRecords:
        """What it holds now, in order of arrival."""
        self._trim()
        return self._records

    def _trim(self) -> None:
        order = np.argsort(self._records.key, kind="stable")[: self.size]
        sizes = np.fromiter((len(self._records.values[position]) for position in order.tolist()), np.int64, len(order))
        self.restore(self._records.take(np.sort(order[np.cumsum(sizes) <= self.max_bytes])), self.seen)


def uniform_of(messages: Sequence[RawMessage], seed: int) -> FloatArray:
    """A number in (0, 1) for each record, float64 (B,), from its partition and offset."""
    partition = np.fromiter((message.partition for message in messages), np.uint64, len(messages))
    mixed = mix(hashes(messages) + partition * _PER_PARTITION + np.uint64(seed))
    return ((mixed >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
