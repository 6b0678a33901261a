"""Architectures and recipes of published systems by name, as data: a new one is one `PRESETS.register(...)`.

What a source leaves open is chosen here and marked with a comment.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from worker.errors import SettingsError
from worker.model.network import options
from worker.model.network.options import FitOptions, Values
from worker.model.scoring.score import SCORES
from worker.registry import Registry

_PLAIN: Mapping[str, Any] = {
    "noise": 0.0, "swap": 0.0, "optimizer": "adam", "learning_rate": 1e-3, "weight_decay": 0.0, "steps": None,
    "holdout": 0.0, "patience": 0, "reduction": "mean", "score": "mse",
}  # fmt: skip
"""No corruption, Adam at its usual rate, all rows fitted, the last weights kept."""


class Preset(NamedTuple):
    """An architecture with its recipe, score and threshold rule.

    source  where it was published
    values  of FitOptions, what differs from its defaults
    """

    source: str
    values: Mapping[str, Any]


_BUILT_IN = {
    "denoising": Preset("this project's own; after Vincent et al. 2008, denoising autoencoders", {}),
    "pyod": Preset(
        "PyOD 2 and 3, pyod.models.auto_encoder.AutoEncoder (BSD-2-Clause)",
        {
            **_PLAIN, "layers": "mirrored", "hidden": (64, 32), "batch_norm": True, "dropout": (0.2,),
            "preprocessing": "standard", "weight_decay": 1e-5, "epochs": 10, "batch": 32, "drop_last": True,
            "score": "euclidean", "rule": "contamination", "rule_value": 0.1,
        },
    ),
    "pyramid": Preset(
        "PyTorch tutorials on anomaly detection with layer sizes by powers of two (as in DeepADoTS)",
        {
            **_PLAIN, "layers": "pyramid", "latent": 8, "activation": "identity", "preprocessing": "standard",
            "learning_rate": 1e-2, "reduction": "sum", "drop_last": True, "score": "sum-l1", "scale_score": True,
            "rule": "fixed", "epochs": 20, "batch": 64, "rule_value": 0.5,  # these three: open in the source
        },
    ),
    "digits": Preset(
        "J. McCaffrey, anomaly detection on UCI digits with an autoencoder, 65-32-8-32-65 (Visual Studio Magazine)",
        {
            **_PLAIN, "layers": "mirrored", "hidden": (32,), "latent": 8, "activation": "tanh", "output": "sigmoid",
            "preprocessing": "minmax", "optimizer": "sgd", "learning_rate": 5e-3, "epochs": 100, "batch": 10,
            "reduction": "fields",  # the source takes the mean, with which this recipe does not learn
            "rule": "training-quantile", "rule_value": 0.95,  # the source ranks items and has no threshold
        },
    ),
    "halfway": Preset(
        "autoencoder with one layer of (F + latent) // 2 units on each side of the latent",
        {
            **_PLAIN, "layers": "halfway", "latent": 10, "output": "sigmoid",
            "preprocessing": "minmax", "epochs": 50, "batch": 50, "holdout": 0.2,
        },
    ),
    "halfway-single": Preset(
        "its variant with one hidden layer, F-30-F",
        {
            **_PLAIN, "layers": "mirrored", "hidden": (30,), "output": "sigmoid", "preprocessing": "minmax",
            "epochs": 50, "batch": 50, "holdout": 0.1,
        },
    ),
    "deep": Preset(
        "guide to deep and variational autoencoders: F-512-256-32-256-512-F",
        {
            **_PLAIN, "layers": "mirrored", "hidden": (512, 256), "latent": 32, "latent_activation": "identity",
            "output": "sigmoid", "preprocessing": "minmax", "epochs": 50, "batch": 256,  # the batch: open in the source
            "rule": "training-quantile", "rule_value": 0.95,
        },
    ),
    "deep-small": Preset(
        "the same guide, F-128-64-16-64-128-F",
        {
            **_PLAIN, "layers": "mirrored", "hidden": (128, 64), "latent": 16, "latent_activation": "identity",
            "output": "sigmoid", "preprocessing": "minmax", "epochs": 50, "batch": 256,
            "rule": "training-quantile", "rule_value": 0.95,
        },
    ),
    "vae": Preset(
        "the same guide; Kingma & Welling 2014, auto-encoding variational Bayes",
        {
            **_PLAIN, "layers": "mirrored", "hidden": (64,), "latent": 8, "variational": True, "output": "sigmoid",
            "preprocessing": "minmax", "loss": "cross-entropy", "reduction": "fields", "epochs": 50, "batch": 128,
            "rule": "training-quantile", "rule_value": 0.95,
        },
    ),
}  # fmt: skip

PRESETS: Final[Registry[Preset]] = Registry("preset")
for _name, _preset in _BUILT_IN.items():
    PRESETS.register(_name, _preset)

RANGES: Final[Mapping[str, Values]] = {**options.RANGES, "preset": PRESETS, "score": SCORES}
"""The allowed values of every option that a setting has."""


def preset_options(name: str, **overrides: Any) -> FitOptions:
    """A preset's values, with some of them replaced; SettingsError where they are out of range or do not go together.

    >>> preset_options("pyod", epochs=3).dropout
    (0.2,)
    """
    values = FitOptions(**{"preset": name, **PRESETS[name].values, **overrides})
    require_score(values)
    return values


def require_score(values: FitOptions) -> None:
    """SettingsError where the network that the options describe has no such score."""
    if SCORES[values.score].needs_variational and not values.variational:
        raise SettingsError(f"[model.score] = {values.score!r}: needs [model.options] variational = true")
