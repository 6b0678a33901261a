"""Fit the denoising autoencoder: rows are corrupted, the network learns to say what they were.

Each row of a batch gets its own strength: Gaussian noise on its numbers, and values swapped in from other rows, so that
a value that doesn't fit its neighbours is distrusted instead of copied (Vincent et al. 2008, "Extracting and composing
robust features with denoising autoencoders").
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.errors import DataError, SettingsError
from worker.model.autoencoder import Architecture, Autoencoder, Layout

MINIMUM_ROWS = 32
EVALUATE_EVERY_STEPS = 100
UNKNOWN_SHARE = 0.25

Progress = Callable[[int, int, float], None]
"""Called with (step, steps, held-out loss) each time that the loss was measured."""


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How to fit. `noise` is in scales of a column; `swap` is the largest share of values taken from another row."""

    hidden: tuple[int, ...] = (128, 64, 128)
    activation: str = "relu"
    steps: int = 3000
    batch: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    noise: float = 1.0
    swap: float = 0.2
    holdout: float = 0.2
    patience: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (("noise", 0.0, 10.0), ("swap", 0.0, 0.9), ("holdout", 0.05, 0.5)):
            if not low <= getattr(self, name) <= high:
                raise SettingsError(f"model.{name} = {getattr(self, name)}: from {low} to {high}")

    @property
    def architecture(self) -> Architecture:
        """The network that these options ask for."""
        return Architecture(self.hidden, self.activation)


@dataclass(frozen=True, slots=True)
class FitReport:
    """What a fit did; part of the bundle. Losses are squared errors per row, summed over its columns."""

    rows: int
    held_out_rows: int
    steps: int
    best_step: int
    held_out_loss: float
    mean_predictor_loss: float
    losses: list[tuple[int, float]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted network on the CPU, its report, and which rows were held out (indices into the rows given)."""

    network: Autoencoder
    report: FitReport
    held_out: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Rows:
    numeric: Tensor  # (R, N)
    codes: Tensor  # (R, C)

    def __len__(self) -> int:
        return len(self.numeric)

    def take(self, index: Tensor) -> "_Rows":
        return _Rows(self.numeric[index], self.codes[index])


def split(rows: int, holdout: float, generator: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row indices to fit on and to hold out; at least one row each."""
    order = generator.permutation(rows)
    count = min(max(round(rows * holdout), 1), rows - 1)
    return np.sort(order[count:]), np.sort(order[:count])


def corrupt(rows: _Rows, others: _Rows, options: FitOptions, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """What the network sees: numbers with Gaussian noise, some values swapped with another row's, some codes unknown.

    A quarter of the swapped codes become unknown (code 0) instead: the network learns to do without a value that it
    can't read, and a category never seen before says nothing to it.
    """
    count = len(rows)
    strength = torch.rand(count, 1, generator=generator)
    share = options.swap * torch.rand(count, 1, generator=generator)
    noise = torch.randn(rows.numeric.shape, generator=generator) * strength * options.noise
    swap_numeric = torch.rand(rows.numeric.shape, generator=generator) < share
    swap_codes = torch.rand(rows.codes.shape, generator=generator) < share
    numeric = torch.where(swap_numeric, others.numeric, rows.numeric + noise)
    hidden = torch.rand(rows.codes.shape, generator=generator) < UNKNOWN_SHARE
    return numeric, torch.where(swap_codes, others.codes.masked_fill(hidden, 0), rows.codes)


def mean_predictor_loss(fitted_on: _Rows, measured_on: _Rows, layout: Layout) -> float:
    """Held-out loss of always answering the column means: what a network has to beat."""
    loss = (measured_on.numeric - fitted_on.numeric.mean(0)).square().sum(1).mean().item() if layout.numeric else 0.0
    for column, width in enumerate(layout.widths):
        rate = torch.bincount(fitted_on.codes[:, column], minlength=width) / len(fitted_on)
        loss += ((rate @ rate) - 2 * rate[measured_on.codes[:, column]].mean() + 1).item()
    return loss


def fit_network(
    layout: Layout,
    numeric: NDArray[np.float32],
    codes: NDArray[np.int32],
    options: FitOptions,
    progress: Progress | None = None,
) -> Fit:
    """Fit on rows (R, N) and (R, C), stop early on held-out rows, keep the best weights.

    Deterministic for a seed on one machine. Raises DataError for fewer than 32 rows or a loss that is not finite.
    """
    if len(numeric) < MINIMUM_ROWS:
        raise DataError(f"{len(numeric)} records are too few to learn from: at least {MINIMUM_ROWS} are needed")
    fit_index, held_out = split(len(numeric), options.holdout, np.random.default_rng(options.seed))
    every = _Rows(torch.from_numpy(numeric), torch.from_numpy(codes.astype(np.int64)))
    train, held = every.take(torch.from_numpy(fit_index)), every.take(torch.from_numpy(held_out))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = Autoencoder(layout, options.architecture)
    _silence_unseen(network, train)
    best_step, losses = _train(network, train, held, options, progress)
    report = FitReport(
        rows=len(train),
        held_out_rows=len(held),
        steps=losses[-1][0],
        best_step=best_step,
        held_out_loss=min(loss for _, loss in losses),
        mean_predictor_loss=mean_predictor_loss(train, held, layout),
        losses=losses,
    )
    return Fit(network.eval(), report, held_out)


def _silence_unseen(network: Autoencoder, train: _Rows) -> None:
    """Codes that no row has get zero weights in the first layer, not random ones that nothing would ever correct."""
    seen = torch.zeros(len(network.table), dtype=torch.bool)
    seen[(train.codes + network.offsets).flatten()] = True
    with torch.no_grad():
        network.table[~seen] = 0.0


def _train(
    network: Autoencoder, train: _Rows, held: _Rows, options: FitOptions, progress: Progress | None
) -> tuple[int, list[tuple[int, float]]]:
    """Leaves the weights of the best step in `network`; returns that step and the held-out losses."""
    generator = torch.Generator().manual_seed(options.seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay)
    held_noisy = corrupt(held, held.take(torch.randperm(len(held), generator=generator)), options, generator)
    best_step, best_loss, best_state = 0, float("inf"), network.state_dict()
    losses: list[tuple[int, float]] = []
    for step in range(1, options.steps + 1):
        rows = train.take(torch.randint(len(train), (options.batch,), generator=generator))
        others = train.take(torch.randint(len(train), (options.batch,), generator=generator))
        noisy = corrupt(rows, others, options, generator)
        loss = network.errors(rows.numeric, rows.codes, noisy).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch ships no type for it
        optimizer.step()
        if step % EVALUATE_EVERY_STEPS and step != options.steps:
            continue
        with torch.no_grad():
            held_loss = network.errors(held.numeric, held.codes, held_noisy).mean().item()
        if not np.isfinite(held_loss):
            raise DataError(
                f"the loss is not finite after {step} steps: lower model.learning_rate ({options.learning_rate})"
            )
        losses.append((step, held_loss))
        if progress:
            progress(step, options.steps, held_loss)
        if held_loss < best_loss:
            best_step, best_loss = step, held_loss
            best_state = {name: value.clone() for name, value in network.state_dict().items()}
        elif step - best_step >= options.patience * EVALUATE_EVERY_STEPS:
            break
    network.load_state_dict(best_state)
    return best_step, losses
