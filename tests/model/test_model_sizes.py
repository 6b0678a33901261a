"""Layer sizes by rule, as their sources compute them."""

import numpy as np
import pytest

from worker.errors import SettingsError
from worker.model.network.presets import PRESETS, preset_options
from worker.model.network.sizes import hidden_layers


def written(name: str, columns: int, **values: object) -> str:
    return preset_options(name, **values).architecture(columns).written(columns)


@pytest.mark.parametrize(
    ("columns", "latent", "intended", "literal"),
    [
        (100, 8, "100-64-32-16-8-8", "100-64-32-16-8"),
        (41, 5, "41-32-16-8-5", "41-32-16-8"),
        (784, 32, "784-512-256-128-64-32-32", "784-512-256-128-64-32"),
        (7, 3, "7-4-3", "7-4"),
    ],
)
def test_a_pyramid_has_the_powers_of_two_of_its_source_with_and_without_the_code(
    columns: int, latent: int, intended: str, literal: str
) -> None:
    for keep, wanted in ((True, intended), (False, literal)):
        encoder = wanted.split("-")
        whole = "-".join([*encoder, *encoder[-2::-1]])

        assert written("pyramid", columns, latent=latent, keep_innermost=keep) == whole


def test_a_pyramid_equals_its_formula_for_every_width() -> None:
    for columns in range(3, 300):
        for code in (1, 2, 3, 5, 8, 20, 64):
            if code >= columns:
                continue
            powers = 2 ** np.arange(max(np.ceil(np.log2(code)), 2), np.log2(columns))
            encoder = [code, *powers.astype(int).tolist()][::-1]

            hidden, latent_at = hidden_layers("pyramid", columns, (), code)

            assert hidden == (*encoder, *encoder[-2::-1])
            assert latent_at == len(encoder) - 1


@pytest.mark.parametrize(
    ("name", "columns", "layers"),
    [
        ("pyod", 41, "41-64-32-64-41"),
        ("digits", 65, "65-32-8-32-65"),
        ("halfway", 100, "100-55-10-55-100"),
        ("halfway-single", 41, "41-30-41"),
        ("deep", 784, "784-512-256-32-256-512-784"),
        ("deep-small", 784, "784-128-64-16-64-128-784"),
        ("vae", 64, "64-64-8-64-64"),
        ("denoising", 41, "41-128-64-128-41"),
    ],
)
def test_the_layers_of_a_preset_are_those_of_its_source(name: str, columns: int, layers: str) -> None:
    assert written(name, columns) == layers


def test_every_preset_names_its_source_and_is_whole() -> None:
    for name, preset in PRESETS.items():
        assert preset.source
        assert preset_options(name).preset == name
        assert preset_options(name).architecture(100).latent < 100


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("pyod", {"hidden": (32, 64)}, r"WORKER_MODEL__HIDDEN = \[32, 64\].*each layer must be narrower"),
        ("pyod", {"hidden": (32, 32)}, "WORKER_MODEL__HIDDEN"),
        ("digits", {"hidden": (8,)}, r"WORKER_MODEL__HIDDEN = \[8\] and LATENT = 8"),
        ("deep", {"latent": 41}, "WORKER_MODEL__LATENT = 41: allowed is 1 to 40"),
        ("halfway", {"latent": 50}, "WORKER_MODEL__LATENT = 50: allowed is 1 to 40"),
        ("pyramid", {"latent": None}, "needs WORKER_MODEL__LATENT, allowed is 1 to 40"),
        ("pyramid", {"latent": 33, "keep_innermost": False}, "WORKER_MODEL__KEEP_INNERMOST = False.*allowed is True"),
        ("denoising", {"latent": 3}, "WORKER_MODEL__LATENT = 3: not with WORKER_MODEL__LAYERS = 'listed'"),
        ("vae", {"hidden": ()}, "WORKER_MODEL__VARIATIONAL = True: needs at least one hidden layer"),
        ("denoising", {"hidden": ()}, "WORKER_MODEL__HIDDEN"),
        ("denoising", {"hidden": (65_536, 65_536)}, "4,300 million weights, allowed are 500 million.*max_values"),
    ],
)
def test_sizes_that_can_not_be_are_refused_by_their_setting(name: str, values: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        preset_options(name, **values).architecture(41)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("digits", {"preprocessing": "standard"}, "WORKER_MODEL__PREPROCESSING = 'standard'.*allowed is minmax"),
        ("pyod", {"loss": "cross-entropy"}, "WORKER_MODEL__LOSS = 'cross-entropy'.*allowed is squared or absolute"),
        ("pyod", {"score": "kl"}, "WORKER_MODEL__SCORE = 'kl': needs WORKER_MODEL__VARIATIONAL"),
        ("denoising", {"noise_kind": "mask", "noise": 2.0}, "WORKER_MODEL__NOISE = 2.0.*allowed is 0 to 1"),
        ("denoising", {"holdout": 0.7}, "WORKER_MODEL__HOLDOUT = 0.7: allowed is 0 to 0.5"),
        ("denoising", {"steps": None}, "WORKER_MODEL__STEPS"),
    ],
)
def test_values_that_do_not_go_together_are_refused_by_their_setting(
    name: str, values: dict[str, object], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        preset_options(name, **values)
