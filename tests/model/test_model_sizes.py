"""Layer sizes by rule, as their sources compute them."""

import numpy as np
import pytest

from worker.errors import SettingsError
from worker.model.network.options import LAYER_RULES, FitOptions
from worker.model.presets import PRESETS, preset_options


def written(name: str, columns: int, **values: object) -> str:
    return preset_options(name, **values).architecture(columns).describe(columns)


@pytest.mark.parametrize(
    ("columns", "latent", "intended", "literal"),
    [
        (100, 8, "100-64-32-16-8-8", "100-64-32-16-8"),
        (41, 5, "41-32-16-8-5", "41-32-16-8"),
        (784, 32, "784-512-256-128-64-32-32", "784-512-256-128-64-32"),
        (7, 3, "7-4-3", "7-4"),
    ],
)
def test_a_pyramid_has_the_powers_of_two_of_its_source_with_and_without_the_latent(
    columns: int, latent: int, intended: str, literal: str
) -> None:
    for keep, layers in ((True, intended), (False, literal)):
        encoder = layers.split("-")
        whole = "-".join([*encoder, *encoder[-2::-1]])

        assert written("pyramid", columns, latent=latent, keep_innermost=keep) == whole


def test_a_pyramid_equals_its_formula_for_every_width() -> None:
    for columns in range(3, 300):
        for latent in (1, 2, 3, 5, 8, 20, 64):
            if latent >= columns:
                continue
            powers = 2 ** np.arange(max(np.ceil(np.log2(latent)), 2), np.log2(columns))
            encoder = [latent, *powers.astype(int).tolist()][::-1]

            hidden, latent_at = LAYER_RULES["pyramid"](FitOptions(layers="pyramid", latent=latent), columns)

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
    for name in PRESETS:
        assert PRESETS[name].source
        assert preset_options(name).preset == name
        assert preset_options(name).architecture(100).latent < 100


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("pyod", {"hidden": (32, 64)}, r"\[model.hidden\] = \[32, 64\].*each layer must be narrower"),
        ("pyod", {"hidden": (32, 32)}, r"\[model.hidden\]"),
        ("digits", {"hidden": (8,)}, r"\[model.hidden\] = \[8\] and \[model.latent\] = 8"),
        ("deep", {"latent": 41}, r"\[model.latent\] = 41: allowed is 1 to 40"),
        ("halfway", {"latent": 50}, r"\[model.latent\] = 50: allowed is 1 to 40"),
        ("pyramid", {"latent": None}, r"needs \[model.latent\], allowed is 1 to 40"),
        (
            "pyramid",
            {"latent": 33, "keep_innermost": False},
            "keep_innermost = False.*allowed is True",
        ),
        ("denoising", {"latent": 3}, r"\[model.latent\] = 3: not with \[model.options\] layers = 'listed'"),
        (
            "halfway-single",
            {"variational": True},
            "variational = True: needs at least one hidden",
        ),
        ("denoising", {"hidden": ()}, r"\[model.hidden\]"),
        ("denoising", {"hidden": (65_536, 65_536)}, "4,300 million weights, allowed are 500 million.*max_values"),
    ],
)
def test_sizes_that_can_not_be_are_refused_by_their_setting(name: str, values: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        preset_options(name, **values).architecture(41)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("digits", {"preprocessing": "standard"}, r"\[model.options\] preprocessing = 'standard'.*allowed is minmax"),
        (
            "pyod",
            {"loss": "cross-entropy"},
            "loss = 'cross-entropy'.*allowed is squared or absolute",
        ),
        ("pyod", {"score": "kl"}, r"\[model.score\] = 'kl': needs \[model.options\] variational"),
        ("denoising", {"noise_kind": "mask", "noise": 2.0}, r"\[model.options\] noise = 2.0.*allowed is 0 to 1"),
        ("denoising", {"holdout": 0.7}, r"\[model.holdout\] = 0.7: allowed is 0 to 0.5"),
        ("denoising", {"steps": None}, r"\[model.options\] steps"),
    ],
)
def test_values_that_do_not_go_together_are_refused_by_their_setting(
    name: str, values: dict[str, object], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        preset_options(name, **values)
