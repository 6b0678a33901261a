"""decode, vectorize, score, threshold, explain: a batch of messages to its outcome.

No I/O and no clock: `worker run`, `worker replay` and the trainer share this object, so they can't drift apart.
"""

from collections.abc import Callable, Collection, Sequence
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from worker.detect.alert import alert_id, iso_time, redact
from worker.detect.explain import Explainer
from worker.detect.threshold import PartitionThreshold, ThresholdState
from worker.features.columns import value_of
from worker.features.decode import decode
from worker.features.vectorize import Vectorizer, Vectors
from worker.model.bundle import Bundle
from worker.model.reconstruct import Reconstructor
from worker.model.scorer import Scorer
from worker.records import Alert, FloatArray, Outcome, Partition, RawMessage, Scores

MakeThreshold = Callable[[FloatArray], PartitionThreshold]
"""A new partition's threshold, seeded from a model's sorted calibration scores."""

_place = attrgetter("topic", "partition")


class Model:
    """A bundle made ready to score on one device; read only, so it can be built on any thread."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str = "cpu",
        redacted: Collection[str] = (),
        max_reasons: int = 5,
    ) -> None:
        self.bundle = bundle
        self.redacted = bundle.schema.redacted | frozenset(redacted)
        self.vectorizer = Vectorizer(bundle.schema, bundle.fitted)
        self.explainer = Explainer(
            bundle.fitted,
            Reconstructor(bundle.network),
            fields=bundle.fields,
            usual=bundle.field_errors,
            redacted=self.redacted,
            max_reasons=max_reasons,
        )
        self.scorer = Scorer(bundle.network, len(bundle.fields), device)


class Pipeline:
    """Messages in, outcomes out; keeps one threshold per partition and nothing else.

    severity: a label from (score, threshold). max_record_bytes: a larger value is rejected unread.
    """

    def __init__(
        self,
        model: Model,
        *,
        make_threshold: MakeThreshold,
        severity: Callable[[float, float], str],
        max_record_bytes: int = 1 << 20,
    ) -> None:
        self._model = model
        self._make_threshold = make_threshold
        self._severity = severity
        self._max_record_bytes = max_record_bytes
        self._thresholds: dict[Partition, PartitionThreshold] = {}

    @property
    def model(self) -> Model:
        """The model in force."""
        return self._model

    def swap(self, model: Model) -> None:
        """Go on with another model. Every threshold starts anew: scores of two models are never mixed."""
        self._model = model
        self._thresholds.clear()

    def forget(self, partitions: Collection[Partition]) -> None:
        """Drop the thresholds of partitions that belong to another member now."""
        for partition in partitions:
            self._thresholds.pop(partition, None)

    def restore(self, partition: Partition, state: ThresholdState) -> None:
        """Continue a partition's threshold; ValueError where the state doesn't fit the settings."""
        threshold = self._make_threshold(self._model.bundle.calibration)
        threshold.restore(state)
        self._thresholds[partition] = threshold

    def threshold(self, partition: Partition) -> PartitionThreshold:
        """The threshold object of a partition, made from the calibration where it is new."""
        found = self._thresholds.get(partition)
        if found is None:
            found = self._thresholds[partition] = self._make_threshold(self._model.bundle.calibration)
        return found

    def process(self, messages: Sequence[RawMessage], detected_at: str | None = None) -> Outcome:
        """Score a batch: offset order within a partition, partitions may be mixed.

        detected_at: RFC 3339, UTC; None = each alert takes its record's own event time (replay).
        Every message is scored, rejected or skipped exactly once; thresholds have moved on when this returns.
        """
        decoded = decode(messages, max_bytes=self._max_record_bytes)
        vectors = self._model.vectorizer.transform(decoded)
        score = self._model.scorer.score(vectors.numeric, vectors.codes)
        threshold = self._compare(vectors, score)
        with np.errstate(invalid="ignore"):
            alert = score > threshold  # never for NaN: there is no threshold yet
        scores = Scores(vectors.messages, score, threshold, alert, vectors.event_time_ms, self._model.bundle.version)
        return Outcome(
            scores=scores,
            alerts=self._alerts(vectors, scores, detected_at),
            dead_letters=[*decoded.rejects, *vectors.rejects],
            skipped=decoded.skipped,
            next_offsets={key: messages[index[-1]].offset + 1 for key, index in by_partition(messages)},
        )

    def _compare(self, vectors: Vectors, score: FloatArray) -> FloatArray:
        threshold = np.full(len(score), np.nan)
        for key, index in by_partition(vectors.messages):
            threshold[index] = self.threshold(key).compare(score[index], vectors.event_time_ms[index])
        return threshold

    def _alerts(self, vectors: Vectors, scores: Scores, detected_at: str | None) -> list[Alert]:
        index = np.flatnonzero(scores.alert)
        rows = [vectors.rows[i] for i in index]
        reasons = self._model.explainer.explain(vectors.numeric[index], vectors.codes[index], rows)
        ids = self._model.bundle.schema.ids
        alerts = []
        for i, row, explanation in zip(index.tolist(), rows, reasons, strict=True):
            message, score, threshold = vectors.messages[i], float(scores.score[i]), float(scores.threshold[i])
            event_time = iso_time(int(vectors.event_time_ms[i]))
            record = redact(row, self._model.redacted)
            alerts.append(
                Alert(
                    alert_id=alert_id(message.topic, message.partition, message.offset),
                    detected_at=detected_at or event_time or "",
                    event_time=event_time,
                    message=message,
                    score=score,
                    threshold=threshold,
                    severity=self._severity(score, threshold),
                    model_version=scores.model_version,
                    explanation=explanation,
                    ids={name: value_of(dict(record), name) for name in ids},
                    record=record,
                )
            )
        return alerts


def by_partition(messages: Sequence[RawMessage]) -> list[tuple[Partition, NDArray[np.int64]]]:
    """Positions of each partition's messages, ascending; partitions in order of their first message."""
    if not messages:
        return []
    places = list(map(_place, messages))
    first = places[0]
    if places.count(first) == len(places):
        return [(Partition(*first), np.arange(len(places)))]
    names = {place: number for number, place in enumerate(dict.fromkeys(places))}
    numbers = np.fromiter(map(names.__getitem__, places), np.int64, len(places))
    order = np.argsort(numbers, kind="stable")
    borders = np.searchsorted(numbers[order], np.arange(1, len(names)))
    return [(Partition(*place), index) for place, index in zip(names, np.split(order, borders), strict=True)]
