"""Two models on the same sample of records: the one in force, and a paired that alerts nobody."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from worker.features.vectorize import Vectors
from worker.formats.base import Decoded, Decoder, Row
from worker.pipeline import Model, by_partition
from worker.records import FloatArray, Outcome, Partition, RawMessage
from worker.rollout.sampling import Exchange, chosen_fields, exchangeable, hashes, sampled
from worker.thresholds.factory import ThresholdFactory
from worker.thresholds.partition import PartitionThreshold

TILE = 512
"""Sampled records that are scored together: a scorer works on as many rows at a time, and fewer cost the same."""


@dataclass(frozen=True, slots=True)
class PairedSample:
    """S records that both models scored, column by column, all (S,).

    place               scored records before this one, since the two were put side by side
    score, threshold    of the model in force
    beside, limit       score and threshold of the paired; thresholds are NaN before there is one
    field               number of the field that was exchanged, -1 where neither model could tell
    mixed, mixed_beside scores of the record with this field taken from the record before it in the sample
    """

    place: NDArray[np.int64]
    score: FloatArray
    threshold: FloatArray
    beside: FloatArray
    limit: FloatArray
    field: NDArray[np.int64]
    mixed: FloatArray
    mixed_beside: FloatArray

    def __len__(self) -> int:
        return len(self.place)

    def take(self, index: NDArray[np.bool_]) -> "PairedSample":
        """Those records alone."""
        return PairedSample(*(getattr(self, column.name)[index] for column in fields(self)))


def joined(parts: Iterable[PairedSample]) -> PairedSample:
    """One sample of several, in order; at least one."""
    found = list(parts)
    return PairedSample(
        *(np.concatenate([getattr(part, column.name) for part in found]) for column in fields(PairedSample))
    )


class _Waiting(NamedTuple):
    """The sampled records of one batch: messages, places, hashes, scores and thresholds of the model in force."""

    messages: list[RawMessage]
    place: NDArray[np.int64]
    mixed: NDArray[np.uint64]
    score: FloatArray
    threshold: FloatArray


def _nothing() -> PairedSample:
    empty = np.empty(0)
    return PairedSample(np.empty(0, np.int64), empty, empty, empty, empty, np.empty(0, np.int64), empty, empty)


class PairedScorer:
    """Scores a sample of what the model in force has scored. Both models are used on the caller's thread.

    thresholds: the paired's own, where it was in force before; others start from its calibration. They learn the
    sample only, so they move as much slower.
    """

    def __init__(
        self,
        current: Model,
        model: Model,
        *,
        threshold_factory: ThresholdFactory,
        decoder: Decoder,
        thresholds: Mapping[Partition, PartitionThreshold] | None = None,
    ) -> None:
        self.model = model
        self.thresholds = dict(thresholds or {})
        self.fields = exchangeable(model.bundle)
        self._current = current
        self._threshold_factory = threshold_factory
        self._decoder = decoder  # without a limit of size: the pipeline has refused what is too large
        self._exchange = [Exchange(side.bundle, self.fields) for side in (current, model)]
        self._last: tuple[RawMessage, Row] | None = None
        self._waiting: list[_Waiting] = []
        self._count = 0
        self._done: list[PairedSample] = []
        self.scored = 0  # records that the model in force has scored meanwhile

    def add(self, outcome: Outcome) -> None:
        """Put the sample of a batch aside, and score it beside once there is a tile full of it."""
        scores = outcome.scores
        mixed = hashes(scores.messages)
        at = sampled(mixed)
        places = self.scored + at
        self.scored += len(scores.messages)
        messages = [scores.messages[position] for position in at.tolist()]
        self._waiting.append(_Waiting(messages, places, mixed[at], scores.score[at], scores.threshold[at]))
        self._count += len(at)
        if self._count >= TILE:
            self._score()

    def take(self) -> PairedSample:
        """What was sampled since the last call, scored by both; may be empty."""
        self._score()
        return self.ready()

    def ready(self) -> PairedSample:
        """What was scored by both since the last call; the rest waits for its tile."""
        found, self._done = self._done, []
        return joined(found) if found else _nothing()

    def _score(self) -> None:
        waiting, self._waiting, self._count = self._waiting, [], 0
        messages = [message for part in waiting for message in part.messages]
        if not messages:
            return
        place, mixed, score, threshold = (
            np.concatenate(columns) for columns in zip(*(part[1:] for part in waiting), strict=True)
        )
        rows = self._decoder.decode(messages).rows
        earlier = self._last or (messages[0], rows[0])
        decoded = Decoded([earlier[0], *messages], [earlier[1], *rows], [], 0)
        vectors = [side.vectorizer.transform(decoded) for side in (self._current, self.model)]
        beside = self.model.scorer.score(vectors[1].numeric[1:], vectors[1].category_ids[1:])
        field = chosen_fields(mixed, max(1, len(self.fields)))
        told, exchanged = self._exchanged(vectors, field)
        self._last = messages[-1], rows[-1]
        limits = self._limits(vectors[1], beside)
        number = np.where(told, field, -1)
        self._done.append(PairedSample(place, score, threshold, beside, limits, number, exchanged[0], exchanged[1]))

    def _exchanged(
        self, vectors: list[Vectors], field: NDArray[np.int64]
    ) -> tuple[NDArray[np.bool_], list[FloatArray]]:
        told = np.zeros(len(field), np.bool_)
        found: list[FloatArray] = []
        for side, exchange, own in zip((self._current, self.model), self._exchange, vectors, strict=True):
            numeric, category_ids, changed = exchange.rows(own, field)
            found.append(side.scorer.score(numeric, category_ids))
            told |= changed
        return told, found

    def _limits(self, vectors: Vectors, scores: FloatArray) -> FloatArray:
        limits = np.empty(len(scores))
        for key, index in by_partition(vectors.messages[1:]):
            threshold = self.thresholds.get(key)
            if threshold is None:
                bundle = self.model.bundle
                threshold = self._threshold_factory.make(bundle.calibration, bundle.training, bundle.rule)
                self.thresholds[key] = threshold
            limits[index] = threshold.compare(scores[index], vectors.event_time_ms[1:][index])
        return limits

    def forget(self, partitions: Collection[Partition]) -> None:
        """Drop the thresholds of partitions that belong to another member now."""
        self._score()  # else what waits of theirs would make new ones
        for partition in partitions:
            self.thresholds.pop(partition, None)
