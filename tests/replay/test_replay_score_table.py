import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc, average_precision_score, roc_auc_score

from worker.ranking import average_precision, roc_auc
from worker.records import FloatArray
from worker.replay.score_table import ANOMALOUS, NORMAL, ScoreTable, bootstrap, bootstrap_share, coarsen, curve


def table_of(scores: FloatArray, labels: FloatArray, max_distinct: int = 1 << 18, batch: int = 1000) -> ScoreTable:
    table = ScoreTable(max_distinct)
    groups = np.where(labels == 1, ANOMALOUS, NORMAL).astype(np.int8)
    for start in range(0, len(scores), batch):
        table.add(scores[start : start + batch], groups[start : start + batch])
    return table


def measures(table: ScoreTable) -> tuple[float, float]:
    normal, anomalous = table.count(NORMAL), table.count(ANOMALOUS)
    return float(roc_auc(normal, anomalous)), float(average_precision(normal, anomalous))


def sample(count: int, seed: int = 0, share: float = 0.02) -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(seed)
    labels = (rng.random(count) < share).astype(float)
    return np.exp(rng.normal(0, 1, count) + 1.5 * labels), labels


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=60).filter(
        lambda rows: len({label for _, label in rows}) == 2
    )
)
def test_area_and_average_precision_are_those_of_scikit_learn_ties_included(rows: list[tuple[int, bool]]) -> None:
    scores = np.array([score / 4 for score, _ in rows])
    labels = np.array([float(label) for _, label in rows])

    assert measures(table_of(scores, labels, batch=7)) == pytest.approx(
        (roc_auc_score(labels, scores), average_precision_score(labels, scores)), abs=1e-12
    )


def test_more_distinct_scores_than_fit_change_the_measures_by_little() -> None:
    scores, labels = sample(200_000)
    table = table_of(scores, labels, max_distinct=10_000)

    assert len(table.values) <= 10_000
    assert 0 < table.resolution < 1e-3
    assert table.count(NORMAL).sum() + table.count(ANOMALOUS).sum() == 200_000
    assert measures(table) == pytest.approx(
        (roc_auc_score(labels, scores), average_precision_score(labels, scores)), abs=1e-4
    )


def test_few_distinct_scores_are_kept_exactly() -> None:
    scores, labels = sample(5000)
    table = table_of(scores, labels)

    assert table.resolution == 0
    assert np.array_equal(table.values, np.unique(scores))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 400), st.floats(0.01, 0.99))
def test_the_quantile_is_a_score_that_occurred_with_enough_records_at_or_below_it(count: int, share: float) -> None:
    scores, labels = sample(count)
    quantile = table_of(scores, labels).quantile(share)

    assert quantile in scores
    assert (scores <= quantile).mean() >= share - 1e-12


def test_without_records_the_quantile_is_nan() -> None:
    assert np.isnan(ScoreTable().quantile(0.5))


def test_few_bins_rank_nearly_as_well() -> None:
    scores, labels = sample(100_000)
    table = table_of(scores, labels)
    borders = coarsen(table)
    place = np.searchsorted(borders, scores)

    assert len(borders) < 3000
    assert roc_auc_score(labels, place) == pytest.approx(roc_auc_score(labels, scores), abs=1e-3)


def test_intervals_hold_the_value_and_are_as_wide_as_plain_resampling_finds() -> None:
    scores, labels = sample(4000)
    table = table_of(scores, labels)
    rng = np.random.default_rng(1)
    plain = []
    for _ in range(300):
        rows = rng.integers(0, len(scores), len(scores))
        plain.append((roc_auc_score(labels[rows], scores[rows]), average_precision_score(labels[rows], scores[rows])))
    low, high = np.quantile(np.array(plain), [0.025, 0.975], axis=0)

    intervals = bootstrap(table)

    for at, (name, exact) in enumerate(zip(("roc_auc", "average_precision"), measures(table), strict=True)):
        assert intervals[name][0] < exact < intervals[name][1]
        assert intervals[name][1] - intervals[name][0] == pytest.approx(high[at] - low[at], rel=0.25)
    assert bootstrap(table) == intervals


def test_the_interval_of_a_share() -> None:
    low, high = bootstrap_share(50, 100)

    assert low == pytest.approx(0.4, abs=0.02)
    assert high == pytest.approx(0.6, abs=0.02)


def test_the_curve_starts_at_nothing_and_ends_at_everything() -> None:
    scores, labels = sample(50_000)
    rates, recalls, precisions = curve(table_of(scores, labels))

    assert (rates[0], recalls[0]) == (0, 0)
    assert (rates[-1], recalls[-1]) == (1, 1)
    assert len(rates) == len(recalls) == len(precisions) < 500
    assert auc(rates, recalls) == pytest.approx(roc_auc_score(labels, scores), abs=0.002)
