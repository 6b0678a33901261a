"""Settings become the thresholds that they ask for."""

import numpy as np
import pytest

from worker.cli.wiring import threshold_maker
from worker.detect.budget import AlertBudget
from worker.detect.ordinary import OrdinaryQuantile
from worker.detect.quantile import SlidingQuantile
from worker.detect.threshold import Strictest
from worker.settings import load_settings

CALIBRATION = np.linspace(0.1, 1.0, 500)


@pytest.mark.parametrize(
    ("environment", "policies"),
    [
        ({}, [OrdinaryQuantile]),
        ({"WORKER_THRESHOLD__POLICY": "plain"}, [SlidingQuantile]),
        ({"WORKER_ALERTS__PER_DAY": "50"}, [AlertBudget]),
        ({"WORKER_ALERTS__PER_DAY": "50", "WORKER_THRESHOLD__QUANTILE": "0.99"}, [OrdinaryQuantile, AlertBudget]),
        ({"WORKER_ALERTS__PER_DAY": "50", "WORKER_ALERTS__PER_HOUR": "5"}, [AlertBudget, AlertBudget]),
    ],
)
def test_a_budget_replaces_the_quantile_unless_both_are_set(environment: dict[str, str], policies: list[type]) -> None:
    settings = load_settings(environment, dotenv="")

    policy = threshold_maker(settings.threshold, settings.alerts)(CALIBRATION).policy

    found = policy.policies if isinstance(policy, Strictest) else (policy,)
    assert [type(part) for part in found] == policies


def test_a_budget_is_shared_by_the_partitions() -> None:
    settings = load_settings({"WORKER_ALERTS__PER_DAY": "80"}, dotenv="")

    policy = threshold_maker(settings.threshold, settings.alerts, partitions=4)(CALIBRATION).policy

    assert isinstance(policy, AlertBudget)
    assert policy.alerts == 20
