import numpy as np
import pytest

from worker.ranking import roc_auc_of_scores


def test_the_area_is_the_chance_that_an_anomaly_scores_higher() -> None:
    random = np.random.default_rng(0)
    normal, anomalous = random.integers(0, 20, 60) / 2, random.integers(5, 25, 40) / 2
    plain = np.mean([(b > a) + (b == a) / 2 for a in normal for b in anomalous])

    assert roc_auc_of_scores(normal, anomalous) == pytest.approx(plain)


def test_without_anomalies_the_area_is_not_a_number() -> None:
    assert np.isnan(roc_auc_of_scores(np.array([0.5]), np.array([])))
