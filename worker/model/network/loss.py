"""What a fit makes small, with its reduction said aloud: see `loss` and `reduction` of FitOptions."""

import torch
from torch import Tensor
from torch.nn import functional

from worker.model.network.autoencoder import Autoencoder, kl_divergence
from worker.model.network.corruption import Rows
from worker.model.network.options import FitOptions


def training_loss(
    network: Autoencoder,
    rows: Rows,
    options: FitOptions,
    noisy: tuple[Tensor, Tensor] | None = None,
    draw: Tensor | None = None,
) -> Tensor:
    """The loss of a batch, a scalar. The network sees `noisy` instead of the rows, if given.

    Of a variational network the error from a drawn code, plus beta times the divergence (Kingma & Welling 2014);
    draw: standard normal (B, L), drawn here where None.
    """
    seen = noisy or (rows.numeric, rows.category_ids)
    if not network.architecture.variational:
        return _reduced(row_losses(network, network.encode(*seen), rows, options.loss), network, options.reduction)
    mean, log_variance = network.heads(*seen)
    noise = torch.randn_like(mean) if draw is None else draw
    hidden = network.decode(mean + (0.5 * log_variance).exp() * noise)
    losses = row_losses(network, hidden, rows, options.loss) + options.beta * kl_divergence(mean, log_variance)
    return _reduced(losses, network, options.reduction)


def row_losses(network: Autoencoder, hidden: Tensor, rows: Rows, kind: str) -> Tensor:
    """Loss of each row, summed over its columns, (B,), from the last hidden layer (B, H)."""
    if kind == "squared":
        return network.errors_of(hidden, rows.numeric, rows.category_ids)
    if kind == "absolute":
        return network.residual(hidden, rows.numeric, rows.category_ids).abs().sum(1)
    return _cross_entropy(network, hidden, rows)


def _cross_entropy(network: Autoencoder, hidden: Tensor, rows: Rows) -> Tensor:
    """Sum over the columns of `log(1 + exp(l)) - x l`, with l the output before its sigmoid and x in [0, 1].

    Of a one-hot block x is 1 at the true category alone, so the second term needs no one-hot row.
    """
    numeric = network.out_numeric(hidden)  # (B, N)
    total: Tensor = (functional.softplus(numeric) - rows.numeric * numeric).sum(1)
    if network.layout.widths:
        output = network.out_categories(hidden)  # (B, K)
        total = (
            total + functional.softplus(output).sum(1) - output.gather(1, rows.category_ids + network.offsets).sum(1)
        )
    return total


def _reduced(losses: Tensor, network: Autoencoder, reduction: str) -> Tensor:
    if reduction == "sum":
        return losses.sum()
    mean = losses.mean()
    return mean if reduction == "fields" else mean.div(network.layout.columns)
