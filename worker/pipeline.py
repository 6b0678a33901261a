"""A batch of messages to its outcome: decode, vectorize, score, threshold, silence, group, explain.

No I/O and no clock: `worker run`, `worker replay` and the trainer share this object, so they can't drift apart. Each
stage is called once for a batch, in this order; a silence that is about a reason has it explained early.
"""

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter, itemgetter

import numpy as np
import orjson
from numpy.typing import NDArray

from worker.alerts.explain import Explainer, Explanations, exceedances
from worker.alerts.grouping import GroupingOptions, PartitionGrouping, Published
from worker.alerts.silences import Silences
from worker.errors import BundleError
from worker.features.scaling import Scaling
from worker.features.vectorize import Vectorizer
from worker.formats.base import Decoder
from worker.formats.json_objects import JsonDecoder
from worker.model.scoring.scorer import LatentEncoder
from worker.model.store.bundle import Bundle
from worker.records import DeadLetter, Outcome, Partition, RawMessage, Scores, place_of
from worker.redaction import NOTHING, Redaction
from worker.thresholds.factory import ThresholdFactory
from worker.thresholds.partition import PartitionThreshold, ThresholdState

WARM_ROWS = 1_024  # two tiles on the CPU
# No number of a record leads to a larger one in the model's input.
MAX_INPUT = Scaling("linear", 0.0, 1.0).apply(np.array([np.finfo(np.float64).max])).item()

MADE_UP_TIME_MS = 1_767_225_600_000  # event time of made-up scores: 2026

_partition_of = attrgetter("topic", "partition")


class Model:
    """A bundle made ready to score on one device. Built on any thread, used by one at a time: a scorer has buffers.

    device        where it scores: cpu, cuda or cuda:N
    redaction     masks what may not leave; to its fields come those that the schema redacts, and those that were
                  redacted when the bundle was fitted
    max_reasons   fields in the explanation of an alert
    latent        whether outcomes hold the records' latent values, too
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str = "cpu",
        redaction: Redaction = NOTHING,
        max_reasons: int = 5,
        latent: bool = False,
    ) -> None:
        self.bundle = bundle
        self.redaction = redaction.also(bundle.schema.redacted).also(bundle.fitted.redacted)
        try:
            self.vectorizer = Vectorizer(bundle.fitted, self.redaction)
        except BundleError as error:
            raise BundleError(f"model {bundle.version}: {error}") from error
        concealed = replace(bundle, fitted=self.vectorizer.fitted)
        self.explainer = Explainer(concealed, redaction=self.redaction, max_reasons=max_reasons)
        self.scorer = bundle.scorer(device)
        self.latent_encoder = LatentEncoder(bundle.network) if latent else None

    def warm_up(self) -> None:
        """Score and explain made-up rows, so that the first batch finds all buffers and kernels ready.

        Among them are the largest values that a record can lead to: BundleError where a score is not finite.
        """
        widths = np.array(self.bundle.fitted.widths, np.int32)
        sizes = np.array([0.0, 1.0, -1.0, MAX_INPUT, -MAX_INPUT], np.float32)
        numeric = np.resize(sizes, (WARM_ROWS, 1)).repeat(len(self.bundle.fitted.numeric), axis=1)
        category_ids = (np.arange(WARM_ROWS, dtype=np.int32)[:, np.newaxis] % widths).astype(np.int32)
        if not np.isfinite(self.scorer.score(numeric, category_ids)).all():
            raise BundleError(f"model {self.bundle.version}: its scores are not finite")
        self.explainer.explain(numeric[:1], category_ids[:1], [{}])


class Pipeline:
    """Messages in, outcomes out; keeps the threshold and the open alert groups of each partition, and nothing else.

    model               the current one; `swap` goes on with another
    topic_id_of         the topic's id of a partition whose group has read an earlier topic of the same name: a part of
                        its alert ids; asked when a partition is new here
    threshold_factory   makes the threshold of a partition that is new, or new to a model
    decoder             of the records' format
    grouping            which alerts become one group, and how many a minute are published; by default all stand alone
    silences            alerts that are not published; by default none
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
        self.model = model
        self.topic_id_of: Callable[[Partition], str | None] = lambda _: None
        self._threshold_factory = threshold_factory
        self._decoder = decoder
        self._grouping_options = grouping
        self._silences = silences
        self._thresholds: dict[Partition, PartitionThreshold] = {}
        self._groupings: dict[Partition, PartitionGrouping] = {}
        self._pristine: PartitionThreshold | None = None  # one of the model that has seen no record yet

    def swap(
        self, model: Model, thresholds: Mapping[Partition, PartitionThreshold] | None = None
    ) -> Mapping[Partition, PartitionThreshold]:
        """Go on with another model, and hand over the thresholds of the one that leaves.

        Every threshold starts anew from the model's calibration, or goes on as one of `thresholds`, which belonged to
        this model before: scores of two models are never mixed. Open alert groups go on: a burst does not end because
        the model was renewed.
        """
        left, self._thresholds = self._thresholds, dict(thresholds or {})
        self.model, self._pristine = model, None
        return left

    def forget(self, partitions: Collection[Partition]) -> None:
        """Drop the thresholds and groups of partitions that belong to another member now."""
        for partition in partitions:
            self._thresholds.pop(partition, None)
            self._groupings.pop(partition, None)

    def head(self, partition: Partition) -> bytes:
        """All of a partition's state but the threshold's slots, as JSON: what `restore` takes as the state's head."""
        threshold = self.threshold(partition).head()
        if not self._grouping_options.active:
            return threshold
        grouping = self._grouping(partition).state(self.model.redaction.mark)
        return orjson.dumps({"threshold": orjson.Fragment(threshold), "grouping": grouping})

    def restore(self, partition: Partition, state: ThresholdState) -> None:
        """Continue a partition from its head and slots; ValueError where they don't fit the settings.

        A head of the threshold alone is fine: then there are no open groups.
        """
        saved = orjson.loads(state.head)
        threshold, grouping = self._new_threshold(), self._new_grouping(partition)
        has_groups = isinstance(saved, dict) and "grouping" in saved
        threshold.restore(state._replace(head=orjson.dumps(saved.get("threshold"))) if has_groups else state)
        if has_groups:
            grouping.restore(saved["grouping"], self.model.redaction.mark)
        self._require_usable(threshold)
        self._thresholds[partition], self._groupings[partition] = threshold, grouping

    def _require_usable(self, threshold: PartitionThreshold) -> None:
        """ValueError where a restored threshold would fail, or judge by no number, within its next two strides.

        What was saved can be in range, value by value, and make no sense together. It is found out on a copy, and not
        in the middle of a batch, where it would end the process at each start.
        """
        copied, size = copy.deepcopy(threshold), 2 * threshold.stride
        scores = np.resize(self.model.bundle.calibration, size)
        now = np.full(size, MADE_UP_TIME_MS)
        try:
            with np.errstate(over="raise", divide="raise", invalid="raise"):
                copied.policy.tail_probability(scores)
                judgement = copied.judge(scores, now)
        except (ArithmeticError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"saved threshold state is damaged: {error!r}") from error
        if np.isinf(judgement.threshold).any():
            raise ValueError("saved threshold state leads to a threshold that is not finite")

    def threshold(self, partition: Partition) -> PartitionThreshold:
        """The threshold object of a partition, made from the calibration where it is new."""
        if partition not in self._thresholds:
            self._thresholds[partition] = self._new_threshold()
        return self._thresholds[partition]

    def _new_threshold(self) -> PartitionThreshold:
        if self._pristine is None:
            bundle = self.model.bundle
            self._pristine = self._threshold_factory.make(bundle.calibration, bundle.training, bundle.rule)
        return copy.deepcopy(self._pristine)  # a fortieth of the time: a swap needs one for each partition at once

    def _grouping(self, partition: Partition) -> PartitionGrouping:
        if partition not in self._groupings:
            self._groupings[partition] = self._new_grouping(partition)
        return self._groupings[partition]

    def _new_grouping(self, partition: Partition) -> PartitionGrouping:
        return PartitionGrouping(partition, self._grouping_options, topic_id=self.topic_id_of(partition))

    def _masked(self, dead: DeadLetter) -> DeadLetter:
        (row,) = self._decoder.rows([dead.message.value])
        return self.model.redaction.dead_letter(dead, row, self._decoder.encode)

    def process(self, messages: Sequence[RawMessage], detected_at: str | None = None) -> Outcome:
        """Score a batch: offset order within a partition, partitions may be mixed.

        Every message is scored, rejected or skipped exactly once; thresholds have moved on when this returns.
        Scores, alerts and dead letters are in offset order within each partition.

        detected_at   RFC 3339, UTC; None: each alert takes the event time of the record that caused it (replay)
        """
        model = self.model
        decoded = self._decoder.decode(messages)
        vectors = model.vectorizer.transform(decoded)
        dead_letters = sorted([*decoded.rejects, *vectors.rejects], key=lambda dead: place_of(dead.message))
        if model.redaction:  # before any threshold moves: masking decodes once more, which a registry can fail
            dead_letters = [self._masked(dead) for dead in dead_letters]
        score = model.scorer.score(vectors.numeric, vectors.category_ids)
        latent = None
        if model.latent_encoder is not None:
            latent = model.latent_encoder.latent(vectors.numeric, vectors.category_ids)
        partitions = by_partition(vectors.messages)

        threshold, tail_probability = np.full(len(score), np.nan), np.full(len(score), np.nan)
        severity = np.zeros(len(score), np.int8)
        for partition, rows in partitions:
            judgement = self.threshold(partition).judge(score[rows], vectors.event_time_ms[rows])
            threshold[rows], tail_probability[rows], severity[rows] = judgement
        with np.errstate(invalid="ignore"):
            alert = score > threshold  # never for NaN: there is no threshold yet
        version = model.bundle.version
        scores = Scores(vectors.messages, score, threshold, alert, vectors.event_time_ms, version, latent)
        if redaction := model.redaction:
            scores = replace(scores, sources=redaction.sources(vectors.messages, vectors.rows))

        explanations = Explanations(model.explainer, vectors)
        # Silences come before groups: what is silenced opens no group and uses up no rate limit.
        above = exceedances(vectors, scores, tail_probability, severity)
        loud, silenced = self._silences.apply(above, explanations.of)
        loud_of = {key: [loud[i] for i in index] for key, index in by_partition([one.message for one in loud])}
        published = Published(vectors.event_time_ms, model.redaction, detected_at)
        for partition, rows in partitions:  # those without an exceedance, too: their time goes on
            self._grouping(partition).add(loud_of.get(partition, []), rows, published)
        return Outcome(
            scores=scores,
            alerts=explanations.complete(sorted(published.alerts, key=itemgetter(0))),
            dead_letters=dead_letters,
            skipped=decoded.skipped,
            next_offsets={key: messages[index[-1]].offset + 1 for key, index in by_partition(messages)},
            unexpected={name: int(bits.sum()) for name, bits in vectors.unexpected.items()},
            silenced=silenced,
            grouped=published.grouped,
            rate_limited=published.rate_limited,
        )


def by_partition(messages: Sequence[RawMessage]) -> list[tuple[Partition, NDArray[np.int64]]]:
    """Positions of each partition's messages, ascending; partitions in order of their first message."""
    if not messages:
        return []
    keys = list(map(_partition_of, messages))
    if keys.count(keys[0]) == len(keys):  # the usual case: nothing to sort
        return [(Partition(*keys[0]), np.arange(len(keys)))]
    numbers_of = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    numbers = np.fromiter(map(numbers_of.__getitem__, keys), np.int64, len(keys))
    order = np.argsort(numbers, kind="stable")
    borders = np.searchsorted(numbers[order], np.arange(1, len(numbers_of)))
    return [(Partition(*key), index) for key, index in zip(numbers_of, np.split(order, borders), strict=True)]
