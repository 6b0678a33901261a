"""A partition's threshold: compare first, then update, at fixed record counts.

A record is an exceedance where `score > threshold`, strictly: a constant stream, whose quantile is its own score, has
none, and a threshold of exactly 0.0 is a threshold like any other.
"""

import base64
from typing import Any, NamedTuple, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray
from typing_extensions import override

from worker.records import NO_TIME, FloatArray, TimeArray
from worker.thresholds.severity import SeverityOrder
from worker.thresholds.window import MAX_SAVED, decode_scores, encode_scores, require_finite, saved_integer

STRIDE = 256  # records between two updates of a threshold


class ThresholdPolicy(Protocol):
    """What turns past scores of one partition into its threshold. No clock, no I/O, deterministic.

    Its state is a small head (plain data for JSON) and slots of bytes; only slots that changed need to be saved again.
    """

    def threshold(self) -> float | None:
        """The threshold for the next record; None before there is one."""

    def update(self, scores: FloatArray, event_time_ms: TimeArray | None = None) -> None:
        """Learn one stride of scores, in offset order. ValueError if one is not finite, and nothing is learned."""

    def tail_probability(self, scores: FloatArray) -> FloatArray:
        """Estimated share of inliers with a score at least as high, for scores (B,): float64 (B,); NaN: not known."""

    def head(self) -> dict[str, Any]:
        """The small part of the state."""

    def slots(self, *, only_changed: bool = False) -> dict[int, bytes]:  # noqa: ARG002  # this default has none
        """All slots, or only those that changed since the last call that asked for these; at first all have."""
        return {}

    def restore(self, head: dict[str, Any], slots: dict[int, bytes]) -> None:
        """Continue from a head and all slots. ValueError when they do not fit these parameters."""


class Strictest(ThresholdPolicy):
    """Several policies at once: the highest of their thresholds counts, the tail probability is the first one's."""

    def __init__(self, *policies: ThresholdPolicy) -> None:
        self.policies = policies

    @override
    def threshold(self) -> float | None:
        known = [threshold for policy in self.policies if (threshold := policy.threshold()) is not None]
        return max(known, default=None)

    @override
    def update(self, scores: FloatArray, event_time_ms: TimeArray | None = None) -> None:
        require_finite(scores)
        for policy in self.policies:
            policy.update(scores, event_time_ms)

    @override
    def tail_probability(self, scores: FloatArray) -> FloatArray:
        return self.policies[0].tail_probability(scores)

    @override
    def head(self) -> dict[str, Any]:
        return {"policies": [policy.head() for policy in self.policies]}

    @override
    def slots(self, *, only_changed: bool = False) -> dict[int, bytes]:
        count = len(self.policies)  # slots of the policies take turns: their numbers stay when a policy's slots grow
        return {
            slot * count + turn: data
            for turn, policy in enumerate(self.policies)
            for slot, data in policy.slots(only_changed=only_changed).items()
        }

    @override
    def restore(self, head: dict[str, Any], slots: dict[int, bytes]) -> None:
        heads, count = head["policies"], len(self.policies)
        if len(heads) != count:
            raise ValueError(f"saved state has {len(heads)} policies, this threshold {count}")
        for turn, policy in enumerate(self.policies):
            policy.restore(heads[turn], {slot // count: data for slot, data in slots.items() if slot % count == turn})


class ThresholdState(NamedTuple):
    """A whole saved threshold: the head as JSON, the slots as bytes."""

    head: bytes
    slots: dict[int, bytes]


class Judgement(NamedTuple):
    """What a partition says about scores (B,).

    threshold          float64 (B,), NaN before there is one
    tail_probability   estimated share of inliers with a score at least as high, in (0, 1]; NaN up to the threshold
    severity           places in SEVERITIES, int8 (B,); 0 up to the threshold
    """

    threshold: FloatArray
    tail_probability: FloatArray
    severity: NDArray[np.int8]


class PartitionThreshold:
    """The threshold of one partition, moved every `stride` scored records and never in between.

    Every score is compared with the threshold as of the start of its stride (scored records // stride), so that the
    borders of batches never matter and replay comes to the same thresholds as the live run.
    """

    def __init__(self, policy: ThresholdPolicy, stride: int = STRIDE) -> None:
        if stride < 1:
            raise ValueError(f"stride {stride} must be at least 1")
        self.policy = policy
        self.stride = stride
        self._scores: list[FloatArray] = []
        self._times: list[TimeArray] = []
        self._pending = 0  # scores in the open stride
        self._threshold = _or_nan(policy.threshold())
        self._severity_order = SeverityOrder()

    def compare(self, scores: FloatArray, event_time_ms: TimeArray | None = None) -> FloatArray:
        """The thresholds of `judge` alone, float64 (B,), at less cost."""
        return self.judge(scores, event_time_ms, with_tails=False).threshold

    def judge(
        self, scores: FloatArray, event_time_ms: TimeArray | None = None, *, with_tails: bool = True
    ) -> Judgement:
        """Thresholds for scores (B,) in offset order; tail probabilities and severities above them; learn the scores.

        event_time_ms: int64 (B,), UTC, NO_TIME where a record has none. ValueError if a score is not finite.
        """
        scores = require_finite(scores)
        times = np.full(len(scores), NO_TIME) if event_time_ms is None else np.asarray(event_time_ms, np.int64)
        thresholds, tails = np.empty(len(scores)), np.full(len(scores), np.nan)
        start = 0
        while start < len(scores):
            end = min(len(scores), start + self.stride - self._pending)
            part = scores[start:end]
            thresholds[start:end] = self._threshold
            if with_tails and (part > self._threshold).any():
                above = np.flatnonzero(part > self._threshold)
                tails[start + above] = self.policy.tail_probability(part[above])
            self._scores.append(part.copy())  # a view would keep the whole batch, until the stride is full
            self._times.append(times[start:end].copy())
            self._pending += len(part)
            if self._pending == self.stride:
                self.policy.update(np.concatenate(self._scores), np.concatenate(self._times))
                self._threshold = _or_nan(self.policy.threshold())
                self._scores, self._times, self._pending = [], [], 0
            start = end
        severities = np.zeros(len(scores), np.int8)
        if with_tails and len(above := np.flatnonzero(scores > thresholds)):
            columns = (scores[above], thresholds[above], tails[above], times[above])
            severities[above] = self._severity_order.judge(*columns)
        return Judgement(thresholds, tails, severities)

    def head(self) -> bytes:
        """The small part of the state as JSON: the policy's head, the open stride, the order of severities."""
        scores = np.concatenate([np.empty(0), *self._scores])
        times = np.concatenate([np.empty(0, np.int64), *self._times])
        pending = {"scores": base64.b64encode(encode_scores(scores)).decode(), "times": times.tolist()}
        head = {"stride": self.stride, "policy": self.policy.head(), "pending": pending}
        return orjson.dumps({**head, "severity": self._severity_order.state()})

    def restore(self, state: ThresholdState) -> None:
        """Continue from a head and all slots, bytes as they were saved.

        ValueError when they are damaged or do not fit; the object is then half restored and must be thrown away.
        """
        try:
            saved = orjson.loads(state.head)
            if saved["stride"] != self.stride:
                raise ValueError(f"saved state has stride {saved['stride']}, this threshold {self.stride}")
            self.policy.restore(saved["policy"], state.slots)
            scores = require_finite(decode_scores(base64.b64decode(saved["pending"]["scores"])))
            times = np.array([saved_integer(time, -MAX_SAVED) for time in saved["pending"]["times"]], np.int64)
            self._severity_order.restore(saved.get("severity", []))
        except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
            raise ValueError(f"saved threshold state is incomplete: {error!r}") from error
        if len(scores) != len(times) or len(scores) >= self.stride:
            raise ValueError(f"saved state holds {len(scores)} scores of an open stride of {self.stride}")
        self._scores, self._times, self._pending = [scores], [times], len(scores)
        self._threshold = _or_nan(self.policy.threshold())


def _or_nan(threshold: float | None) -> float:
    return np.nan if threshold is None else threshold  # nothing is above NaN: no alert before there is a threshold
