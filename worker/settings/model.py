"""Settings of the model: a preset, what people set most of its values, and one option for all others."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from worker.settings.base import Allowed, Group, empty_is_none, parse_list, parse_object
from worker.texts import nearest


def _numbers(value: Any) -> Any:
    """A single number is a list of one; empty = not set."""
    value = empty_is_none(value)
    return [value] if isinstance(value, int | float) else parse_list(value)


def _fits(name: str) -> AfterValidator:
    """The range that the model's room has for an option."""

    def read() -> Any:
        from worker.model.presets import RANGES

        return RANGES[name]

    return AfterValidator(Allowed(read))


def _weights(value: Any) -> Any:
    """A JSON object as pairs; empty = not set. ValueError where it is none."""
    value = empty_is_none(value)
    return value if value is None else tuple(parse_object(value, '{"amount": 2}').items())


def _options(value: Any) -> dict[str, Any]:
    """The other options from JSON. ValueError, with the nearest name or the range, where one can't be."""
    from worker.model.network.options import SETTINGS, Range, allows, other_options

    ranges = {name: allowed for name, allowed, _ in other_options()}
    options = {}
    for name, item in parse_object(value, '{"dropout": [0.2], "optimizer": "sgd"}').items():
        if name in SETTINGS:
            raise ValueError(f"{name} has a setting of its own, WORKER_MODEL__{name.upper()}")
        if name not in ranges:
            raise ValueError(f"unknown option {name!r}: the nearest is {nearest(name, ranges, min_likeness=0.0)!r}")
        allowed = ranges[name]
        one_of_many = isinstance(allowed, Range) and allowed.many and not isinstance(item, list)
        options[name] = (item,) if one_of_many else tuple(item) if isinstance(item, list) else item
        if not allows(name, options[name]):
            raise ValueError(f"{name} = {item!r}: allowed is {ranges[name]}")
    return options


class ModelSettings(Group):
    """What the fit takes. What is not set has the preset's value; `worker models presets` prints them."""

    preset: Annotated[str, _fits("preset")] = Field(
        default="denoising",
        description="architecture and training recipe; what is not set below has the preset's value "
        "(`worker models presets`)",
    )
    hidden: Annotated[tuple[int, ...] | None, BeforeValidator(_numbers), _fits("hidden")] = Field(
        default=None, description="units of each hidden layer: `64,32`"
    )
    latent: Annotated[int | None, _fits("latent")] = Field(
        default=None,
        description="units of the latent, less than the input columns; not with the layers `listed`",
    )
    score: Annotated[str | None, _fits("score")] = Field(
        default=None,
        description="error of a record: mean over its fields (squared, its root, absolute), or over its columns the "
        "absolute sum, the distance, the largest; `kl` of a variational latent",
    )
    field_weights: Annotated[
        tuple[tuple[str, float], ...] | None, BeforeValidator(_weights), _fits("field_weights")
    ] = Field(
        default=None, description='factor on the error of a field in the score: `{"amount": 2}`; 1 for the others'
    )
    epochs: Annotated[int | None, _fits("epochs")] = Field(
        default=None, description="passes over all rows; without, batches are drawn at random, as many as `steps`"
    )
    learning_rate: Annotated[float | None, _fits("learning_rate")] = Field(
        default=None, description="step size of the optimizer"
    )
    holdout: Annotated[float | None, _fits("holdout")] = Field(
        default=None,
        description="share of the rows kept out of the fit, to measure and calibrate on; 0 = on the fitted ones",
    )
    options: Annotated[dict[str, Any], BeforeValidator(_options)] = Field(
        default={},
        description='all other values of a preset: `{"dropout": [0.2], "optimizer": "sgd"}`; the next table has them',
        json_schema_extra={"allowed": "JSON object"},
    )
