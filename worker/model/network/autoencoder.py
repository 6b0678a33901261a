"""The autoencoder over numbers and categories, which never holds a one-hot row in memory where it need not.

Notation: B rows, N numeric columns, C latent columns, K one-hot columns (the sum of the C widths), L the width of the
latent, H the last hidden width.

A row is `numeric` float32 (B, N) and `category_ids` int (B, C). The network sees [numeric | one_hot(category_ids)]:
the one-hot product of the first layer is a sum of C embedding rows, and with a linear output the squared error of a
one-hot block with output y and true category t is `y·y - 2 y[t] + 1`, where `y·y` is a quadratic form of the last
hidden layer. So neither pass depends on K. `dense` is the plain computation of the same numbers, `residual` what a
sigmoid output or another error than the squared one needs.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.errors import SettingsError

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}
OUTPUTS = ("linear", "sigmoid")


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of a row: N numerics, and the width of each of the C one-hot blocks."""

    numeric: int
    widths: tuple[int, ...]

    @property
    def columns(self) -> int:
        """All input columns, N + K."""
        return self.numeric + sum(self.widths)

    @property
    def offsets(self) -> tuple[int, ...]:
        """First one-hot column of each block, within the K one-hot columns."""
        return tuple(accumulate(self.widths, initial=0))[:-1]


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network between its input and its output.

    hidden: sizes of all layers in between. activation: after each of them.
    latent_at: which of them is the latent; None = the narrowest. latent_activation: after it; None = as the others.
    batch_norm: between each hidden layer and its activation. dropout: the share dropped after each hidden layer while
    fitting; one number goes for all of them, of several each for one, and 0 for the rest.
    variational: the latent is drawn around a mean while fitting, and is the mean ever after.
    """

    hidden: tuple[int, ...] = (128, 64, 128)
    activation: str = "relu"
    latent_at: int | None = None
    latent_activation: str | None = None
    output: str = "linear"
    batch_norm: bool = False
    dropout: tuple[float, ...] = ()
    variational: bool = False

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1:
            raise SettingsError(f"WORKER_MODEL__HIDDEN = {list(self.hidden)}: at least one layer of 1 or more units")
        for name, value in (("ACTIVATION", self.activation), ("LATENT_ACTIVATION", self.latent_activation or "relu")):
            if value not in ACTIVATIONS:
                raise SettingsError(f"WORKER_MODEL__{name} = {value!r}: one of {', '.join(ACTIVATIONS)}")
        if self.output not in OUTPUTS:
            raise SettingsError(f"WORKER_MODEL__OUTPUT = {self.output!r}: one of {', '.join(OUTPUTS)}")
        if self.variational and self.latent_index == 0:
            raise SettingsError(
                "WORKER_MODEL__VARIATIONAL = True: needs at least one hidden layer before the latent "
                f"(WORKER_MODEL__HIDDEN), the layers are {list(self.hidden)}"
            )

    @property
    def latent_index(self) -> int:
        """The latent's place among the hidden layers."""
        return self.hidden.index(min(self.hidden)) if self.latent_at is None else self.latent_at

    @property
    def latent(self) -> int:
        """Width of the latent, L."""
        return self.hidden[self.latent_index]

    def dropped(self, place: int) -> float:
        """The share dropped after the hidden layer at `place`."""
        if len(self.dropout) == 1:
            return self.dropout[0]
        return self.dropout[place] if place < len(self.dropout) else 0.0

    def written(self, columns: int) -> str:
        """All layers in short, such as 41-64-32-64-41."""
        return "-".join(map(str, (columns, *self.hidden, columns)))


class Autoencoder(nn.Module):
    """`[numeric | one-hot]` to itself through the hidden layers.

    table: (K, H1), the first layer's weights of the one-hot columns; out_categories: (K, H), the last layer's.
    """

    offsets: Tensor

    def __init__(self, layout: Layout, architecture: Architecture) -> None:
        super().__init__()
        self.layout = layout
        self.architecture = architecture
        first, last = architecture.hidden[0], architecture.hidden[-1]
        one_hot = max(sum(layout.widths), 1)
        bound = layout.columns**-0.5  # as nn.Linear would over the whole [numeric | one-hot] row
        self.first = _linear(layout.numeric, first, bound)
        self.table = nn.Parameter(torch.empty(one_hot, first).uniform_(-bound, bound))
        layers, self._latent_end = _layers(architecture)
        self.hidden = nn.Sequential(*layers)
        self.out_numeric = _linear(last, layout.numeric, last**-0.5)
        self.out_categories = _linear(last, one_hot, last**-0.5)
        self.register_buffer("offsets", torch.tensor(layout.offsets, dtype=torch.long), persistent=False)

    @property
    def linear(self) -> bool:
        """Whether the output is linear, so that squared errors need no one-hot column."""
        return self.architecture.output == "linear"

    def _first_layer(self, numeric: Tensor, category_ids: Tensor) -> Tensor:
        inner: Tensor = self.first(numeric)
        if self.layout.widths:
            inner = inner + functional.embedding_bag(category_ids + self.offsets, self.table, mode="sum")  # (B, H1)
        return inner

    def _to_latent(self, numeric: Tensor, category_ids: Tensor) -> Tensor:
        found = self._first_layer(numeric, category_ids)
        for layer in list(self.hidden)[: self._latent_end]:
            found = layer(found)
        return found

    def heads(self, numeric: Tensor, category_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of a variational latent, both float32 (B, L)."""
        mean, log_variance = self._to_latent(numeric, category_ids).chunk(2, dim=1)
        return mean, log_variance

    def latent(self, numeric: Tensor, category_ids: Tensor) -> Tensor:
        """The latent, float32 (B, L); of a variational one its mean."""
        return (
            self.heads(numeric, category_ids)[0]
            if self.architecture.variational
            else self._to_latent(numeric, category_ids)
        )

    def decode(self, latent: Tensor) -> Tensor:
        """Last hidden layer (B, H) from a latent (B, L)."""
        for layer in list(self.hidden)[self._latent_end :]:
            latent = layer(latent)
        return latent

    def encode(self, numeric: Tensor, category_ids: Tensor) -> Tensor:
        """Last hidden layer, float32 (B, H)."""
        if self.architecture.variational:
            return self.decode(self.latent(numeric, category_ids))
        hidden: Tensor = self.hidden(self._first_layer(numeric, category_ids))
        return hidden

    def outputs(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """What the network answers from the last hidden layer: numerics (B, N) and one-hot columns (B, K)."""
        numeric, category_ids = self.out_numeric(hidden), self.out_categories(hidden)[:, : sum(self.layout.widths)]
        return (numeric, category_ids) if self.linear else (numeric.sigmoid(), category_ids.sigmoid())

    def gram(self) -> tuple[Tensor, Tensor, Tensor]:
        """(G, g, k) with `sum over all one-hot columns of y² = h'Gh + g·h + k`: (H, H), (H,), scalar."""
        weight, bias = self.out_categories.weight, self.out_categories.bias
        return weight.T @ weight, 2 * (weight.T @ bias), bias @ bias

    def block_errors(self, hidden: Tensor, category_ids: Tensor, gram: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Squared error of all one-hot blocks together, (B,), without their K columns; the output must be linear."""
        square, linear, constant = gram
        index = category_ids + self.offsets  # (B, C)
        # sum over the blocks of y[t]: the rows of the C true categories are added up before the product with h
        weights = functional.embedding_bag(index, self.out_categories.weight, mode="sum")  # (B, H)
        true = (weights * hidden).sum(1) + self.out_categories.bias[index].sum(1)
        squares = ((hidden @ square + linear) * hidden).sum(1) + constant
        errors: Tensor = squares - 2 * true + len(self.layout.widths)
        return errors

    def residual(self, hidden: Tensor, numeric: Tensor, category_ids: Tensor) -> Tensor:
        """Answer minus truth in every column, float32 (B, N + K), from the last hidden layer (B, H)."""
        expected, output = self.outputs(hidden)
        if self.layout.widths:
            index = category_ids + self.offsets
            output = output.scatter_add(1, index, -torch.ones_like(index, dtype=output.dtype))
        return torch.cat([expected - numeric, output], 1)

    def errors_of(self, hidden: Tensor, numeric: Tensor, category_ids: Tensor) -> Tensor:
        """Squared error of each row over its columns, float32 (B,), from the last hidden layer (B, H)."""
        if not self.linear:
            return self.residual(hidden, numeric, category_ids).square().sum(1)
        total: Tensor = (self.out_numeric(hidden) - numeric).square().sum(1)
        if self.layout.widths:
            total = total + self.block_errors(hidden, category_ids, self.gram())
        return total

    def errors(self, numeric: Tensor, category_ids: Tensor, noisy: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Squared error of each row over its columns, float32 (B,). The network sees `noisy` instead, if given."""
        return self.errors_of(self.encode(*(noisy or (numeric, category_ids))), numeric, category_ids)

    def dense(self, numeric: Tensor, category_ids: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """By the one-hot rows themselves: expected numerics (B, N), squared errors of each column (B, N) and of each
        block (B, C), one-hot output (B, K)."""
        expected, output = self.outputs(self.encode(numeric, category_ids))
        blocks = [
            (output[:, start : start + width] - functional.one_hot(category_ids[:, j].long(), width)).square().sum(1)
            for j, (start, width) in enumerate(zip(self.layout.offsets, self.layout.widths, strict=True))
        ]
        stacked = torch.stack(blocks, 1) if blocks else numeric.new_zeros((len(numeric), 0))
        return expected, (expected - numeric).square(), stacked, output


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Divergence (B,) of the latents' distribution from the standard normal (Kingma & Welling 2014, appendix B)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


def _layers(architecture: Architecture) -> tuple[list[nn.Module], int]:
    """All that lies between the first linear layer and the output, and how many of them end with the latent."""
    layers: list[nn.Module] = []
    latent_end = 0
    for place, size in enumerate(architecture.hidden):
        is_latent = place == architecture.latent_index
        is_drawn = is_latent and architecture.variational
        if place:
            layers.append(nn.Linear(architecture.hidden[place - 1], 2 * size if is_drawn else size))
        if not is_drawn:
            layers += _after(architecture, place, is_latent=is_latent)
        if is_latent:
            latent_end = len(layers)
    return layers, latent_end


def _after(architecture: Architecture, place: int, *, is_latent: bool) -> list[nn.Module]:
    """What follows a hidden layer, in PyOD's order: batch norm, activation, dropout."""
    name = (architecture.latent_activation if is_latent else None) or architecture.activation
    layers: list[nn.Module] = [nn.BatchNorm1d(architecture.hidden[place])] if architecture.batch_norm else []
    layers.append(ACTIVATIONS[name]())
    if architecture.dropped(place) > 0:
        layers.append(nn.Dropout(architecture.dropped(place)))
    return layers


def _linear(inputs: int, outputs: int, bound: float) -> nn.Linear:
    """A linear layer with weights in ±bound. Unlike nn.Linear's own start it takes 0 inputs or outputs in silence."""
    layer = nn.Linear(1, 1)
    layer.in_features, layer.out_features = inputs, outputs
    layer.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
    layer.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))
    return layer


def architecture_from(values: dict[str, Any]) -> Architecture:
    """The architecture of a manifest; what it leaves out has its default."""
    plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return Architecture(**plain)
