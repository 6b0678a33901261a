"""Two versions on the same sample of records: the current one, and a paired one that alerts nobody. The shadow reports
of it: what a candidate would have alerted.

A record is sampled by a hash of its offset alone, so that the sample is the same whatever the batching.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from worker.errors import TransientError
from worker.features.fitted import Fitted
from worker.formats.base import Decoded, Decoder, Row
from worker.pipeline import Model, by_partition
from worker.records import BoolArray, FloatArray, Outcome, Partition, RawMessage
from worker.texts import significant
from worker.thresholds.factory import ThresholdFactory
from worker.thresholds.partition import PartitionThreshold

# One record in so many is sampled. It is decoded again, encoded by both models and scored three times more: 13 us each,
# where the whole path takes 10 us a record, so a sixth on top.
SAMPLE_EVERY = 8
TILE = 512  # sampled records that are scored together: as many rows a scorer works on at a time, fewer cost the same
QUARTILES = (0.25, 0.5, 0.75)
MIN_SCORE = 1e-12  # scores below are as good as none
REPORT_SAMPLED = 2_000  # in a report: a rank correlation is known within 0.02 then, a rate of 0.5% within a third

_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_START = np.uint64(0x9E3779B97F4A7C15)


def hashes(messages: Sequence[RawMessage]) -> NDArray[np.uint64]:
    """A hash of each record's offset, uint64 (B,): a sample of plain offsets would beat with a producer's rhythm."""
    return mix(np.fromiter((message.offset for message in messages), np.uint64, len(messages)))


def mix(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Numbers (B,) to well-mixed ones, uint64 (B,): the finaliser of splitmix64 (Steele, Lea and Flood 2014)."""
    mixed = numbers * _START + _START  # wraps around, as it should
    for shift, multiplier in zip((30, 27), _MULTIPLIERS, strict=True):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * multiplier
    return mixed ^ (mixed >> np.uint64(31))


def sampled(hashed: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Positions of the sampled records among the hashes (B,), ascending, int64 (S,)."""
    return np.flatnonzero(hashed % np.uint64(SAMPLE_EVERY) == 0)


def chosen_fields(hashed: NDArray[np.uint64], count: int) -> NDArray[np.int64]:
    """The field to exchange in each record (S,), int64 (S,), 0 <= field < count."""
    return ((hashed >> np.uint64(32)) % np.uint64(count)).astype(np.int64)


class Exchange:
    """Puts one field of another record into each row, in one model's own columns.

    Whether a model notices is the test of what it has learned of the relations between fields: the exchanged value is
    one that occurs, it only does not belong to this record. It is the permutation of Breiman's variable importance,
    with the record before in the place of a random one, so that a stream can do it.

    It says little about a field that is independent of the others, and nothing where both records have the same value.

    fitted   whose columns the rows have
    fields   names of the fields, by number

    >>> from types import SimpleNamespace
    >>> fitted = SimpleNamespace(numeric_fields=["amount"], category_fields=["country"])
    >>> numeric, category_ids = np.array([[1.0], [2.0], [3.0]]), np.array([[7], [8], [9]])
    >>> exchange = Exchange(fitted, ["country", "amount"])
    >>> numeric, category_ids, changed = exchange.rows(numeric, category_ids, np.array([0, 1]))
    >>> numeric.tolist(), category_ids.tolist(), changed.tolist()
    ([[2.0], [2.0]], [[7], [9]], [True, True])

    Breiman, Random forests (2001), section 10.
    """

    def __init__(self, fitted: Fitted, fields: Sequence[str]) -> None:
        sides = fitted.numeric_fields, fitted.category_fields
        self._columns = [[[j for j, name in enumerate(side) if name == field] for side in sides] for field in fields]

    def rows(
        self, numeric: NDArray[np.float32], category_ids: NDArray[np.int32], field: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int32], BoolArray]:
        """Rows 1 to S of (S + 1, …), each with field (S,) of the row before it; and which of them it changed, (S,)."""
        before, exchanged = (numeric, category_ids), (numeric[1:].copy(), category_ids[1:].copy())
        for number in np.unique(field).tolist():
            rows = np.flatnonzero(field == number)
            for source, target, columns in zip(before, exchanged, self._columns[number], strict=True):
                target[np.ix_(rows, columns)] = source[np.ix_(rows, columns)]
        changed = (exchanged[0] != numeric[1:]).any(1) | (exchanged[1] != category_ids[1:]).any(1)
        return *exchanged, changed


@dataclass(frozen=True, slots=True)
class PairedScores:
    """S records that both models scored, column by column, all (S,).

    position                scored records before this one, since the comparison began
    score, threshold        of the current model
    paired_score, …         of the paired model; thresholds are NaN before there is one
    field                   number of the field that was exchanged, -1 where that changed the record for neither model
    exchanged_score, …      score of the record with this field taken from the sampled record before it
    """

    position: NDArray[np.int64]
    score: FloatArray
    threshold: FloatArray
    paired_score: FloatArray
    paired_threshold: FloatArray
    field: NDArray[np.int64]
    exchanged_score: FloatArray
    paired_exchanged_score: FloatArray

    def __len__(self) -> int:
        return len(self.position)

    def take(self, mask: NDArray[np.bool_]) -> "PairedScores":
        """The records where `mask` (S,) holds."""
        return PairedScores(*(getattr(self, column.name)[mask] for column in fields(self)))

    def alerts(self) -> tuple[BoolArray, BoolArray]:
        """Where the current and the paired model alert, (S,) each."""
        return above(self.score, self.threshold), above(self.paired_score, self.paired_threshold)

    def noticed(self) -> tuple["PairedScores", FloatArray, FloatArray]:
        """The comparable records (n,), and whether the current and the paired model notice each exchange, (n,) each.

        1 where the exchanged record scores higher than the record as it is, 0 where lower, 0.5 where equal: the mean is
        a model's win rate, 0.5 by chance.
        """
        comparable = self.take(self.field >= 0)
        noticed = (1 + np.sign(comparable.exchanged_score - comparable.score)) / 2
        return comparable, noticed, (1 + np.sign(comparable.paired_exchanged_score - comparable.paired_score)) / 2


def joined(parts: Iterable[PairedScores]) -> PairedScores:
    """One sample of several, in order; an empty one of none."""
    columns = [[getattr(part, column.name) for column in fields(PairedScores)] for part in (_EMPTY, *parts)]
    return PairedScores(*map(np.concatenate, zip(*columns, strict=True)))


_NO_SCORES, _NO_NUMBERS = np.empty(0), np.empty(0, np.int64)
_EMPTY = PairedScores(_NO_NUMBERS, _NO_SCORES, _NO_SCORES, _NO_SCORES, _NO_SCORES, _NO_NUMBERS, _NO_SCORES, _NO_SCORES)


def above(scores: FloatArray, thresholds: FloatArray, times: float = 1.0) -> BoolArray:
    """Where scores (S,) are beyond so many times their thresholds (S,); never where a threshold is NaN."""
    with np.errstate(invalid="ignore"):
        beyond: BoolArray = scores > times * thresholds
    return beyond


def bulk_ratio(scores: FloatArray, calibration: FloatArray) -> float:
    """How many times as high as in the calibration (N,) the bulk of scores (S,) lies; 1 where either is empty.

    The median of the ratios of the three quartiles: a flood in the upper half moves it little.

    >>> bulk_ratio(np.array([2.0, 4.0, 6.0, 900.0]), np.array([1.0, 2.0, 3.0, 4.0]))
    2.0
    """
    if len(scores) == 0 or len(calibration) == 0:
        return 1.0
    now, then = (np.maximum(np.quantile(values, QUARTILES), MIN_SCORE) for values in (scores, calibration))
    return float(np.median(now / then))


Thresholds = Mapping[Partition, PartitionThreshold]
_Sampled = tuple[list[RawMessage], NDArray[np.int64], NDArray[np.uint64], FloatArray, FloatArray]
"""Sampled records of one batch: messages, positions, hashes, scores and thresholds of the current model."""


class Pairing(NamedTuple):
    """How two versions are compared.

    threshold_factory   makes the paired one's thresholds; its budgets are for the sample, not for all records
    decoder             without a limit of size: the pipeline has refused what is too large
    canary_records      scored records that a canary lasts; 0 = no canary
    """

    threshold_factory: ThresholdFactory
    decoder: Decoder
    canary_records: int = 0


class PairedScorer:
    """Scores a sample of what the current model has scored with the paired model, too, both on the caller's thread.

    current      the model whose outcomes `add` is given
    paired       the other one
    thresholds   the paired model's own, where it was current before, by default from its calibration; they learn the
                 sample only, so they move as much slower
    """

    def __init__(self, current: Model, paired: Model, pairing: Pairing, thresholds: Thresholds | None = None) -> None:
        self.thresholds = dict(thresholds or {})
        self.fields = tuple(name for name in paired.bundle.fields if name != paired.bundle.fitted.missing_pattern)
        self.scored = 0  # records that the current model has scored since the comparison began
        self._current, self._paired = current, paired
        self._pairing = pairing
        self._exchanges = [Exchange(model.bundle.fitted, self.fields) for model in (current, paired)]
        self._last: tuple[RawMessage, Row] | None = None
        self._waiting: list[_Sampled] = []
        self._done: list[PairedScores] = []

    def add(self, outcome: Outcome) -> None:
        """Put the sample of a batch aside, and score it once there is a tile full of it."""
        scores, hashed = outcome.scores, hashes(outcome.scores.messages)
        index = sampled(hashed)
        messages = [scores.messages[position] for position in index.tolist()]
        self._waiting.append(
            (messages, self.scored + index, hashed[index], scores.score[index], scores.threshold[index])
        )
        self.scored += len(scores.messages)
        if sum(len(part[0]) for part in self._waiting) >= TILE:
            self._score()

    def take(self) -> PairedScores:
        """What was sampled since the last call, scored by both; may be empty."""
        self._score()
        return self.ready()

    def ready(self) -> PairedScores:
        """What was scored by both since the last call; the rest waits for its tile."""
        done, self._done = self._done, []
        return joined(done)

    def forget(self, partitions: Collection[Partition]) -> None:
        """Drop the thresholds of partitions that belong to another member now."""
        self._score()  # else what waits of theirs would make new ones
        for partition in partitions:
            self.thresholds.pop(partition, None)

    def _rows(self, messages: Sequence[RawMessage]) -> list[Row]:
        """The fields of records that were decoded before; none where one of them can't be read now. Of thousands of
        schemas some are forgotten, and the registry that is asked again may be away: the sample does without them.
        """
        try:
            rows = self._pairing.decoder.decode(messages).rows
        except TransientError:
            return []
        return rows if len(rows) == len(messages) else []

    def _score(self) -> None:
        waiting, self._waiting = self._waiting, []
        messages = [message for part in waiting for message in part[0]]
        rows = self._rows(messages)
        if not rows:
            return
        position, hashed, score, threshold = (
            np.concatenate(columns) for columns in zip(*(part[1:] for part in waiting), strict=True)
        )
        earlier = self._last or (messages[0], rows[0])
        self._last = messages[-1], rows[-1]
        decoded = Decoded([earlier[0], *messages], [earlier[1], *rows], [], 0)  # row 0 only lends its values to row 1
        field = chosen_fields(hashed, max(1, len(self.fields)))
        comparable = np.zeros(len(field), np.bool_)
        exchanged_scores: list[FloatArray] = []
        for model, exchange in zip((self._current, self._paired), self._exchanges, strict=True):
            vectors = model.vectorizer.transform(decoded)
            numeric, category_ids, changed = exchange.rows(vectors.numeric, vectors.category_ids, field)
            exchanged_scores.append(model.scorer.score(numeric, category_ids))
            comparable |= changed
        paired_score = self._paired.scorer.score(vectors.numeric[1:], vectors.category_ids[1:])  # the last one's
        paired_threshold, bundle = np.empty(len(paired_score)), self._paired.bundle
        for partition, index in by_partition(vectors.messages[1:]):
            policy = self.thresholds.get(partition)
            if policy is None:
                policy = self._pairing.threshold_factory.make(bundle.calibration, bundle.training, bundle.rule)
                self.thresholds[partition] = policy
            paired_threshold[index] = policy.compare(paired_score[index], vectors.event_time_ms[1:][index])
        field = np.where(comparable, field, -1)
        self._done.append(
            PairedScores(position, score, threshold, paired_score, paired_threshold, field, *exchanged_scores)
        )


@dataclass(frozen=True, slots=True)
class ShadowCounts:
    """Records that were sampled, and alerts of the current version, of the candidate, and of both among them."""

    sampled: int
    alerts: int
    alerts_candidate: int
    alerts_both: int


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """The current version and a candidate on the same REPORT_SAMPLED records or more.

    rank_correlation   of the two versions' scores (Spearman), None where one side is constant
    bulk_ratio, …      the bulk of each one's scores in multiples of its own calibration
    win_rate, …        share of records in which each notices that a field was exchanged; 0.5 by chance
    """

    version: str
    candidate: str
    counts: ShadowCounts
    rank_correlation: float | None
    bulk_ratio: float
    bulk_ratio_candidate: float
    win_rate: float
    win_rate_candidate: float

    def to_json(self) -> dict[str, object]:
        """Plain data with four digits."""
        plain = asdict(self)
        flat = {**{name: plain.pop(name) for name in ("version", "candidate")}, **plain.pop("counts")}
        return flat | {name: value if value is None else significant(value, 4) for name, value in plain.items()}


class Shadow:
    """One candidate beside one current version."""

    def __init__(self, current: Model, candidate: Model, pairing: Pairing) -> None:
        self._current, self._candidate = current, candidate
        self.paired = PairedScorer(current, candidate, pairing)
        self._parts: list[PairedScores] = []

    def observe(self, outcome: Outcome) -> tuple[ShadowCounts, ShadowReport | None]:
        """Take a batch that the current version scored; what both have scored since, and a report if one is due."""
        self.paired.add(outcome)
        sample = self.paired.ready()
        self._parts.append(sample)
        if sum(map(len, self._parts)) < REPORT_SAMPLED:
            return shadow_counts(sample), None
        parts, self._parts = self._parts, []
        return shadow_counts(sample), self._report(joined(parts))

    def _report(self, sample: PairedScores) -> ShadowReport:
        comparable, *noticed = sample.noticed()
        rates = [float(side.mean()) if len(comparable) else 0.5 for side in noticed]
        current, candidate = self._current.bundle, self._candidate.bundle
        return ShadowReport(
            version=current.version,
            candidate=candidate.version,
            counts=shadow_counts(sample),
            rank_correlation=rank_correlation(sample.score, sample.paired_score),
            bulk_ratio=bulk_ratio(sample.score, current.calibration),
            bulk_ratio_candidate=bulk_ratio(sample.paired_score, candidate.calibration),
            win_rate=rates[0],
            win_rate_candidate=rates[1],
        )


def shadow_counts(sample: PairedScores) -> ShadowCounts:
    """The alerts of both sides in a sample."""
    current, candidate = sample.alerts()
    return ShadowCounts(len(sample), *(int(side.sum()) for side in (current, candidate, current & candidate)))


def rank_correlation(first: FloatArray, second: FloatArray) -> float | None:
    """Spearman's, with mean ranks for ties, of values (n,); None for fewer than two records or a constant side."""
    if len(first) < 2:
        return None
    centred = []
    for values in (first, second):
        _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
        ranks = (np.cumsum(counts) - (counts - 1) / 2)[group]
        centred.append(ranks - ranks.mean())
    norm = float(np.sqrt((centred[0] @ centred[0]) * (centred[1] @ centred[1])))
    return float(centred[0] @ centred[1]) / norm if norm > 0 else None
