"""The denoising corruption: a fit shows the network damaged rows and asks it for the whole ones.

Each row of a batch has its own strength. Numbers get noise, and values are swapped in from other rows, so that the
network distrusts a value that doesn't fit its neighbours instead of copying it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.registry import Registry

UNKNOWN_SHARE = 0.25

NoiseKind = Callable[[Tensor, Tensor, float, torch.Generator], Tensor]
"""(numbers (B, N), strength of each row (B, 1) in [0, 1], noise, generator) to noisy numbers (B, N)."""

NOISE_KINDS: Registry[NoiseKind] = Registry("noise kind")


def gaussian(numeric: Tensor, strength: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """Normal noise with a deviation of up to `noise`."""
    return numeric + torch.randn(numeric.shape, generator=generator) * strength * noise


def uniform(numeric: Tensor, strength: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """Even noise of up to ± `noise`."""
    return numeric + (2 * torch.rand(numeric.shape, generator=generator) - 1) * strength * noise


def mask(numeric: Tensor, strength: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """Zeros in the place of up to a share `noise` of the numbers."""
    return numeric.masked_fill(torch.rand(numeric.shape, generator=generator) < strength * noise, 0.0)


for _kind in (gaussian, uniform, mask):
    NOISE_KINDS.register(_kind.__name__, _kind)


@dataclass(frozen=True, slots=True)
class Rows:
    """R rows. numeric: float32 (R, N); category_ids: int64 (R, C)."""

    numeric: Tensor
    category_ids: Tensor

    def __len__(self) -> int:
        return len(self.numeric)

    def take(self, index: Tensor) -> "Rows":
        """The rows at index (B,)."""
        return Rows(self.numeric[index], self.category_ids[index])


def corrupt(
    rows: Rows, others: Rows, generator: torch.Generator, *, kind: str, noise: float, swap: float
) -> tuple[Tensor, Tensor]:
    """Numbers (B, N) and category ids (B, C) as the network sees them in the place of these rows.

    A quarter of the swapped ids become unknown (id 0): the network learns to do without a value that it can't read,
    and a category never seen before says nothing to it.

    It works badly where a row's values are independent of each other, for then nothing tells a swapped value from an
    original one, and on few columns, where a swap leaves too little to restore the row from.

        rows, others   B rows each; values are swapped in from the row of `others` at the same place
        kind           how numbers are corrupted: a name in NOISE_KINDS
        noise          strength of that, in scales of a column; of `mask` the largest share of zeros
        swap           the largest share of a row's values taken from the other row

    >>> generator = torch.Generator().manual_seed(0)
    >>> rows = Rows(torch.zeros(1000, 2), torch.ones(1000, 1, dtype=torch.int64))
    >>> others = Rows(torch.full((1000, 2), 9.0), torch.full((1000, 1), 2))
    >>> numeric, category_ids = corrupt(rows, others, generator, kind="mask", noise=0.0, swap=0.4)
    >>> round((numeric == 9).float().mean().item(), 1)  # half of `swap` on average
    0.2
    >>> category_ids.unique().tolist()
    [0, 1, 2]

    Vincent, P., Larochelle, H., Bengio, Y., Manzagol, P.-A. (2008): Extracting and composing robust features with
    denoising autoencoders. ICML. Swapping from other rows and a strength per row are this project's additions.
    """
    count = len(rows)
    strength = torch.rand(count, 1, generator=generator)
    share = swap * torch.rand(count, 1, generator=generator)
    noisy = NOISE_KINDS[kind](rows.numeric, strength, noise, generator)
    swap_numeric = torch.rand(rows.numeric.shape, generator=generator) < share
    swap_ids = torch.rand(rows.category_ids.shape, generator=generator) < share
    numeric = torch.where(swap_numeric, others.numeric, noisy)
    unknown = torch.rand(rows.category_ids.shape, generator=generator) < UNKNOWN_SHARE
    return numeric, torch.where(swap_ids, others.category_ids.masked_fill(unknown, 0), rows.category_ids)
