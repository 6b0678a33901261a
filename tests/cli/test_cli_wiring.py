"""Settings become the thresholds and limits that they ask for."""

import numpy as np
import pytest

from worker.cli.wiring import longest_batch_s, threshold_maker
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


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, 15.0),
        ({"WORKER_HTTP__STALL_S": "600"}, 75.0),
        ({"WORKER_KAFKA__OPTIONS": '{"max_poll_interval_ms": 20000}'}, 5.0),
    ],
)
def test_a_batch_may_take_a_quarter_of_what_group_and_liveness_allow(
    environment: dict[str, str], seconds: float
) -> None:
    assert longest_batch_s(load_settings(environment, dotenv="")) == seconds
