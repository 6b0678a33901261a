"""decode, vectorize, score, threshold, explain: a batch of messages to its outcome.

No I/O and no clock: `worker run`, `worker replay` and the trainer share this object, so they can't drift apart.
"""

import copy
from collections.abc import Collection, Mapping, Sequence
from operator import attrgetter

import numpy as np
import orjson
from numpy.typing import NDArray

from worker.alerts.builder import Above, AlertDesk, Groups, Wording
from worker.alerts.explain import Explainer
from worker.alerts.grouping import GroupingOptions
from worker.alerts.silences import Silences
from worker.errors import BundleError
from worker.features.scaling import Scaling, apply_scaling
from worker.features.vectorize import Vectorizer, Vectors
from worker.formats.base import Decoder
from worker.formats.json_objects import JsonDecoder
from worker.model.network.reconstruct import Reconstructor
from worker.model.scoring.latent import LatentEncoder
from worker.model.store.bundle import Bundle, field_weights
from worker.records import FloatArray, Outcome, Partition, RawMessage, Scores
from worker.thresholds.factory import ThresholdFactory
from worker.thresholds.partition import Judgement, PartitionThreshold, ThresholdState

WARM_ROWS = 1_024  # two tiles on the CPU
LARGEST = apply_scaling(np.array([np.finfo(np.float64).max]), Scaling("linear", 0.0, 1.0)).item()

_place = attrgetter("topic", "partition")


class Model:
    """A bundle made ready to score on one device. Built on any thread, used by one at a time: a scorer has buffers.

    latent: whether outcomes hold the records' category_ids, too.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str = "cpu",
        redacted: Collection[str] = (),
        max_reasons: int = 5,
        latent: bool = False,
    ) -> None:
        self.bundle = bundle
        self.redacted = bundle.schema.redacted | frozenset(redacted)
        self.vectorizer = Vectorizer(bundle.schema, bundle.fitted)
        self.explainer = Explainer(
            bundle.fitted,
            Reconstructor(bundle.network),
            fields=bundle.fields,
            usual=bundle.field_errors,
            weights=field_weights(bundle.fitted, bundle.score),
            redacted=self.redacted,
            max_reasons=max_reasons,
        )
        self.wording = Wording(self.explainer, self.redacted, bundle.schema.ids)
        self.scorer = bundle.scorer(device)
        self.latent_encoder = LatentEncoder(bundle.network) if latent else None

    def warm_up(self) -> None:
        """Score and explain made-up rows, so that the first batch finds everything in place.

        Among them are the largest values that a record can lead to: BundleError where a score is not finite.
        """
        widths = np.array(self.bundle.fitted.widths, np.int32)
        size = np.array([0.0, 1.0, -1.0, LARGEST, -LARGEST], np.float32)
        count = max(WARM_ROWS, len(size))
        numeric = np.resize(size, (count, 1)).repeat(len(self.bundle.fitted.numeric), axis=1)
        category_ids = (np.arange(count, dtype=np.int32)[:, np.newaxis] % widths).astype(np.int32)
        if not np.isfinite(self.scorer.score(numeric, category_ids)).all():
            raise BundleError(f"model {self.bundle.version}: its scores are not finite")
        self.explainer.explain(numeric[:1], category_ids[:1], [{}])


class Pipeline:
    """Messages in, outcomes out; keeps each partition's threshold and open alert episodes, and nothing else.

    decoder: of the records' format.
    grouping, silences: which alerts are published; by default each of them.
    """

    def __init__(
        self,
        model: Model,
        *,
        threshold_factory: ThresholdFactory,
        decoder: Decoder = JsonDecoder(1 << 20),  # noqa: B008  # immutable
        grouping: GroupingOptions = GroupingOptions(),  # noqa: B008  # frozen
        silences: Silences = Silences(),  # noqa: B008  # immutable
    ) -> None:
        self._model = model
        self._threshold_factory = threshold_factory
        self._decoder = decoder
        self._thresholds: dict[Partition, PartitionThreshold] = {}
        self._seeded: PartitionThreshold | None = None  # one that has learned nothing yet
        self._desk = AlertDesk(options=grouping, silences=silences)

    @property
    def model(self) -> Model:
        """The model in force."""
        return self._model

    def swap(
        self, model: Model, thresholds: Mapping[Partition, PartitionThreshold] | None = None
    ) -> Mapping[Partition, PartitionThreshold]:
        """Go on with another model, and hand over the thresholds of the one that leaves.

        Every threshold starts anew from the model's calibration, or goes on as one of `thresholds`, which belonged to
        this model before: scores of two models are never mixed. Open alert episodes go on: a burst does not end because
        the model was renewed.
        """
        left, self._thresholds = self._thresholds, dict(thresholds or {})
        self._model, self._seeded = model, None
        return left

    def forget(self, partitions: Collection[Partition]) -> None:
        """Drop the thresholds and episodes of partitions that belong to another member now."""
        for partition in partitions:
            self._thresholds.pop(partition, None)
        self._desk.forget(partitions)

    def head(self, partition: Partition) -> bytes:
        """All of a partition's state but the threshold's slots, as JSON: what `restore` takes as the state's head."""
        threshold, grouping = self.threshold(partition).head(), self._desk.state(partition)
        if grouping is None:
            return threshold
        return orjson.dumps({"threshold": orjson.Fragment(threshold), "grouping": grouping})

    def restore(self, partition: Partition, state: ThresholdState) -> None:
        """Continue a partition from its head and slots; ValueError where they don't fit the settings.

        A head of the threshold alone is fine: then there are no open episodes.
        """
        saved = orjson.loads(state.head)
        grouping = None
        if isinstance(saved, dict) and "grouping" in saved:
            grouping = saved["grouping"]
            state = state._replace(head=orjson.dumps(saved.get("threshold")))
        threshold = self._new_threshold()
        threshold.restore(state)
        self._desk.restore(partition, grouping)
        self._thresholds[partition] = threshold

    def threshold(self, partition: Partition) -> PartitionThreshold:
        """The threshold object of a partition, made from the calibration where it is new."""
        found = self._thresholds.get(partition)
        if found is None:
            found = self._thresholds[partition] = self._new_threshold()
        return found

    def _new_threshold(self) -> PartitionThreshold:
        if self._seeded is None:
            bundle = self._model.bundle
            self._seeded = self._threshold_factory.make(bundle.calibration, bundle.training, bundle.rule)
        return copy.deepcopy(self._seeded)  # a fortieth of the time: a swap needs one for each partition at once

    def process(self, messages: Sequence[RawMessage], detected_at: str | None = None) -> Outcome:
        """Score a batch: offset order within a partition, partitions may be mixed.

        detected_at: RFC 3339, UTC; None = each alert takes its record's own event time (replay).
        Every message is scored, rejected or skipped exactly once; thresholds have moved on when this returns.
        Scores, alerts and dead letters are in offset order within each partition.
        """
        decoded = self._decoder.decode(messages)
        vectors = self._model.vectorizer.transform(decoded)
        score = self._model.scorer.score(vectors.numeric, vectors.category_ids)
        groups = by_partition(vectors.messages)
        threshold, tail = self._judge(vectors, score, groups)
        with np.errstate(invalid="ignore"):
            alert = score > threshold  # never for NaN: there is no threshold yet
        latent_encoder, version = self._model.latent_encoder, self._model.bundle.version
        latent = (
            latent_encoder.category_ids(vectors.numeric, vectors.category_ids) if latent_encoder is not None else None
        )
        scores = Scores(vectors.messages, score, threshold, alert, vectors.event_time_ms, version, latent)
        published = self._desk.alerts(Above(vectors, scores, tail, groups, self._model.wording), detected_at)
        return Outcome(
            scores=scores,
            alerts=published.alerts,
            dead_letters=sorted([*decoded.rejects, *vectors.rejects], key=lambda dead: dead.message.offset),
            skipped=decoded.skipped,
            next_offsets={key: messages[index[-1]].offset + 1 for key, index in by_partition(messages)},
            silenced=published.silenced,
            grouped=published.grouped,
            rate_limited=published.rate_limited,
        )

    def _judge(self, vectors: Vectors, score: FloatArray, groups: Groups) -> Judgement:
        found = Judgement(np.full(len(score), np.nan), np.full(len(score), np.nan))
        for key, index in groups:
            part = self.threshold(key).judge(score[index], vectors.event_time_ms[index])
            found.threshold[index], found.tail_probability[index] = part
        return found


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
