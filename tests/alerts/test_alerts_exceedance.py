"""Severity follows the tail probability."""

import math

import pytest

from worker.alerts.exceedance import severity_of


@pytest.mark.parametrize(
    ("probability", "severity"),
    [(0.004, "info"), (0.001, "info"), (0.0009, "warning"), (1e-5, "warning"), (9e-6, "critical"), (math.nan, "info")],
)
def test_severity_follows_the_probability(probability: float, severity: str) -> None:
    assert severity_of(probability) == severity
