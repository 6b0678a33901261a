"""What a network sees instead of a row while it is fitted: a corrupted one, and it learns to say what the row was.

Each row of a batch gets its own strength: noise on its numbers, and values swapped in from other rows, so that a value
that doesn't fit its neighbours is distrusted instead of copied (Vincent et al. 2008, "Extracting and composing robust
features with denoising autoencoders").
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from worker.model.network.options import FitOptions

UNKNOWN_SHARE = 0.25


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


def corrupt(rows: Rows, others: Rows, options: FitOptions, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """What the network sees: noisy numbers, some values swapped with another row's, some category_ids unknown.

    A quarter of the swapped ids become unknown (id 0) instead: the network learns to do without a value that it
    can't read, and a category never seen before says nothing to it.
    """
    count = len(rows)
    strength = torch.rand(count, 1, generator=generator)
    share = options.swap * torch.rand(count, 1, generator=generator)
    noisy = _noisy(rows.numeric, strength, options, generator)
    swap_numeric = torch.rand(rows.numeric.shape, generator=generator) < share
    swap_ids = torch.rand(rows.category_ids.shape, generator=generator) < share
    numeric = torch.where(swap_numeric, others.numeric, noisy)
    hidden = torch.rand(rows.category_ids.shape, generator=generator) < UNKNOWN_SHARE
    return numeric, torch.where(swap_ids, others.category_ids.masked_fill(hidden, 0), rows.category_ids)


def _noisy(numeric: Tensor, strength: Tensor, options: FitOptions, generator: torch.Generator) -> Tensor:
    """Numbers (B, N) with noise of up to `options.noise`, times the rows' strength (B, 1)."""
    if options.noise_kind == "gaussian":
        return numeric + torch.randn(numeric.shape, generator=generator) * strength * options.noise
    drawn = torch.rand(numeric.shape, generator=generator)
    if options.noise_kind == "uniform":
        return numeric + (2 * drawn - 1) * strength * options.noise
    return numeric.masked_fill(drawn < strength * options.noise, 0.0)
