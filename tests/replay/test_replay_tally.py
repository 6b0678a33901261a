from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_score, recall_score, roc_auc_score

from worker.errors import ErrorCode
from worker.records import DeadLetter, Outcome, Scores
from worker.replay.lines import Label, Line
from worker.replay.metrics import METRICS, measure
from worker.replay.tally import DAY_MS, Incidents, Tally

THRESHOLD = 1.0


def line(row: int, label: Label = None, key: bytes | None = None) -> Line:
    return Line("t", 0, row, -1, key, b"{}", (), row, label)


def outcome(
    scores: Sequence[float], labels: Sequence[Label], times: Sequence[int], dead: Sequence[DeadLetter] = ()
) -> Outcome:
    score = np.array(scores, np.float64)
    columns = Scores(
        [line(row, label) for row, label in enumerate(labels)],
        score,
        np.full(len(score), THRESHOLD),
        score > THRESHOLD,
        np.array(times, np.int64),
        "v1",
    )
    return Outcome(columns, [], dead, 1)


def sample(count: int = 5000, seed: int = 0) -> tuple[list[float], list[Label], list[int]]:
    rng = np.random.default_rng(seed)
    anomalous = rng.random(count) < 0.03
    scores = np.round(np.exp(rng.normal(-1, 0.7, count) + anomalous), 3)
    labels: list[Label] = [("a" if rng.random() < 0.5 else "b") if bad else "" for bad in anomalous]
    return scores.tolist(), labels, np.sort(rng.integers(0, 5 * DAY_MS, count)).tolist()


def test_every_metric_is_documented() -> None:
    tally = Tally()
    tally.add(outcome(*sample()))

    assert set(measure(tally)) <= set(METRICS)


def test_metrics_are_those_of_scikit_learn() -> None:
    scores, labels, times = sample()
    tally = Tally()
    tally.add(outcome(scores, labels, times))
    truth = np.array([label != "" for label in labels])
    alerts = np.array(scores) > THRESHOLD

    metrics = measure(tally)

    assert metrics["roc_auc"] == pytest.approx(roc_auc_score(truth, scores), abs=1e-6)
    assert metrics["average_precision"] == pytest.approx(average_precision_score(truth, scores), abs=1e-6)
    assert metrics["precision_at_threshold"] == pytest.approx(precision_score(truth, alerts), abs=1e-6)
    assert metrics["recall_at_threshold"] == pytest.approx(recall_score(truth, alerts), abs=1e-6)
    assert metrics["false_alert_rate"] == pytest.approx(alerts[~truth].mean(), abs=1e-6)
    assert metrics["alerts"] == metrics["true_alerts"] + metrics["false_alerts"] == alerts.sum()
    for name in ("roc_auc", "average_precision", "precision_at_threshold", "recall_at_threshold"):
        low, high = metrics[f"{name}_interval"]
        assert low < metrics[name] < high


@settings(deadline=None)
@given(st.integers(1, 997), st.integers(0, 3))
def test_the_size_of_batches_changes_nothing(size: int, seed: int) -> None:
    scores, labels, times = sample(1000, seed)
    whole, parts = Tally(), Tally()
    whole.add(outcome(scores, labels, times))
    for start in range(0, 1000, size):
        end = start + size
        parts.add(outcome(scores[start:end], labels[start:end], times[start:end]))
    parts.skipped = whole.skipped  # each outcome of this test has one

    assert measure(parts) == measure(whole)


def test_a_budget_takes_the_highest_scores_of_each_day() -> None:
    scores, labels, times = sample()
    tally = Tally()
    tally.add(outcome(scores, labels, times))
    true_alerts, spent = 0, 0
    for day in range(5):
        here = [(-score, row) for row, score in enumerate(scores) if times[row] // DAY_MS == day]
        best = [row for _, row in sorted(here)[:10]]
        true_alerts += sum(labels[row] != "" for row in best)
        spent += len(best)

    metrics = measure(tally)

    assert metrics["precision_at_k"]["10"] == pytest.approx(true_alerts / spent, abs=1e-6)
    assert metrics["recall_at_k"]["10"] == pytest.approx(true_alerts / metrics["anomalies"], abs=1e-6)
    assert metrics["recall_at_k"]["1000"] == 1.0


def test_kinds_are_told_apart() -> None:
    tally = Tally()
    tally.add(outcome([2, 0.5, 2, 2], ["a", "a", "b", ""], [0, 1, 2, 3]))

    assert measure(tally)["recall_by_kind"] == {
        "a": {"records": 2, "alerts": 1, "recall": 0.5},
        "b": {"records": 1, "alerts": 1, "recall": 1.0},
    }


def test_without_labels_what_needs_them_is_null() -> None:
    tally = Tally()
    tally.add(outcome([2, 0.5], [None, None], [0, 2 * DAY_MS]))
    metrics = measure(tally)

    assert metrics["alerts"] == 1
    assert metrics["alerts_per_day"] == 0.5
    for name in ("roc_auc", "precision_at_k", "recall_at_threshold", "false_alert_rate", "incidents", "recall_by_kind"):
        assert metrics[name] is None


def test_without_event_times_there_are_no_days() -> None:
    tally = Tally()
    tally.add(outcome([2, 0.5], ["a", ""], [-1, -1]))
    metrics = measure(tally)

    assert metrics["days"] is None
    assert metrics["alerts_per_day"] is None
    assert metrics["precision_at_k"]["10"] == 0.5


def test_a_short_recording_counts_as_one_day() -> None:
    tally = Tally()
    tally.add(outcome([2, 2], [None, None], [0, 1000]))

    assert measure(tally)["alerts_per_day"] == 2


def test_times_that_run_backwards_are_counted() -> None:
    tally = Tally()
    tally.add(outcome([1, 1, 1], [None] * 3, [10, 5, 20]))
    tally.add(outcome([1, 1, 1], [None] * 3, [19, -1, 30]))

    metrics = measure(tally)

    assert metrics["backward_times"] == 2
    assert (metrics["first_event_time_ms"], metrics["last_event_time_ms"]) == (5, 30)


def test_every_record_is_counted_once() -> None:
    tally = Tally()
    dead = [DeadLetter(line(1), ErrorCode.INVALID_JSON, "no"), DeadLetter(line(2), ErrorCode.WRONG_TYPE, "no")]
    tally.add(outcome([1, 2], [None, None], [0, 1], dead))
    metrics = measure(tally)

    assert metrics["records"] == 5
    assert (metrics["scored"], metrics["dead_letters"], metrics["skipped"]) == (2, 2, 1)
    assert metrics["dead_letters_by_code"] == {"invalid_json": 1, "wrong_type": 1}


def test_incidents_are_told_apart_by_kind_key_and_gap() -> None:
    minute, hour = 60_000, 3_600_000
    incidents = Incidents()
    incidents.add([("a", b"1", 0, False), ("a", b"2", 0, False), ("b", b"1", minute, True)])
    incidents.add([("a", b"1", 2 * minute, True), ("a", b"1", 3 * minute, True)])
    incidents.add([("a", b"1", 3 * minute + hour + 1, True)])

    # a/1: after 120 s; a/2: never; b/1: at once; a/1 again, later: at once
    assert incidents.finish() == (4, 3, 0.0, 120.0)
