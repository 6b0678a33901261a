"""The window of recent traffic that a refit learns from: a sample that fades with age.

Every record draws a key from its place alone, weighted by an exponential of its time; the `size` smallest keys are
kept. So a record's chance to be in it halves with every half-life, whatever the rate of the topic and however the
records were batched (Efraimidis and Spirakis 2006, weighted sampling; Cormode et al. 2009, "Forward decay").
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.records import FloatArray, RawMessage
from worker.rollout.paired import hashes, mix

_PER_PARTITION = np.uint64(0x632BE59BD9B4E019)  # odd, so that no two partitions share their numbers
_SLACK = 2  # it grows to this many times its size before it is cut back


@dataclass(frozen=True, slots=True)
class Sample:
    """Records in order of arrival.

    values: their bytes, length R. time_ms: int64 (R,), UTC. number: int64 (R,), how many came before each.
    fold: uniform in (0, 1), float64 (R,), to split them by.
    """

    values: list[bytes]
    time_ms: NDArray[np.int64]
    number: NDArray[np.int64]
    fold: FloatArray

    def __len__(self) -> int:
        return len(self.values)

    def take(self, index: NDArray[np.int64]) -> "Sample":
        """These records, int64 (n,)."""
        return Sample(
            [self.values[place] for place in index.tolist()],
            self.time_ms[index],
            self.number[index],
            self.fold[index],
        )


class Reservoir:
    """At most `size` records and about `max_bytes` bytes.

    half_life_s: of event time. Records without a time age by count instead, with `size` records as the half-life.
    """

    def __init__(self, size: int, *, half_life_s: float, seed: int = 0, max_bytes: int = 256 << 20) -> None:
        self.size = size
        self.seed = seed
        self._half_life_ms = half_life_s * 1000
        self._max_bytes = max_bytes
        self.seen = 0
        self._key = np.empty(0)
        self._sample = Sample([], np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))

    def __len__(self) -> int:
        return min(len(self._sample), self.size)

    def add(self, messages: Sequence[RawMessage], time_ms: NDArray[np.int64]) -> None:
        """Let records (B,) in. time_ms: int64 (B,), UTC, below 0 where a record has no time."""
        count = len(messages)
        if not count:
            return
        number = self.seen + np.arange(count)
        self.seen += count
        draw, fold = uniform_of(messages, self.seed), uniform_of(messages, self.seed + 1)
        age = np.where(time_ms >= 0, time_ms / self._half_life_ms, number / self.size)
        key = np.log(-np.log(draw)) - math.log(2) * age
        values = [message.value or b"" for message in messages]
        self._extend(key, Sample(values, time_ms.astype(np.int64), number, fold))

    def _extend(self, key: FloatArray, more: Sample) -> None:
        old = self._sample
        self._key = np.concatenate([self._key, key])
        self._sample = Sample(
            old.values + more.values,
            np.concatenate([old.time_ms, more.time_ms]),
            np.concatenate([old.number, more.number]),
            np.concatenate([old.fold, more.fold]),
        )
        if len(self._sample) > _SLACK * self.size:
            self._cut()

    def _cut(self) -> None:
        order = np.argsort(self._key, kind="stable")[: self.size]
        sizes = np.fromiter((len(self._sample.values[place]) for place in order.tolist()), np.int64, len(order))
        kept = np.sort(order[np.cumsum(sizes) <= self._max_bytes])
        self._key, self._sample = self._key[kept], self._sample.take(kept)

    def sample(self) -> Sample:
        """What it holds now, in order of arrival."""
        self._cut()
        return self._sample

    def restore(self, sample: Sample, key: FloatArray, seen: int) -> None:
        """Go on from what `sample()` and `keys()` gave."""
        self._sample, self._key, self.seen = sample, key, seen

    def emptied(self) -> "Reservoir":
        """A new one with the same bounds."""
        return Reservoir(self.size, half_life_s=self._half_life_ms / 1000, seed=self.seed, max_bytes=self._max_bytes)

    def keys(self) -> FloatArray:
        """The keys of `sample()`, float64 (R,)."""
        self._cut()
        return self._key


def uniform_of(messages: Sequence[RawMessage], seed: int) -> FloatArray:
    """A number in (0, 1) for each record, float64 (B,), from its partition and offset."""
    partition = np.fromiter((message.partition for message in messages), np.uint64, len(messages))
    mixed = mix(hashes(messages) + partition * _PER_PARTITION + np.uint64(seed))
    return ((mixed >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
