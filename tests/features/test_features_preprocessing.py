"""The scalings that published recipes ask for, beside the robust one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.features.common import STEADY, decoded
from worker.features.scaling import FARTHEST, fit_scaling
from worker.features.schema import parse_schema
from worker.features.vectorize import Vectorizer, fit_vectorizer
from worker.records import FloatArray

FINITE = st.floats(-1e300, 1e300)
COLUMNS = st.lists(FINITE, min_size=1, max_size=40).map(np.array)


def test_standard_is_mean_and_deviation_without_a_bend_for_far_values() -> None:
    x = np.random.default_rng(0).normal(5, 3, 1000)

    scaling = fit_scaling(x, preprocessing="standard")

    np.testing.assert_allclose(scaling.apply(x), (x - x.mean()) / (x.std() + 1e-8), rtol=1e-9)
    far = np.array([5 + 3 * 5000.0])
    assert scaling.apply(far)[0] == pytest.approx((far[0] - x.mean()) / x.std(), rel=1e-6)


def test_minmax_is_0_at_the_low_end_and_1_at_the_high_one() -> None:
    x = np.array([2.0, 3.0, 6.0])

    assert fit_scaling(x, preprocessing="minmax").apply(x).tolist() == [0, 0.25, 1]
    assert fit_scaling(x, preprocessing="minmax", known=(0.0, 8.0)).apply(x).tolist() == [0.25, 0.375, 0.75]
    in_logs = fit_scaling(x, "log1p", "minmax", (0.0, float(np.expm1(2))))
    logs = in_logs.apply(np.array([0.0, np.expm1(1), np.expm1(2)]))
    np.testing.assert_allclose(logs, [0, 0.5, 1], atol=1e-12)


@pytest.mark.parametrize("x", [np.full(5, 7.0), np.zeros(3), np.array([1e-9])])
def test_a_constant_column_keeps_the_unit_that_it_has(x: FloatArray) -> None:
    for scaling in (fit_scaling(x, preprocessing="standard"), fit_scaling(x, preprocessing="minmax")):
        assert scaling.apply(x).tolist() == [0.0] * len(x)
        assert scaling.apply(x + 3).tolist() == pytest.approx([3.0] * len(x), rel=1e-6)


@STEADY
@given(x=COLUMNS, fresh=COLUMNS)
def test_scaled_values_are_finite_and_come_back(x: FloatArray, fresh: FloatArray) -> None:
    for scaling in (fit_scaling(x, preprocessing="standard"), fit_scaling(x, preprocessing="minmax")):
        z = scaling.apply(fresh)

        assert np.isfinite(z.astype(np.float32)).all()
        assert (np.abs(z) <= FARTHEST).all()
        assert np.isfinite([scaling.invert(value) for value in z.tolist()]).all()
        for value in x.tolist():
            back = scaling.invert(float(scaling.apply(np.array([value]))[0]))
            assert back == pytest.approx(value, rel=1e-6, abs=1e-6 * float(np.abs(x).max()) + 1e-6)


SCHEMA = parse_schema(
    '[fields.a]\nkind = "numeric"\nrange = [0, 10]\n[fields.b]\nkind = "numeric"\n'
    '[fields.at]\nkind = "timestamp"\n[fields.t]\nkind = "text"'
)


def test_with_known_ranges_all_columns_of_the_fit_lie_between_0_and_1() -> None:
    rows = [
        {"a": float(n % 9), "b": float(n), "at": f"2026-01-{n + 1:02d}T{n:02d}:00:00Z", "t": "x" * n} for n in range(20)
    ]
    fitted = fit_vectorizer(SCHEMA, rows, "minmax")

    vectors = Vectorizer(fitted).transform(decoded([*rows, {"b": None}]))

    assert vectors.numeric.min() >= 0
    assert vectors.numeric.max() <= 1
    assert vectors.numeric[3, 0] == pytest.approx(0.3)
    missing = dict(zip(fitted.numeric_fields, vectors.numeric[-1].tolist(), strict=True))
    assert missing["a"] == pytest.approx(np.median([row["a"] for row in rows]) / 10)
    assert missing["b"] == pytest.approx(0.5)


def test_a_reconstructed_time_is_read_back_from_its_scaled_waves() -> None:
    rows = [
        {"a": 1.0, "b": 2.0, "at": f"2026-01-{1 + n // 24:02d}T{n % 24:02d}:30:00Z", "t": ""} for n in range(24 * 20)
    ]
    for preprocessing in ("robust", "standard", "minmax"):
        fitted = fit_vectorizer(SCHEMA, rows, preprocessing)
        numeric = Vectorizer(fitted).transform(decoded([rows[30]])).numeric[0]
        waves = [float(z) for z, name in zip(numeric, fitted.numeric_fields, strict=True) if name == "at"]

        assert fitted.expected("at", waves) == "Fri 06:30"
