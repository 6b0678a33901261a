"""One-hot is what the model sees, never what memory holds: the quick path equals the dense one."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model import reference
from worker.errors import SettingsError
from worker.model.network.autoencoder import Architecture, Autoencoder, Layout
from worker.model.scoring.scorer import CPU_TILE_ROWS, Scorer, resolve_device, round_significant
from worker.records import FloatArray


def random_rows(layout: Layout, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    numeric = rng.normal(0, 3, (count, layout.numeric)).astype(np.float32)
    category_ids = np.array([rng.integers(0, width, count) for width in layout.widths], np.int32)  # (C, count)
    return numeric, category_ids.reshape(len(layout.widths), count).T.copy()


def one_hot_reference(network: Autoencoder, numeric: np.ndarray, category_ids: np.ndarray) -> FloatArray:
    """Squared errors by the whole network in float64 numpy over real one-hot rows."""
    rows, answer, _ = reference.forward(network, numeric, category_ids)
    errors: FloatArray = ((answer - rows) ** 2).sum(1)
    return errors


@settings(max_examples=25, deadline=None)
@given(
    numeric=st.integers(0, 12),
    widths=st.lists(st.integers(1, 300), max_size=6),
    hidden=st.lists(st.integers(1, 64), min_size=1, max_size=4),
    seed=st.integers(0, 1000),
)
def test_scores_without_one_hot_rows_equal_the_dense_ones(
    numeric: int, widths: list[int], hidden: list[int], seed: int
) -> None:
    layout = Layout(numeric, tuple(widths))
    if layout.columns == 0:
        return
    torch.manual_seed(seed)
    network = Autoencoder(layout, Architecture(tuple(hidden))).eval()
    rows = random_rows(layout, 40, seed)

    scores = Scorer(network, 1).score(*rows)

    np.testing.assert_allclose(scores, one_hot_reference(network, *rows), rtol=1e-5, atol=1e-5)


def test_scores_of_a_vocabulary_of_32_000_equal_the_dense_ones() -> None:
    layout = Layout(8, (16_000, 16_000))
    torch.manual_seed(3)
    network = Autoencoder(layout, Architecture()).eval()
    rows = random_rows(layout, 200, 3)

    scores = Scorer(network, 10).score(*rows)

    np.testing.assert_allclose(scores, one_hot_reference(network, *rows) / 10, rtol=1e-5)


@pytest.mark.parametrize("size", [1, 7, 256, 4096])
def test_a_rows_score_is_the_same_to_the_bit_in_a_batch_of_any_size(size: int) -> None:
    layout = Layout(9, (40, 7))
    torch.manual_seed(0)
    scorer = Scorer(Autoencoder(layout, Architecture()).eval(), 11)
    numeric, category_ids = random_rows(layout, 2 * CPU_TILE_ROWS + 77, 0)
    whole = scorer.score(numeric, category_ids)

    count = min(len(numeric), 300) if size == 1 else len(numeric)
    parts = [scorer.score(numeric[i : i + size], category_ids[i : i + size]) for i in range(0, count, size)]

    assert np.concatenate(parts).tolist()[:count] == whole.tolist()[:count]


def test_an_empty_batch_has_no_scores() -> None:
    scorer = Scorer(Autoencoder(Layout(2, (3,)), Architecture()), 3)

    assert scorer.score(*random_rows(Layout(2, (3,)), 0, 0)).shape == (0,)


@pytest.mark.parametrize(
    ("value", "rounded"),
    [(0.0, 0.0), (123456.7, 123457.0), (1.2345678e-12, 1.23457e-12), (9.9999996, 10.0), (1.5e300, 1.5e300)],
)
def test_rounding_keeps_six_significant_digits(value: float, rounded: float) -> None:
    assert round_significant(np.array([value])).tolist() == [rounded]


@pytest.mark.gpu
def test_a_gpu_gives_the_scores_of_the_cpu() -> None:
    layout = Layout(9, (400, 7))
    torch.manual_seed(0)
    network = Autoencoder(layout, Architecture()).eval()
    rows = random_rows(layout, 10_000, 0)
    on_cpu = Scorer(network, 11).score(*rows)

    on_gpu = Scorer(network, 11, "cuda").score(*rows)

    np.testing.assert_allclose(on_gpu, on_cpu, rtol=1e-4)


@pytest.mark.parametrize("name", ["tpu", "cuda:99", "meta", ""])
def test_a_device_that_is_not_there_is_refused_by_its_setting(name: str) -> None:
    with pytest.raises(SettingsError, match=r"\[device\]"):
        resolve_device(name)
