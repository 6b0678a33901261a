"""Everything that a fit takes, as plain values: the building blocks that presets are made of."""

from dataclasses import dataclass

from worker.errors import SettingsError
from worker.model.network.autoencoder import Architecture
from worker.model.network.sizes import hidden_layers, require_small
from worker.thresholds.factory import ThresholdRule

NOISE_KINDS = ("gaussian", "uniform", "mask")
OPTIMIZERS = ("adamw", "adam", "sgd")
LOSSES = ("squared", "absolute", "cross-entropy")
REDUCTIONS = ("mean", "fields", "sum")


@dataclass(frozen=True, slots=True)
class FitOptions:
    """What to fit, and how. The defaults are the preset `denoising`. `WORKER_MODEL__…` settings have the same names.

    layers, hidden, latent, keep_innermost: sizes, see worker.model.network.sizes. The next six: see Architecture.
    beta: weight of a variational latent's divergence in the loss.
    preprocessing: see worker.features.scaling.
    noise: strength of the corruption of numbers, in scales of a column; of `mask` the share that is set to 0.
    swap: the largest share of a row's values taken from another row.
    loss: `squared`, `absolute` or `cross-entropy`, summed over the columns of a row. reduction: `fields` averages that
    over the rows of a batch, `mean` over rows and columns, `sum` over neither.
    epochs: passes over shuffled rows; None = `steps` batches drawn at random. steps: most optimizer steps in any case.
    drop_last: leave out the incomplete batch at the end of an epoch.
    holdout: share of the rows kept out of the fit; 0 = measured and calibrated on the rows that were fitted.
    patience: measurements without improvement that end the fit; the best weights are kept. 0 = never, the last are.
    score, field_weights: see worker.model.scoring.score. scale_score: the range of the training scores becomes [0, 1].
    rule, rule_value: the threshold that a model brings along, see worker.thresholds.factory.
    """

    preset: str = "denoising"
    layers: str = "listed"
    hidden: tuple[int, ...] = (128, 64, 128)
    latent: int | None = None
    keep_innermost: bool = True
    activation: str = "relu"
    latent_activation: str | None = None
    output: str = "linear"
    batch_norm: bool = False
    dropout: tuple[float, ...] = ()
    variational: bool = False
    beta: float = 1.0
    preprocessing: str = "robust"
    noise_kind: str = "gaussian"
    noise: float = 1.0
    swap: float = 0.2
    optimizer: str = "adamw"
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    loss: str = "squared"
    reduction: str = "fields"
    epochs: int | None = None
    steps: int | None = 3000
    batch: int = 256
    drop_last: bool = False
    holdout: float = 0.2
    patience: int = 8
    compile: bool = False
    score: str = "mse"
    scale_score: bool = False
    field_weights: tuple[tuple[str, float], ...] = ()
    rule: str = "rolling"
    rule_value: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (("noise", 0.0, 10.0), ("swap", 0.0, 0.9), ("holdout", 0.0, 0.5)):
            self._require(low <= getattr(self, name) <= high, name, f"allowed is {low:g} to {high:g}")
        small = self.noise_kind != "mask" or self.noise <= 1
        self._require(small, "noise", "with WORKER_MODEL__NOISE_KIND = mask allowed is 0 to 1")
        self._require(
            self.output != "sigmoid" or self.preprocessing == "minmax",
            "preprocessing",
            "with WORKER_MODEL__OUTPUT = sigmoid, which answers from 0 to 1, allowed is minmax",
        )
        self._require(
            self.loss != "cross-entropy" or self.output == "sigmoid",
            "loss",
            "needs WORKER_MODEL__OUTPUT = sigmoid; with a linear output allowed is squared or absolute",
        )
        self._require(self.score != "kl" or self.variational, "score", "needs WORKER_MODEL__VARIATIONAL = true")
        self._require(self.epochs is not None or self.steps is not None, "steps", "either this or WORKER_MODEL__EPOCHS")

    def _require(self, right: bool, name: str, wanted: str) -> None:
        if not right:
            raise SettingsError(f"WORKER_MODEL__{name.upper()} = {getattr(self, name)!r}: {wanted}")

    def architecture(self, columns: int) -> Architecture:
        """The network for so many input columns; SettingsError where the sizes do not fit them."""
        hidden, latent_at = hidden_layers(
            self.layers, columns, self.hidden, self.latent, keep_innermost=self.keep_innermost
        )
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
