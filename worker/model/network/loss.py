"""What a fit shows the network and what it asks for: corrupted rows, the error of each row, one number for a batch."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from worker.features.learned import MISSING_ID
from worker.model.network.autoencoder import Autoencoder, Rows, kl_divergence
from worker.registry import Registry

UNKNOWN_SHARE = 0.25


NoiseKind = Callable[[Tensor, Tensor, float, torch.Generator], Tensor]
"""(numbers (B, N), a draw of each row (B, 1) in [0, 1], noise, generator) to noisy numbers (B, N)."""

NOISE_KINDS: Registry[NoiseKind] = Registry("noise kind")
MAX_NOISE, NOISE_SPAN = 2.0, 100.0
"""Of the row with the strongest noise in scales of a column, and how many times that of the weakest one it is."""


def _size(draw: Tensor, noise: float) -> Tensor:
    """At noise 1 from 0.02 to 2, each order of magnitude as often as the others."""
    return noise * MAX_NOISE * NOISE_SPAN ** (draw - 1)


def gaussian(numeric: Tensor, draw: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """Normal noise with a deviation of up to 2 `noise`."""
    return numeric + torch.randn(numeric.shape, generator=generator) * _size(draw, noise)


def uniform(numeric: Tensor, draw: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """Even noise of up to ± 2 `noise`."""
    return numeric + (2 * torch.rand(numeric.shape, generator=generator) - 1) * _size(draw, noise)


def mask(numeric: Tensor, draw: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """Zeros in the place of up to a share `noise` of the numbers."""
    return numeric.masked_fill(torch.rand(numeric.shape, generator=generator) < draw * noise, 0.0)


for _kind in (gaussian, uniform, mask):
    NOISE_KINDS.register(_kind.__name__, _kind)


class MissingPattern(NamedTuple):
    """Which rows of a fit lack which fields, by their columns.

    share     of the rows that have the column's field, above 0, float32 (N + C,)
    field     place of the column's field, int64 (N + C,)
    imputed   what stands for a missing number, float32 (N,); NaN where no row lacks it
    optional  whether MISSING_ID says that the field is absent, bool (C,)
    """

    share: Tensor
    field: Tensor
    imputed: Tensor
    optional: Tensor

    def without_some(self, rows: Rows, generator: torch.Generator) -> Rows:
        """Rows that lack some of their rarer fields: each its own share of them, half of a very rare field on average.

        Where each of many rare fields is in a few rows only, a network learns rows by heart from them, and what all
        have in common badly.
        """
        numbers = len(self.imputed)
        fields = int(self.field.max()) + 1
        draw = torch.rand(len(rows.numeric), 1, generator=generator) * (1 - self.share)
        leave = torch.rand(len(rows.numeric), fields, generator=generator)[:, self.field] < draw
        absent = leave[:, :numbers] & ~self.imputed.isnan()
        return Rows(
            torch.where(absent, self.imputed, rows.numeric),
            rows.category_ids.masked_fill(leave[:, numbers:] & self.optional, MISSING_ID),
        )


def corrupt(
    rows: Rows,
    others: Rows,
    generator: torch.Generator,
    *,
    kind: str,
    noise: float,
    swap: float,
    pattern: MissingPattern | None = None,
) -> Rows:
    """What a denoising fit shows the network in the place of these rows.

    Each row has its own strength. Numbers get noise, and values are swapped in from other rows, so that the network
    distrusts a value that doesn't fit its neighbours instead of copying it. A quarter of the swapped ids become unknown
    (id 0): the network learns to do without a value that it can't read, and a category never seen before says nothing
    to it. Most rows get little noise, and in half of them no number is swapped, in the others twice as many: from the
    one half the network learns how numbers hang together finely, from the other what to expect of one by all the rest.

    It works badly where a row's values are independent of each other, for then nothing tells a swapped value from an
    original one, and on few columns, where a swap leaves too little to restore the row from.

        rows, others   B rows each; values are swapped in from the row of `others` at the same place
        kind           how numbers are corrupted: a name in NOISE_KINDS
        noise          strength of that: at 1 from 0.02 to 2 scales of a column; of `mask` the largest share of zeros
        swap           the largest share of a row's values taken from the other row
        pattern        what rows of the fit lack; then rare fields are left out of some rows

    >>> generator = torch.Generator().manual_seed(0)
    >>> rows = Rows(torch.zeros(1000, 2), torch.ones(1000, 1, dtype=torch.int64))
    >>> others = Rows(torch.full((1000, 2), 9.0), torch.full((1000, 1), 2))
    >>> numeric, category_ids = corrupt(rows, others, generator, kind="mask", noise=0.0, swap=0.4)
    >>> round((numeric == 9).float().mean().item(), 1)  # half of `swap` on average
    0.2
    >>> category_ids.unique().tolist()
    [0, 1, 2]

    Vincent, P., Larochelle, H., Bengio, Y., Manzagol, P.-A. (2008): Extracting and composing robust features with
    denoising autoencoders. ICML. Geras, K., Sutton, C. (2015): Scheduled denoising autoencoders. ICLR. (Several levels
    of noise teach fine and coarse structure.) Swapping from other rows, a strength per row and leaving rare fields out
    are this project's additions.
    """
    # The order of the draws is part of a version's name: another one gives other weights for the same seed.
    strength = torch.rand(len(rows.numeric), 1, generator=generator)
    share = swap * torch.rand(len(rows.numeric), 1, generator=generator)
    noisy = NOISE_KINDS[kind](rows.numeric, strength, noise, generator)
    of_numbers = 2 * share * (torch.rand(len(rows.numeric), 1, generator=generator) < 0.5)
    swap_numeric = torch.rand(rows.numeric.shape, generator=generator) < of_numbers
    swap_ids = torch.rand(rows.category_ids.shape, generator=generator) < share
    numeric = torch.where(swap_numeric, others.numeric, noisy)
    unknown = torch.rand(rows.category_ids.shape, generator=generator) < UNKNOWN_SHARE
    swapped = torch.where(swap_ids, others.category_ids.masked_fill(unknown, 0), rows.category_ids)
    corrupted = Rows(numeric, swapped)
    return corrupted if pattern is None else pattern.without_some(corrupted, generator)


class Loss(NamedTuple):
    """The error that a fit minimises.

    of_rows        (network, last hidden layer (B, H), rows) to the loss of each row, summed over its columns, (B,)
    needs_sigmoid  whether it is defined for an output from 0 to 1 alone
    """

    of_rows: Callable[[Autoencoder, Tensor, Rows], Tensor]
    needs_sigmoid: bool = False


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


def weighed_squares(factors: Tensor) -> Callable[[Autoencoder, Tensor, Rows], Tensor]:
    """The squared loss of a linear output with a factor on each input column, (N + C,).

    A field that few records have counts by the share of those that have it. Without that 500 of them take most of the
    latent, though nobody can predict them, and what all records share is learned badly.
    """

    def of_rows(network: Autoencoder, hidden: Tensor, rows: Rows) -> Tensor:
        forms = network.weighed_forms(factors, torch.zeros(len(network.layout.widths), dtype=torch.bool))
        return network.weighed_errors(hidden, *rows, factors[None], forms)

    return of_rows


LOSSES: Registry[Loss] = Registry("loss")
LOSSES.register("squared", Loss(lambda network, hidden, rows: network.squared_errors(hidden, *rows)))
LOSSES.register("absolute", Loss(lambda network, hidden, rows: network.residual(hidden, *rows).abs().sum(1)))
LOSSES.register("cross-entropy", Loss(cross_entropy, needs_sigmoid=True))

REDUCTIONS: Registry[Callable[[Tensor, int], Tensor]] = Registry("reduction")
"""(losses of rows (B,), number of columns) to one number."""
REDUCTIONS.register("mean", lambda losses, columns: losses.mean().div(columns))
REDUCTIONS.register("fields", lambda losses, _: losses.mean())
REDUCTIONS.register("sum", lambda losses, _: losses.sum())


def training_loss(
    network: Autoencoder,
    rows: Rows,
    noisy: Rows | None = None,
    *,
    loss: str,
    reduction: str,
    beta: float = 1.0,
    draw: Tensor | None = None,
    factors: Tensor | None = None,
) -> Tensor:
    """The loss of a batch, a scalar.

    Of a variational network the error from a drawn latent, plus the divergence (Kingma & Welling 2014).

        rows       what the network should answer
        noisy      what it sees; None = the rows
        loss       a name in LOSSES; reduction: one in REDUCTIONS
        beta       weight of the divergence
        draw       standard normal (B, L); None = drawn here
        factors    on the squared error of each input column, (N + C,), in the place of `loss`; see `weighed_squares`
    """
    seen = rows if noisy is None else noisy
    of_rows, reduce = LOSSES[loss].of_rows, REDUCTIONS[reduction]
    if factors is not None:
        of_rows = weighed_squares(factors)
    if not network.architecture.variational:
        return reduce(of_rows(network, network.encode(*seen), rows), network.layout.columns)
    mean, log_variance = network.latent_distribution(*seen)
    # The draw as mean + deviation * noise, or no gradient would reach mean and deviation through it.
    noise = torch.randn_like(mean) if draw is None else draw
    hidden = network.decode(mean + (0.5 * log_variance).exp() * noise)
    losses = of_rows(network, hidden, rows) + beta * kl_divergence(mean, log_variance)
    return reduce(losses, network.layout.columns)
