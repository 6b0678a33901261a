"""The autoencoder over numbers and categories, which never holds a one-hot row in memory.

Notation: B rows, N numeric columns, C code columns, K one-hot columns (the sum of the C widths), H the last hidden
width.

A row is `numeric` float32 (B, N) and `codes` int (B, C). What the network sees is [numeric | one_hot(codes)]:
the one-hot product of the first layer is a sum of C embedding rows, and the squared error of a one-hot block with
output y and true category t is `y·y - 2 y[t] + 1`, where `y·y` is a quadratic form of the last hidden layer.
So neither pass depends on K. `dense` is the plain computation of the same numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
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
    """Hidden layer sizes from the input to the output, and the activation after each of them."""

    hidden: tuple[int, ...] = (128, 64, 128)
    activation: str = "relu"

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1:
            raise SettingsError(f"model.hidden = {list(self.hidden)}: at least one layer of 1 or more units")
        if self.activation not in ACTIVATIONS:
            raise SettingsError(f"model.activation = {self.activation!r}: one of {', '.join(ACTIVATIONS)}")


class Autoencoder(nn.Module):
    """`[numeric | one-hot]` to itself through the hidden layers; linear output, squared error.

    table: (K, H1), the first layer's weights of the one-hot columns; out_codes: (K, H), the last layer's.
    """

    offsets: Tensor

    def __init__(self, layout: Layout, architecture: Architecture) -> None:
        super().__init__()
        self.layout = layout
        self.architecture = architecture
        first, last = architecture.hidden[0], architecture.hidden[-1]
        one_hot = max(sum(layout.widths), 1)
        activation = ACTIVATIONS[architecture.activation]
        bound = layout.columns**-0.5  # as nn.Linear would over the whole [numeric | one-hot] row
        self.first = _linear(layout.numeric, first, bound)
        self.table = nn.Parameter(torch.empty(one_hot, first).uniform_(-bound, bound))
        layers: list[nn.Module] = [activation()]
        for wide, narrow in pairwise(architecture.hidden):
            layers += [nn.Linear(wide, narrow), activation()]
        self.hidden = nn.Sequential(*layers)
        self.out_numeric = _linear(last, layout.numeric, last**-0.5)
        self.out_codes = _linear(last, one_hot, last**-0.5)
        self.register_buffer("offsets", torch.tensor(layout.offsets, dtype=torch.long), persistent=False)

    def encode(self, numeric: Tensor, codes: Tensor) -> Tensor:
        """Last hidden layer, float32 (B, H)."""
        inner = self.first(numeric)
        if self.layout.widths:
            inner = inner + functional.embedding_bag(codes + self.offsets, self.table, mode="sum")  # (B, H1)
        hidden: Tensor = self.hidden(inner)
        return hidden

    def gram(self) -> tuple[Tensor, Tensor, Tensor]:
        """(G, g, k) with `sum over all one-hot columns of y² = h'Gh + g·h + k`: (H, H), (H,), scalar."""
        weight, bias = self.out_codes.weight, self.out_codes.bias
        return weight.T @ weight, 2 * (weight.T @ bias), bias @ bias

    def block_errors(self, hidden: Tensor, codes: Tensor, gram: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Squared error of all one-hot blocks together, (B,), without their K columns."""
        square, linear, constant = gram
        index = codes + self.offsets  # (B, C)
        # sum over the blocks of y[t]: the rows of the C true categories are added up before the product with h
        weights = functional.embedding_bag(index, self.out_codes.weight, mode="sum")  # (B, H)
        true = (weights * hidden).sum(1) + self.out_codes.bias[index].sum(1)
        squares = ((hidden @ square + linear) * hidden).sum(1) + constant
        errors: Tensor = squares - 2 * true + len(self.layout.widths)
        return errors

    def errors(self, numeric: Tensor, codes: Tensor, noisy: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Squared error of each row over its columns, float32 (B,). The network sees `noisy` instead, if given."""
        hidden = self.encode(*(noisy or (numeric, codes)))
        total: Tensor = (self.out_numeric(hidden) - numeric).square().sum(1)
        if self.layout.widths:
            total = total + self.block_errors(hidden, codes, self.gram())
        return total

    def dense(self, numeric: Tensor, codes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """By the one-hot rows themselves: expected numerics (B, N), squared errors of each column (B, N) and of each
        block (B, C), one-hot output (B, K)."""
        hidden = self.encode(numeric, codes)
        expected, output = self.out_numeric(hidden), self.out_codes(hidden)
        blocks = [
            (output[:, start : start + width] - functional.one_hot(codes[:, j].long(), width)).square().sum(1)
            for j, (start, width) in enumerate(zip(self.layout.offsets, self.layout.widths, strict=True))
        ]
        stacked = torch.stack(blocks, 1) if blocks else numeric.new_zeros((len(numeric), 0))
        return expected, (expected - numeric).square(), stacked, output


def _linear(inputs: int, outputs: int, bound: float) -> nn.Linear:
    """A linear layer with weights in ±bound. Unlike nn.Linear's own start it takes 0 inputs or outputs in silence."""
    layer = nn.Linear(1, 1)
    layer.in_features, layer.out_features = inputs, outputs
    layer.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
    layer.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))
    return layer


def architecture_from(values: dict[str, Any]) -> Architecture:
    """The architecture of a manifest."""
    hidden: Sequence[int] = values["hidden"]
    return Architecture(hidden=tuple(hidden), activation=values["activation"])
