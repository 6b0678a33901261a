"""The sample, the exchanged fields and the figures, each beside a plain reference."""

import copy
from collections.abc import Sequence

import numpy as np
import pytest

from devtools import traffic
from tests.rollout.candidates import PAIRING, THRESHOLDS, Row, candidate, current, messages
from worker.errors import RegistryUnavailable
from worker.features.learned import MISSING_PATTERN
from worker.features.vectorize import Vectors
from worker.formats.base import Decoded
from worker.formats.json_objects import JsonDecoder
from worker.pipeline import Model, Pipeline
from worker.records import Message, Outcome, Partition, RawMessage
from worker.rollout.paired import (
    REPORT_SAMPLED,
    SAMPLE_EVERY,
    TILE,
    Exchange,
    PairedScorer,
    PairedScores,
    Shadow,
    ShadowCounts,
    ShadowReport,
    bulk_ratio,
    chosen_fields,
    hashes,
    joined,
    rank_correlation,
    sampled,
)

COUNT = 1_500


def outcome_of(rows: Sequence[Row]) -> Outcome:
    return Pipeline(Model(current(0)), threshold_factory=THRESHOLDS).process(messages(rows))


def sample_of(batch: int) -> PairedScores:
    pipeline = Pipeline(Model(current(0)), threshold_factory=THRESHOLDS)
    paired = PairedScorer(pipeline.model, Model(candidate(0)), PAIRING)
    stream = messages(traffic.rows(COUNT, 7))
    parts = []
    for at in range(0, COUNT, batch):
        paired.add(pipeline.process(stream[at : at + batch]))
        parts.append(paired.ready())
    return joined([*parts, paired.take()])


def vectors_of(model: Model, rows: Sequence[Row]) -> Vectors:
    return model.vectorizer.transform(Decoded(list(messages(rows)), list(rows), [], 0))


def with_value(row: Row, donor: Row, name: str) -> Row:
    """The row with one field of the donor, dots reaching into objects."""
    changed = copy.deepcopy(row)
    *path, last = name.split(".")
    target, source = changed, donor
    for key in path:
        target, source = target[key], source[key]
    target[last] = source[last]
    return changed


def test_one_record_in_eight_is_sampled_whatever_rhythm_the_offsets_have() -> None:
    for step in (1, 2, SAMPLE_EVERY, 50, 1_000):
        stream = [Message("in", 0, step * number, 0, None, b"") for number in range(8_000)]

        share = len(sampled(hashes(stream))) / 8_000

        assert share == pytest.approx(1 / SAMPLE_EVERY, abs=0.015)


def test_every_field_is_exchanged_about_as_often_as_any_other() -> None:
    stream = [Message("in", 0, number, 0, None, b"") for number in range(80_000)]
    mixed = hashes(stream)

    counts = np.bincount(chosen_fields(mixed[sampled(mixed)], 5), minlength=5)

    assert counts.sum() == pytest.approx(10_000, rel=0.05)
    assert counts.min() > 0.9 * counts.max()


def test_an_exchanged_field_is_the_record_with_that_value_of_the_record_before() -> None:
    model, rows = Model(current(0)), traffic.rows(200, 3)
    names = tuple(name for name in model.bundle.fields if name != MISSING_PATTERN)
    field = chosen_fields(hashes(messages(rows))[1:], len(names))
    plain = vectors_of(model, [with_value(rows[i + 1], rows[i], names[number]) for i, number in enumerate(field)])
    whole = vectors_of(model, rows)

    numeric, category_ids, changed = Exchange(model.bundle.fitted, names).rows(whole.numeric, whole.category_ids, field)

    assert np.array_equal(numeric, plain.numeric)
    assert np.array_equal(category_ids, plain.category_ids)
    same = (numeric == whole.numeric[1:]).all(1) & (category_ids == whole.category_ids[1:]).all(1)
    assert np.array_equal(changed, ~same)
    assert 0.2 < changed.mean() < 1.0


def test_the_paired_scorer_gives_each_sampled_record_the_score_that_the_model_would_give_it_as_the_current_one() -> (
    None
):
    sample = sample_of(500)

    rows = traffic.rows(COUNT, 7)
    alone = Pipeline(Model(candidate(0)), threshold_factory=THRESHOLDS).process(messages(rows))
    assert np.array_equal(sample.paired_score, alone.scores.score[sample.position])
    assert np.array_equal(sample.score, outcome_of(rows).scores.score[sample.position])
    bundle = candidate(0)
    threshold = THRESHOLDS.make(bundle.calibration, bundle.training, bundle.rule)
    assert np.array_equal(sample.paired_threshold, threshold.compare(sample.paired_score))


def test_the_sample_is_the_same_whatever_the_batching() -> None:
    whole = sample_of(COUNT)

    for batch in (13, 512):
        sample = sample_of(batch)
        assert all(
            np.array_equal(getattr(sample, name), getattr(whole, name), equal_nan=True)
            for name in PairedScores.__slots__
        )


def test_thresholds_of_a_revoked_partition_are_dropped() -> None:
    pipeline = Pipeline(Model(current(0)), threshold_factory=THRESHOLDS)
    paired = PairedScorer(pipeline.model, Model(candidate(0)), PAIRING)
    paired.add(pipeline.process(messages(traffic.rows(100), partition=3)))
    paired.add(pipeline.process(messages(traffic.rows(100), partition=4)))
    paired.take()

    paired.forget([Partition("in", 3)])

    assert set(paired.thresholds) == {Partition("in", 4)}


def test_records_whose_schemas_can_not_be_asked_for_again_are_left_out_of_the_sample() -> None:
    class Forgetful(JsonDecoder):
        away = True

        def decode(self, messages: Sequence[RawMessage]) -> Decoded:
            if self.away:
                raise RegistryUnavailable("away")
            return super().decode(messages)

    pipeline, decoder = Pipeline(Model(current(0)), threshold_factory=THRESHOLDS), Forgetful()
    paired = PairedScorer(pipeline.model, Model(candidate(0)), PAIRING._replace(decoder=decoder))
    first, second = messages(traffic.rows(400)), messages(traffic.rows(400), first=400)
    paired.add(pipeline.process(first))
    assert len(paired.take()) == 0

    decoder.away = False
    paired.add(pipeline.process(second))

    assert paired.take().position.tolist() == [400 + at for at in sampled(hashes(second))]
    assert paired.scored == 800


def test_the_bulk_ratio_is_that_of_the_quartiles() -> None:
    rng = np.random.default_rng(0)
    calibration = np.sort(rng.lognormal(0, 1, 501))

    assert bulk_ratio(calibration * 3, calibration) == pytest.approx(3.0)
    assert bulk_ratio(np.concatenate([calibration, np.full(60, 1e9)]), calibration) < 1.4
    assert bulk_ratio(np.empty(0), calibration) == 1.0
    assert bulk_ratio(np.zeros(9), np.zeros(9)) == 1.0


def test_an_exchange_is_noticed_where_the_score_rises_half_where_it_stays_and_left_out_where_nothing_changed() -> None:
    score, field = np.array([1.0, 2.0, 1.0, 5.0]), np.array([0, 1, 0, -1])
    exchanged = np.array([2.0, 1.0, 1.0, 9.0])
    sample = PairedScores(np.arange(4), score, score, score, score, field, exchanged, score)

    comparable, noticed, noticed_by_paired = sample.noticed()

    assert comparable.position.tolist() == [0, 1, 2]
    assert noticed.tolist() == [1.0, 0.0, 0.5]
    assert noticed_by_paired.tolist() == [0.5, 0.5, 0.5]


def test_rank_correlation_is_that_of_the_plain_definition() -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(0, 9, 80).astype(float)
    second = first + rng.integers(0, 9, 80).astype(float)

    def ranks(values: list[float]) -> list[float]:
        return [
            sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2
            for value in values
        ]

    expected = np.corrcoef(ranks(first.tolist()), ranks(second.tolist()))[0, 1]
    assert rank_correlation(first, second) == pytest.approx(expected)
    assert rank_correlation(first, np.ones(80)) is None
    assert rank_correlation(first[:1], second[:1]) is None


def test_a_shadow_counts_the_alerts_of_both_and_reports_at_a_fixed_number_of_sampled_records() -> None:
    pipeline = Pipeline(Model(current(0)), threshold_factory=THRESHOLDS)
    shadow = Shadow(pipeline.model, Model(candidate(0)), PAIRING)
    records = REPORT_SAMPLED * SAMPLE_EVERY + 4_000
    stream = messages(traffic.rows(records, 9))
    reports: list[ShadowReport] = []
    batches: list[ShadowCounts] = []
    for start in range(0, records, 500):
        counts, report = shadow.observe(pipeline.process(stream[start : start + 500]))
        batches.append(counts)
        reports += [] if report is None else [report]

    assert len(reports) == 1
    assert reports[0].counts.sampled >= REPORT_SAMPLED
    assert (reports[0].rank_correlation or 0) > 0.5
    assert 0 <= len(sampled(hashes(stream))) - sum(counts.sampled for counts in batches) < TILE
    assert 0 < reports[0].counts.alerts_both <= min(reports[0].counts.alerts, reports[0].counts.alerts_candidate)


def test_a_record_that_was_refused_is_not_sampled() -> None:
    rows = traffic.rows(400)
    stream = messages(rows)
    broken = [
        message if number % 2 else Message("in", 0, message.offset, 0, None, b"{")
        for number, message in enumerate(stream)
    ]
    pipeline = Pipeline(Model(current(0)), threshold_factory=THRESHOLDS)
    paired = PairedScorer(pipeline.model, Model(candidate(0)), PAIRING)
    outcome = pipeline.process(broken)

    paired.add(outcome)
    sample = paired.take()

    assert len(outcome.scores.messages) == 200
    assert np.array_equal(sample.position, sampled(hashes(outcome.scores.messages)))
    assert len(JsonDecoder(1_000).decode(broken).rejects) == 200
