"""The losses of a fit: the error of each row, summed over its columns, and the reduction of a batch to one number."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from worker.model.network.autoencoder import Autoencoder, kl_divergence
from worker.model.network.corruption import Rows
from worker.registry import Registry


class Loss(NamedTuple):
    """The error that a fit minimises.

    of_rows        (network, last hidden layer (B, H), rows) to the loss of each row, summed over its columns, (B,)
    needs_sigmoid  whether it is defined for an output from 0 to 1 alone
    """

    of_rows: Callable[[Autoencoder, Tensor, Rows], Tensor]
    needs_sigmoid: bool = False


def squared(network: Autoencoder, hidden: Tensor, rows: Rows) -> Tensor:
    """Squared errors, of a linear output without a one-hot column."""
    return network.squared_errors(hidden, rows.numeric, rows.category_ids)


def absolute(network: Autoencoder, hidden: Tensor, rows: Rows) -> Tensor:
    """Absolute errors."""
    return network.residual(hidden, rows.numeric, rows.category_ids).abs().sum(1)


def cross_entropy(network: Autoencoder, hidden: Tensor, rows: Rows) -> Tensor:
    """`log(1 + exp(l)) - x l`, with l the output before its sigmoid and x in [0, 1].

    Of a one-hot block x is 1 at the true category alone, so the second term needs no one-hot row.
    """
    numeric = network.out_numeric(hidden)  # (B, N)
    total: Tensor = (functional.softplus(numeric) - rows.numeric * numeric).sum(1)
    if network.layout.widths:
        output = network.out_categories(hidden)  # (B, K)
        true = output.gather(1, rows.category_ids + network.offsets).sum(1)
        total = total + functional.softplus(output).sum(1) - true
    return total


LOSSES: Registry[Loss] = Registry("loss")
LOSSES.register("squared", Loss(squared))
LOSSES.register("absolute", Loss(absolute))
LOSSES.register("cross-entropy", Loss(cross_entropy, needs_sigmoid=True))

Reduction = Callable[[Tensor, int], Tensor]
"""(losses of rows (B,), number of columns) to one number."""

REDUCTIONS: Registry[Reduction] = Registry("reduction")
REDUCTIONS.register("mean", lambda losses, columns: losses.mean().div(columns))
REDUCTIONS.register("fields", lambda losses, _: losses.mean())
REDUCTIONS.register("sum", lambda losses, _: losses.sum())


def training_loss(
    network: Autoencoder,
    rows: Rows,
    noisy: tuple[Tensor, Tensor] | None = None,
    *,
    loss: str,
    reduction: str,
    beta: float = 1.0,
    draw: Tensor | None = None,
) -> Tensor:
    """The loss of a batch, a scalar.

    Of a variational network the error from a drawn latent, plus the divergence (Kingma & Welling 2014).

        rows       what the network should answer
        noisy      what it sees: numbers (B, N) and category ids (B, C); None = the rows
        loss       a name in LOSSES; reduction: one in REDUCTIONS
        beta       weight of the divergence
        draw       standard normal (B, L); None = drawn here
    """
    seen = noisy or (rows.numeric, rows.category_ids)
    of_rows, reduce = LOSSES[loss].of_rows, REDUCTIONS[reduction]
    if not network.architecture.variational:
        return reduce(of_rows(network, network.encode(*seen), rows), network.layout.columns)
    mean, log_variance = network.latent_distribution(*seen)
    noise = torch.randn_like(mean) if draw is None else draw
    hidden = network.decode(mean + (0.5 * log_variance).exp() * noise)
    losses = of_rows(network, hidden, rows) + beta * kl_divergence(mean, log_variance)
    return reduce(losses, network.layout.columns)
