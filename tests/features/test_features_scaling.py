import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.features.common import STEADY
from worker.features.scaling import Scaling, fit_scaling
from worker.records import FloatArray

FINITE = st.floats(allow_nan=False, allow_infinity=False)
NORMAL = st.floats(-1e6, 1e6)


def column(*values: float) -> FloatArray:
    return np.array(values, np.float64)


def z(x: float, scaling: Scaling) -> float:
    return float(scaling.apply(column(x))[0])


def test_a_heavy_tail_is_taken_in_logs() -> None:
    amounts = np.random.default_rng(0).lognormal(3, 2, 1000)

    assert fit_scaling(amounts, "auto").transform == "log1p"
    assert fit_scaling(np.log(amounts), "auto").transform == "linear"
    assert fit_scaling(amounts, "linear").transform == "linear"
    assert fit_scaling(np.log(amounts), "log1p").transform == "log1p"


def test_a_skewed_rate_stays_linear() -> None:
    assert fit_scaling(column(*[0.0] * 99, 1.0), "auto").transform == "linear"


def test_center_is_the_median_and_scale_the_larger_of_spread_and_deviation() -> None:
    x = np.random.default_rng(0).normal(50, 4, 2001)

    scaling = fit_scaling(x, "auto")

    iqr = np.subtract(*np.percentile(x, [75, 25])) / 1.349
    assert scaling.center == pytest.approx(np.median(x))
    assert scaling.scale == pytest.approx(max(iqr, x.std()))


def test_a_rate_between_0_and_1_has_the_floor_of_0_3() -> None:
    assert fit_scaling(column(*[0.0] * 999, 1.0), "auto").scale == 0.3


def test_a_column_in_millionths_keeps_its_spread() -> None:
    x = np.random.default_rng(0).uniform(0, 5e-6, 1000)

    assert float(fit_scaling(x, "auto").apply(x).std()) > 0.5


def test_a_narrow_band_far_from_zero_keeps_its_spread() -> None:
    x = np.random.default_rng(0).normal(230, 0.1, 1000)

    assert float(fit_scaling(x, "auto").apply(x).std()) > 0.5


@pytest.mark.parametrize("constant", [0.0, 1.0, 57.16, -3.0, 8e9, 1e-6, 1e300, 5e-324])
def test_a_constant_column_is_0_and_a_change_is_finite(constant: float) -> None:
    scaling = fit_scaling(column(*[constant] * 50), "auto")

    assert z(constant, scaling) == 0.0
    assert 0 < abs(z(constant * 2 + 1, scaling)) < 1000


def test_rounding_noise_on_a_large_constant_stays_noise() -> None:
    scaling = fit_scaling(column(*[8e9] * 50), "auto")

    assert abs(z(8e9 + 1, scaling)) < 0.01


def test_beyond_10_the_scale_is_logarithmic_and_continuous() -> None:
    scaling = Scaling("linear", 0.0, 1.0)

    assert z(10.0, scaling) == 10.0
    assert z(10.001, scaling) == pytest.approx(10.001)
    assert z(-1000.0, scaling) == pytest.approx(-(10 + np.log1p(990)))


@STEADY
@given(st.lists(FINITE, max_size=30), st.lists(FINITE, min_size=1, max_size=30), st.sampled_from(["auto", "log1p"]))
def test_whatever_was_fitted_every_finite_number_gives_a_finite_float32(
    fit: list[float], seen: list[float], transform: str
) -> None:
    scaling = fit_scaling(column(*fit), transform)

    assert scaling.scale > 0
    assert np.isfinite(scaling[1:]).all()
    assert np.isfinite(scaling.apply(column(*seen)).astype(np.float32)).all()


@STEADY
@given(st.lists(FINITE, max_size=30), FINITE)
def test_the_way_back_is_always_finite(fit: list[float], value: float) -> None:
    assert np.isfinite(fit_scaling(column(*fit), "auto").invert(value))


@STEADY
@given(st.lists(NORMAL, min_size=1, max_size=30), NORMAL, st.sampled_from(["linear", "log1p"]))
def test_the_way_back_leads_to_the_value(fit: list[float], value: float, transform: str) -> None:
    scaling = fit_scaling(column(*fit), transform)

    assert scaling.invert(z(value, scaling)) == pytest.approx(value, rel=1e-6, abs=1e-6)


@STEADY
@given(st.lists(NORMAL, min_size=1, max_size=30), NORMAL, NORMAL)
def test_larger_values_never_get_a_smaller_z(fit: list[float], one: float, other: float) -> None:
    scaling = fit_scaling(column(*fit), "auto")

    assert z(min(one, other), scaling) <= z(max(one, other), scaling)
