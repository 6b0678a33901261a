"""Settings of the model: a preset, and one setting for each of its values."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

from worker.settings.group import Group, empty_is_none
from worker.settings.options import parse_list, parse_weights

Activation = Literal["relu", "tanh", "silu", "gelu", "elu", "sigmoid", "identity"]
Units = Annotated[tuple[Annotated[int, Field(ge=1, le=65_536)], ...], Field(min_length=1, max_length=32)]
Shares = Annotated[tuple[Annotated[float, Field(ge=0, lt=1)], ...], Field(max_length=63)]
Weights = dict[str, Annotated[float, Field(ge=0, le=1_000_000)]]


def _numbers(value: Any) -> Any:
    """A single number is a list of one; empty = not set."""
    value = empty_is_none(value)
    return [value] if isinstance(value, int | float) else parse_list(value)


class ModelSettings(Group):
    """What the fit takes. What is not set has the preset's value; `worker models presets` prints them."""

    preset: Literal[
        "denoising", "pyod", "pyramid", "digits", "halfway", "halfway-single", "deep", "deep-small", "vae"
    ] = Field(
        default="denoising",
        description="architecture and training recipe; each setting below that is not set has the preset's value "
        "(`worker models presets`)",
    )
    layers: Literal["listed", "mirrored", "pyramid", "halfway"] | None = Field(
        default=None,
        description="where the layer sizes come from: all of them `listed` in HIDDEN; HIDDEN down to the latent and "
        "`mirrored`; a `pyramid` of powers of two; one layer `halfway` between input and latent",
    )
    hidden: Annotated[Units | None, NoDecode, BeforeValidator(_numbers)] = Field(
        default=None,
        description="units of each hidden layer",
        json_schema_extra={"allowed": "1 to 32 numbers separated by commas, each 1 to 65536"},
    )
    latent: int | None = Field(
        default=None, ge=1, le=65_536, description="units of the latent, less than the input columns; not with `listed`"
    )
    keep_innermost: bool | None = Field(
        default=None,
        description="of a pyramid: whether the latent itself is a layer; `false` stops at the smallest power of two",
    )
    activation: Activation | None = Field(default=None, description="after each hidden layer")
    latent_activation: Activation | None = Field(
        default=None, description="after the latent; not set and not in the preset: as after the others"
    )
    output: Literal["linear", "sigmoid"] | None = Field(
        default=None, description="`sigmoid` answers from 0 to 1 and needs `minmax` preprocessing"
    )
    batch_norm: bool | None = Field(
        default=None,
        description="batch normalisation in each hidden layer",
    )
    dropout: Annotated[Shares | None, NoDecode, BeforeValidator(_numbers)] = Field(
        default=None,
        description="share dropped while fitting: one number for all hidden layers, or several, each for one",
        json_schema_extra={"allowed": "up to 63 numbers separated by commas, each from 0 and below 1"},
    )
    variational: bool | None = Field(
        default=None,
        description="draw the latent around a mean while fitting; scores come from the mean",
    )
    beta: float | None = Field(
        default=None, ge=0, le=1_000, description="weight of the divergence in a variational loss"
    )
    preprocessing: Literal["robust", "standard", "minmax"] | None = Field(
        default=None,
        description="scale of numbers: `robust` by median and spread, `standard` by mean and deviation, `minmax` to "
        "[0, 1] by the schema's range of a field, else by the fit data",
    )
    noise_kind: Literal["gaussian", "uniform", "mask"] | None = Field(
        default=None, description="how numbers of the training input are corrupted; `mask` sets them to 0"
    )
    noise: float | None = Field(
        default=None,
        ge=0,
        le=10,
        description="strength of that, in scales of each field; of `mask` the largest share, up to 1",
    )
    swap: float | None = Field(
        default=None, ge=0, le=0.9, description="largest share of a training row's values taken from another row"
    )
    optimizer: Literal["adamw", "adam", "sgd"] | None = Field(default=None, description="what makes the loss small")
    learning_rate: float | None = Field(default=None, gt=0, le=1, description="step size of the optimizer")
    weight_decay: float | None = Field(default=None, ge=0, le=1, description="pull of the weights towards zero")
    loss: Literal["squared", "absolute", "cross-entropy"] | None = Field(
        default=None, description="error of a column; `cross-entropy` needs a sigmoid output"
    )
    reduction: Literal["mean", "fields", "sum"] | None = Field(
        default=None,
        description="how errors become one loss: `mean` over rows and columns, summed over the `fields` and averaged "
        "over rows, or the `sum` of all",
    )
    epochs: int | None = Field(
        default=None, ge=1, le=1_000_000, description="passes over all rows; without, STEPS batches are drawn at random"
    )
    steps: int | None = Field(
        default=None,
        ge=1,
        le=10_000_000,
        description="most optimizer steps; early stopping and the end of the epochs can be sooner",
    )
    batch: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="rows in a training step; of fewer rows, an epoch is one step with all of them",
    )
    drop_last: bool | None = Field(
        default=None,
        description="leave out the incomplete batch at the end of an epoch",
    )
    holdout: float | None = Field(
        default=None,
        ge=0,
        le=0.5,
        description="share of the rows kept out of the fit, to measure and calibrate on; 0 = on the fitted ones",
    )
    patience: int | None = Field(
        default=None,
        ge=0,
        le=10_000,
        description="measurements (every 100 steps, or each epoch) without improvement that end the fit, with the best "
        "weights; 0 = never, with the last",
    )
    compile: bool | None = Field(
        default=None,
        description="fit with `torch.compile`: worth its minute of start-up on long fits, needs a C++ compiler",
    )
    score: Literal["mse", "rmse", "mae", "sum-l1", "euclidean", "max", "kl"] | None = Field(
        default=None,
        description="error of a record: mean over its fields (squared, its root, absolute), or over its columns the "
        "absolute sum, the distance, the largest; `kl` of a variational latent",
    )
    scale_score: bool | None = Field(
        default=None,
        description="scale scores so that the training records' go from 0 to 1; what is beyond 1 stays",
    )
    field_weights: Annotated[Weights | None, NoDecode, BeforeValidator(parse_weights)] = Field(
        default=None,
        description='factor on the error of a field in the score: `{"amount": 2}`; 1 for the others',
        json_schema_extra={"allowed": "JSON object of numbers from 0 to 1000000"},
    )
