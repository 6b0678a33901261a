"""Everything that a fit takes, as plain values with their ranges: the building blocks that presets are made of.

The rules for layer sizes are here, too: they make the hidden layers of a network for the width of its input.
"""

from collections.abc import Callable, Iterator
from dataclasses import Field, dataclass, field, fields
from itertools import pairwise
from types import NoneType
from typing import Any, Final, get_args

import numpy as np
import torch

from worker.errors import SettingsError
from worker.features.scaling import PREPROCESSING
from worker.model.network.autoencoder import ACTIVATIONS, OUTPUTS, Architecture
from worker.model.network.loss import LOSSES, NOISE_KINDS, REDUCTIONS
from worker.registry import Registry

OPTIMIZERS: Registry[Callable[..., torch.optim.Optimizer]] = Registry("optimizer")
for _optimizer in (torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD):
    OPTIMIZERS.register(_optimizer.__name__.lower(), _optimizer)

LayerRule = Callable[["FitOptions", int], tuple[tuple[int, ...], int | None]]
"""Options and F input columns to all hidden sizes, and which of them is the latent (None: the narrowest).

SettingsError for impossible sizes.
"""
LAYER_RULES: Registry[LayerRule] = Registry("layer rule")

SETTINGS: Final = ("preset", "hidden", "latent", "score", "field_weights", "epochs", "learning_rate", "holdout")
"""Options that are settings of their own, for they are what people set; all others stand in [model.options]."""
MAX_WEIGHTS = 500_000_000
"""Of a network: 2 GB, four times that while it is fitted."""


@dataclass(frozen=True, slots=True)
class Range:
    """Allowed values by a rule; an error says `text` after "allowed is". many: each of them is a tuple of numbers."""

    text: str
    holds: Callable[[Any], bool]
    many: bool = False

    def __contains__(self, value: Any) -> bool:
        return self.holds(value)

    def __str__(self) -> str:
        return self.text


Values = Registry[Any] | Range


def number(low: float, high: float, kind: type[float] | type[int] = float, *, above: bool = False) -> Range:
    """A number from `low`, or above it, to `high`. A whole number is a number, a truth value is none."""

    def holds(value: Any) -> bool:
        is_number = isinstance(value, int | kind) and not isinstance(value, bool)
        return is_number and low <= value <= high and not (above and value == low)

    return Range(f"{'above ' * above}{low:.10g} to {high:.10g}", holds)


def numbers(text: str, counts: range, holds: Callable[[Any], bool]) -> Range:
    """A tuple of so many numbers."""
    return Range(text, lambda value: isinstance(value, tuple) and len(value) in counts and all(map(holds, value)), True)


UNITS, SHARE, WEIGHT = number(1, 65_536, int), number(0, 1), number(0, 1_000_000)
LAYERS = numbers(f"1 to 32 numbers, each {UNITS}", range(1, 33), UNITS.holds)
SHARES = numbers("up to 63 numbers, each from 0 and below 1", range(64), lambda share: share in SHARE and share < 1)
WEIGHTS = Range(f"JSON object of numbers from {WEIGHT}", lambda pairs: all(weight in WEIGHT for _, weight in pairs))
FLAG = Range("true or false", lambda value: isinstance(value, bool))
SCALINGS = Range(", ".join(PREPROCESSING), lambda value: value in PREPROCESSING)


def _option(default: Any, allowed: Values, what: str = "") -> Any:
    return field(default=default, metadata={"allowed": allowed, "what": what})


@dataclass(frozen=True, slots=True)
class FitOptions:
    """What to fit, and how. The defaults are the preset `denoising`.

    Each option is declared once, here: its default, its range and what it is. Those without a description are settings
    of their own. SettingsError where a value is out of its range, or does not go with another one.

        preset      where the values come from, for people
        rule        the threshold that a model brings along, see worker.thresholds.factory; rule_value: its number
        score       see worker.model.scoring.score, which also knows the allowed names

    >>> FitOptions(hidden=(64, 32), layers="mirrored").architecture(columns=41).describe(41)
    '41-64-32-64-41'
    >>> FitOptions(beta=-1)
    Traceback (most recent call last):
    worker.errors.SettingsError: [model.options] beta = -1: allowed is 0 to 1000
    """

    # fmt: off
    preset: str = "denoising"
    layers: str = _option("listed", LAYER_RULES,
        "where the layer sizes come from: all of them `listed` in HIDDEN; HIDDEN down "
        "to the latent and `mirrored`; a `pyramid` of powers of two; one layer `halfway` between input and latent")
    hidden: tuple[int, ...] = _option((128, 64, 128), LAYERS)
    latent: int | None = _option(None, UNITS)
    # False is the published tutorial to the letter: it slices the innermost layer off on both sides, so that its latent
    # is as wide as the smallest power of two.
    keep_innermost: bool = _option(True, FLAG,
        "of a pyramid: whether the latent itself is a layer; `false` stops at the smallest power of two")
    activation: str = _option("relu", ACTIVATIONS, "after each hidden layer")
    latent_activation: str | None = _option(None, ACTIVATIONS,
        "after the latent; not set and not in the preset: as after the others")
    output: str = _option("linear", OUTPUTS, "`sigmoid` answers from 0 to 1, needs `minmax` preprocessing")
    batch_norm: bool = _option(False, FLAG, "batch normalisation in each hidden layer")
    dropout: tuple[float, ...] = _option((), SHARES,
        "share dropped while fitting: one number for all hidden layers, or several, each for one")
    variational: bool = _option(False, FLAG, "draw the latent around a mean while fitting; scores come from the mean")
    beta: float = _option(1.0, number(0, 1_000), "weight of the divergence in a variational loss")
    preprocessing: str = _option("robust", SCALINGS,
        "scale of numbers: `robust` by median and spread, "
        "`standard` by mean and deviation, `minmax` to [0, 1] by the schema's range of a field, else by the fit data")
    noise_kind: str = _option("gaussian", NOISE_KINDS,
        "how numbers of the training input are corrupted; `mask` sets them to 0")
    noise: float = _option(1.0, number(0, 10),
        "strength of that: 1 is a deviation of 0.02 to 2 scales of a field; of `mask` the largest share, up to 1")
    swap: float = _option(0.2, number(0, 0.9),
        "largest share of a training row's values taken from another row; of numbers none in half of the rows, up to "
        "twice as many in the others")
    optimizer: str = _option("adamw", OPTIMIZERS, "the algorithm that minimises the loss")
    learning_rate: float = _option(2e-3, number(0, 1, above=True))
    weight_decay: float = _option(1e-4, number(0, 1), "pull of the weights towards zero")
    loss: str = _option("squared", LOSSES, "error of a column; `cross-entropy` needs a sigmoid output")
    reduction: str = _option("fields", REDUCTIONS,
        "how errors become one loss: `mean` over rows and columns, summed over the "
        "`fields` and averaged over rows, or the `sum` of all")
    epochs: int | None = _option(None, number(1, 1_000_000, int))
    steps: int | None = _option(3000, number(1, 10_000_000, int),
        "most optimizer steps; early stopping and the end of the epochs can be sooner")
    batch: int = _option(256, number(1, 1_000_000, int),
        "rows in a training step; of fewer rows, an epoch is one step with all of them")
    drop_last: bool = _option(False, FLAG, "leave out the incomplete batch at the end of an epoch")
    holdout: float = _option(0.2, number(0, 0.5))
    patience: int = _option(8, number(0, 10_000, int),
        "measurements (every 100 steps, or each epoch) without improvement that "
        "end the fit, with the best weights; 0 = never, with the last")
    compile: bool = _option(False, FLAG,
        "fit with `torch.compile`: worth its minute of start-up on long fits, needs a C++ compiler")
    score: str = "relative"
    scale_score: bool = _option(False, FLAG,
        "scale scores so that the training records' go from 0 to 1; what is beyond 1 stays")
    field_weights: tuple[tuple[str, float], ...] = _option((), WEIGHTS)
    rule: str = "rolling"
    rule_value: float | None = None
    seed: int = _option(0, number(0, 2**32 - 1, int))
    # fmt: on

    def __post_init__(self) -> None:
        for name in RANGES:
            value = getattr(self, name)
            if not allows(name, value):
                shown = list(value) if isinstance(value, tuple) else value
                raise SettingsError(f"{_path(name)} = {shown!r}: allowed is {RANGES[name]}")
        wrong = {}  # what can't go together, of the names that are known to be right by themselves
        if self.noise_kind == "mask" and self.noise > 1:
            wrong["noise"] = "with [model.options] noise_kind = mask allowed is 0 to 1"
        if self.output == "sigmoid" and self.preprocessing != "minmax":
            wrong["preprocessing"] = (
                "with [model.options] output = sigmoid, which answers from 0 to 1, allowed is minmax"
            )
        if LOSSES[self.loss].needs_sigmoid and self.output != "sigmoid":
            others = " or ".join(name for name in LOSSES if not LOSSES[name].needs_sigmoid)
            wrong["loss"] = f"needs [model.options] output = sigmoid; with a linear output allowed is {others}"
        if self.epochs is None and self.steps is None:
            wrong["steps"] = "either this or [model.epochs]"
        for name, reason in wrong.items():
            raise SettingsError(f"{_path(name)} = {getattr(self, name)!r}: {reason}")

    def architecture(self, columns: int) -> Architecture:
        """The network for so many input columns; SettingsError where the sizes do not fit them, or not into memory."""
        hidden, latent_at = LAYER_RULES[self.layers](self, columns)
        architecture = Architecture(
            hidden=hidden,
            activation=self.activation,
            latent_at=latent_at,
            latent_activation=self.latent_activation,
            output=self.output,
            batch_norm=self.batch_norm,
            dropout=self.dropout,
            variational=self.variational,
        )
        weights = architecture.weights(columns)  # some layers grow with the input, so its width counts as well
        if weights > MAX_WEIGHTS:
            raise SettingsError(
                f"[model.hidden] with [model.options] layers: {architecture.describe(columns)} has "
                f"{weights / 1e6:,.0f} million weights, allowed are {MAX_WEIGHTS / 1e6:,.0f} million: fewer units, or "
                "a smaller vocabulary (max_values in the schema)"
            )
        return architecture

    @property
    def is_denoising(self) -> bool:
        """Whether the network sees corrupted rows."""
        return self.noise > 0 or self.swap > 0


_FIELDS: Final[dict[str, Field[Any]]] = {option.name: option for option in fields(FitOptions)}
RANGES: Final[dict[str, Values]] = {
    name: option.metadata["allowed"] for name, option in _FIELDS.items() if option.metadata
}


def _path(name: str) -> str:
    return f"[model.{name}]" if name in SETTINGS else f"[model.options] {name}"


def allows(name: str, value: Any) -> bool:
    """Whether an option can have this value; None where that is an option's "not set"."""
    return value in RANGES[name] or (value is None and NoneType in get_args(_FIELDS[name].type))


def other_options() -> Iterator[tuple[str, Values, str]]:
    """The options of [model.options]: name, range, what it is. Settings of other rooms stand for the last three."""
    for name, option in _FIELDS.items():
        if name not in {*SETTINGS, "rule", "rule_value", "seed"}:
            yield name, RANGES[name], option.metadata["what"]


def listed(options: FitOptions, _: int) -> tuple[tuple[int, ...], int | None]:
    """The hidden layers as the setting lists them."""
    if options.latent is not None:
        raise SettingsError(
            f"[model.latent] = {options.latent}: not with [model.options] layers = 'listed', where the latent is the "
            "narrowest of [model.hidden]; allowed with mirrored, pyramid or halfway"
        )
    return options.hidden, None


def mirrored(options: FitOptions, columns: int) -> tuple[tuple[int, ...], int | None]:
    """The listed layers down to the latent, and back."""
    latent = () if options.latent is None else (_latent(options, columns),)
    encoder = (*options.hidden, *latent)
    if any(wide <= narrow for wide, narrow in pairwise(encoder)):
        raise SettingsError(
            f"[model.hidden] = {list(options.hidden)}{f' and [model.latent] = {options.latent}' if latent else ''}: "
            "with [model.options] layers = 'mirrored' each layer must be narrower than the one before it"
        )
    return _and_back(encoder)


def pyramid(options: FitOptions, columns: int) -> tuple[tuple[int, ...], int | None]:
    """Powers of two between the input and the latent: 2**arange(max(ceil(log2 latent), 2), log2 F), and back."""
    latent = _latent(options, columns)
    powers = tuple(int(2**power) for power in np.arange(max(np.ceil(np.log2(latent)), 2), np.log2(columns)))[::-1]
    if not powers and not options.keep_innermost:
        raise SettingsError(
            f"[model.options] keep_innermost = False: there is no power of two between the latent ({latent}) and the "
            f"{columns} input columns, so no layer would be left; allowed is True"
        )
    return _and_back((*powers, latent) if options.keep_innermost else powers)


def halfway(options: FitOptions, columns: int) -> tuple[tuple[int, ...], int | None]:
    """One layer of (F + latent) // 2 between the input and the latent, and back."""
    latent = _latent(options, columns)
    return _and_back(((columns + latent) // 2, latent))


for _rule in (listed, mirrored, pyramid, halfway):
    LAYER_RULES.register(_rule.__name__, _rule)


def _latent(options: FitOptions, columns: int) -> int:
    allowed = f"allowed is 1 to {columns - 1}"
    if options.latent is None:
        raise SettingsError(f"[model.options] layers = {options.layers!r}: needs [model.latent], {allowed}")
    if not 1 <= options.latent < columns:
        raise SettingsError(
            f"[model.latent] = {options.latent}: {allowed}, less than the {columns} input columns of these records"
        )
    return options.latent


def _and_back(encoder: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    return (*encoder, *encoder[-2::-1]), len(encoder) - 1
