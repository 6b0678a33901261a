"""The sample, the exchanged fields and the figures, each beside a plain reference."""

import copy
from collections.abc import Sequence

import numpy as np
import pytest

from devtools import traffic
from tests.rollout.candidates import THRESHOLDS, Row, champion, messages, successor
from worker.features.vectorize import Vectors
from worker.formats.base import Decoded
from worker.formats.json_objects import JsonDecoder
from worker.pipeline import Model, Pipeline
from worker.records import Message, Outcome, Partition
from worker.rollout.figures import body, rank_correlation, wins
from worker.rollout.paired import TILE, PairedSample, PairedScorer, joined
from worker.rollout.sampling import SAMPLE_EVERY, Exchange, chosen_fields, exchangeable, hashes, sampled
from worker.rollout.shadow import REPORT_SAMPLED, Shadow, ShadowCounts, ShadowReport

COUNT = 1_500


def outcome_of(rows: Sequence[Row]) -> Outcome:
    return Pipeline(Model(champion(0)), threshold_factory=THRESHOLDS).process(messages(rows))


def sample_of(batch: int) -> PairedSample:
    pipeline = Pipeline(Model(champion(0)), threshold_factory=THRESHOLDS)
    paired = PairedScorer(pipeline.model, Model(successor(0)), threshold_factory=THRESHOLDS, decoder=JsonDecoder())
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
    inside, given = changed, donor
    for key in path:
        inside, given = inside[key], given[key]
    inside[last] = given[last]
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
    model, rows = Model(champion(0)), traffic.rows(200, 3)
    names = exchangeable(model.bundle)
    field = chosen_fields(hashes(messages(rows))[1:], len(names))
    plain = vectors_of(model, [with_value(rows[i + 1], rows[i], names[number]) for i, number in enumerate(field)])
    whole = vectors_of(model, rows)

    numeric, category_ids, changed = Exchange(model.bundle, names).rows(whole, field)

    assert np.array_equal(numeric, plain.numeric)
    assert np.array_equal(category_ids, plain.category_ids)
    same = (numeric == whole.numeric[1:]).all(1) & (category_ids == whole.category_ids[1:]).all(1)
    assert np.array_equal(changed, ~same)
    assert 0.2 < changed.mean() < 1.0


def test_the_companion_gives_each_sampled_record_the_score_that_its_model_would_give_it_in_force() -> None:
    sample = sample_of(500)

    rows = traffic.rows(COUNT, 7)
    alone = Pipeline(Model(successor(0)), threshold_factory=THRESHOLDS).process(messages(rows))
    assert np.array_equal(sample.beside, alone.scores.score[sample.place])
    assert np.array_equal(sample.score, outcome_of(rows).scores.score[sample.place])
    bundle = successor(0)
    threshold = THRESHOLDS.make(bundle.calibration, bundle.training, bundle.rule)
    assert np.array_equal(sample.limit, threshold.compare(sample.beside))


def test_the_sample_is_the_same_whatever_the_batching() -> None:
    whole = sample_of(COUNT)

    for batch in (13, 512):
        found = sample_of(batch)
        assert all(
            np.array_equal(getattr(found, name), getattr(whole, name), equal_nan=True)
            for name in PairedSample.__slots__
        )


def test_thresholds_of_a_revoked_partition_are_dropped() -> None:
    pipeline = Pipeline(Model(champion(0)), threshold_factory=THRESHOLDS)
    paired = PairedScorer(pipeline.model, Model(successor(0)), threshold_factory=THRESHOLDS, decoder=JsonDecoder())
    paired.add(pipeline.process(messages(traffic.rows(100), partition=3)))
    paired.add(pipeline.process(messages(traffic.rows(100), partition=4)))
    paired.take()

    paired.forget([Partition("in", 3)])

    assert set(paired.thresholds) == {Partition("in", 4)}


def test_the_body_is_the_ratio_of_quartiles() -> None:
    rng = np.random.default_rng(0)
    calibration = np.sort(rng.lognormal(0, 1, 501))

    assert body(calibration * 3, calibration) == pytest.approx(3.0)
    assert body(np.concatenate([calibration, np.full(60, 1e9)]), calibration) < 1.4
    assert body(np.empty(0), calibration) == 1.0
    assert body(np.zeros(9), np.zeros(9)) == 1.0


def test_wins_count_ties_as_half() -> None:
    assert wins(np.array([2.0, 1.0, 1.0]), np.array([1.0, 2.0, 1.0])).tolist() == [1.0, 0.0, 0.5]


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
    pipeline = Pipeline(Model(champion(0)), threshold_factory=THRESHOLDS)
    shadow = Shadow(pipeline.model, Model(successor(0)), threshold_factory=THRESHOLDS, decoder=JsonDecoder())
    records = REPORT_SAMPLED * SAMPLE_EVERY + 4_000
    stream = messages(traffic.rows(records, 9))
    reports: list[ShadowReport] = []
    tallies: list[ShadowCounts] = []
    for start in range(0, records, 500):
        tally, report = shadow.observe(pipeline.process(stream[start : start + 500]))
        tallies.append(tally)
        reports += [] if report is None else [report]

    assert len(reports) == 1
    assert reports[0].tally.sampled >= REPORT_SAMPLED
    assert (reports[0].rank_correlation or 0) > 0.5
    assert 0 <= len(sampled(hashes(stream))) - sum(tally.sampled for tally in tallies) < TILE
    assert 0 < reports[0].tally.both <= min(reports[0].tally.current, reports[0].tally.candidate)


def test_a_record_that_was_refused_is_not_sampled() -> None:
    rows = traffic.rows(400)
    stream = messages(rows)
    broken = [
        message if number % 2 else Message("in", 0, message.offset, 0, None, b"{")
        for number, message in enumerate(stream)
    ]
    pipeline = Pipeline(Model(champion(0)), threshold_factory=THRESHOLDS)
    paired = PairedScorer(pipeline.model, Model(successor(0)), threshold_factory=THRESHOLDS, decoder=JsonDecoder())
    outcome = pipeline.process(broken)

    paired.add(outcome)
    sample = paired.take()

    assert len(outcome.scores.messages) == 200
    assert np.array_equal(sample.place, sampled(hashes(outcome.scores.messages)))
    assert len(JsonDecoder(1_000).decode(broken).rejects) == 200
