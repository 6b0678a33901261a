"""Everything that a fit takes, as plain values with their ranges: the building blocks that presets are made of."""

from collections.abc import Callable, Iterator
from dataclasses import Field, dataclass, field, fields
from types import NoneType
from typing import Any, Final, Protocol, get_args

import torch

from worker.errors import SettingsError
from worker.features.learned import PREPROCESSING
from worker.model.network.autoencoder import ACTIVATIONS, OUTPUTS, Architecture
from worker.model.network.corruption import NOISE_KINDS
from worker.model.network.loss import LOSSES, REDUCTIONS
from worker.model.network.sizes import LAYER_RULES, Sizes, require_small
from worker.registry import Registry
from worker.thresholds.factory import ThresholdRule

OPTIMIZERS: Registry[Callable[..., torch.optim.Optimizer]] = Registry("optimizer")
OPTIMIZERS.register("adamw", torch.optim.AdamW)
OPTIMIZERS.register("adam", torch.optim.Adam)
OPTIMIZERS.register("sgd", torch.optim.SGD)

SETTINGS: Final = ("preset", "hidden", "latent", "score", "field_weights", "epochs", "learning_rate", "holdout")
"""Options that are settings of their own, for they are what people set; all others stand in [model.options]."""
ELSEWHERE: Final = ("rule", "rule_value", "seed")
"""Options that settings of other rooms stand for."""


class Values(Protocol):
    """The allowed values of an option, such as a registry; their text is what an error says after "allowed is"."""

    def __contains__(self, value: Any) -> bool:
        """Whether a value is one of them."""


@dataclass(frozen=True, slots=True)
class Range:
    """Allowed values by a rule. many: each of them is a tuple of numbers."""

    text: str
    holds: Callable[[Any], bool]
    many: bool = False

    def __contains__(self, value: Any) -> bool:
        return self.holds(value)

    def __str__(self) -> str:
        return self.text


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

    preset: str = "denoising"
    layers: str = _option(
        "listed", LAYER_RULES, "where the layer sizes come from: all of them `listed` in HIDDEN; HIDDEN down "
        "to the latent and `mirrored`; a `pyramid` of powers of two; one layer `halfway` between input and latent",
    )  # fmt: skip
    hidden: tuple[int, ...] = _option((128, 64, 128), LAYERS)
    latent: int | None = _option(None, UNITS)
    keep_innermost: bool = _option(
        True, FLAG, "of a pyramid: whether the latent itself is a layer; `false` stops at the smallest power of two"
    )
    activation: str = _option("relu", ACTIVATIONS, "after each hidden layer")
    latent_activation: str | None = _option(
        None, ACTIVATIONS, "after the latent; not set and not in the preset: as after the others"
    )
    output: str = _option("linear", OUTPUTS, "`sigmoid` answers from 0 to 1, needs `minmax` preprocessing")
    batch_norm: bool = _option(False, FLAG, "batch normalisation in each hidden layer")
    dropout: tuple[float, ...] = _option(
        (), SHARES,
        "share dropped while fitting: one number for all hidden layers, or several, each for one",
    )  # fmt: skip
    variational: bool = _option(False, FLAG, "draw the latent around a mean while fitting; scores come from the mean")
    beta: float = _option(1.0, number(0, 1_000), "weight of the divergence in a variational loss")
    preprocessing: str = _option(
        "robust", SCALINGS, "scale of numbers: `robust` by median and spread, "
        "`standard` by mean and deviation, `minmax` to [0, 1] by the schema's range of a field, else by the fit data",
    )  # fmt: skip
    noise_kind: str = _option(
        "gaussian", NOISE_KINDS, "how numbers of the training input are corrupted; `mask` sets them to 0"
    )
    noise: float = _option(
        1.0, number(0, 10), "strength of that, in scales of each field; of `mask` the largest share, up to 1"
    )
    swap: float = _option(0.2, number(0, 0.9), "largest share of a training row's values taken from another row")
    optimizer: str = _option("adamw", OPTIMIZERS, "the algorithm that minimises the loss")
    learning_rate: float = _option(2e-3, number(0, 1, above=True))
    weight_decay: float = _option(1e-4, number(0, 1), "pull of the weights towards zero")
    loss: str = _option("squared", LOSSES, "error of a column; `cross-entropy` needs a sigmoid output")
    reduction: str = _option(
        "fields", REDUCTIONS, "how errors become one loss: `mean` over rows and columns, summed over the "
        "`fields` and averaged over rows, or the `sum` of all",
    )  # fmt: skip
    epochs: int | None = _option(None, number(1, 1_000_000, int))
    steps: int | None = _option(
        3000, number(1, 10_000_000, int),
        "most optimizer steps; early stopping and the end of the epochs can be sooner",
    )  # fmt: skip
    batch: int = _option(
        256, number(1, 1_000_000, int),
        "rows in a training step; of fewer rows, an epoch is one step with all of them",
    )  # fmt: skip
    drop_last: bool = _option(False, FLAG, "leave out the incomplete batch at the end of an epoch")
    holdout: float = _option(0.2, number(0, 0.5))
    patience: int = _option(
        8, number(0, 10_000, int), "measurements (every 100 steps, or each epoch) without improvement that "
        "end the fit, with the best weights; 0 = never, with the last",
    )  # fmt: skip
    compile: bool = _option(
        False, FLAG, "fit with `torch.compile`: worth its minute of start-up on long fits, needs a C++ compiler"
    )
    score: str = "mse"
    scale_score: bool = _option(
        False, FLAG, "scale scores so that the training records' go from 0 to 1; what is beyond 1 stays"
    )
    field_weights: tuple[tuple[str, float], ...] = _option((), WEIGHTS)
    rule: str = "rolling"
    rule_value: float | None = None
    seed: int = _option(0, number(0, 2**32 - 1, int))

    def __post_init__(self) -> None:
        for name in RANGES:
            value = getattr(self, name)
            if not allows(name, value):
                shown = list(value) if isinstance(value, tuple) else value
                raise SettingsError(f"{setting(name)} = {shown!r}: allowed is {RANGES[name]}")
        masks = self.noise_kind == "mask" and self.noise > 1
        self._refuse(masks, "noise", "with [model.options] noise_kind = mask allowed is 0 to 1")
        self._refuse(
            self.output == "sigmoid" and self.preprocessing != "minmax",
            "preprocessing",
            "with [model.options] output = sigmoid, which answers from 0 to 1, allowed is minmax",
        )
        others = [name for name in LOSSES if not LOSSES[name].needs_sigmoid]
        self._refuse(
            LOSSES[self.loss].needs_sigmoid and self.output != "sigmoid",
            "loss",
            f"needs [model.options] output = sigmoid; with a linear output allowed is {' or '.join(others)}",
        )
        self._refuse(self.epochs is None and self.steps is None, "steps", "either this or [model.epochs]")

    def _refuse(self, wrong: bool, name: str, allowed: str) -> None:
        if wrong:
            raise SettingsError(f"{setting(name)} = {getattr(self, name)!r}: {allowed}")

    def architecture(self, columns: int) -> Architecture:
        """The network for so many input columns; SettingsError where the sizes do not fit them."""
        hidden, latent_at = LAYER_RULES[self.layers](Sizes(columns, self.hidden, self.latent, self.keep_innermost))
        require_small(columns, hidden)
        return Architecture(
            hidden=hidden,
            activation=self.activation,
            latent_at=latent_at,
            latent_activation=self.latent_activation,
            output=self.output,
            batch_norm=self.batch_norm,
            dropout=self.dropout,
            variational=self.variational,
        )

    @property
    def threshold_rule(self) -> ThresholdRule:
        """The threshold that the model brings along."""
        return ThresholdRule(self.rule, self.rule_value)

    @property
    def is_denoising(self) -> bool:
        """Whether the network sees corrupted rows."""
        return self.noise > 0 or self.swap > 0


_FIELDS: Final[dict[str, Field[Any]]] = {option.name: option for option in fields(FitOptions)}
RANGES: Final[dict[str, Values]] = {
    name: option.metadata["allowed"] for name, option in _FIELDS.items() if option.metadata
}


def setting(name: str) -> str:
    """An option as errors name it: the setting's path, or its name in [model.options]."""
    return f"[model.{name}]" if name in SETTINGS else f"[model.options] {name}"


def allows(name: str, value: Any) -> bool:
    """Whether an option can have this value; None where that is an option's "not set"."""
    return value in RANGES[name] or (value is None and NoneType in get_args(_FIELDS[name].type))


def other_options() -> Iterator[tuple[str, Values, str]]:
    """The options of [model.options]: name, range, what it is."""
    for name, option in _FIELDS.items():
        if name not in {*SETTINGS, *ELSEWHERE}:
            yield name, RANGES[name], option.metadata["what"]
