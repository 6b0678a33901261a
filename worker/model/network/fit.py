"""Fit an autoencoder on rows by a recipe (see FitOptions), and report what came of it."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.errors import DataError, SettingsError
from worker.model.network.autoencoder import Autoencoder, Layout
from worker.model.network.corruption import Rows, corrupt
from worker.model.network.loss import training_loss
from worker.model.network.options import FitOptions

__all__ = ["MINIMUM_ROWS", "Fit", "FitOptions", "FitReport", "Progress", "fit_network"]

MINIMUM_ROWS = 32
EVALUATE_EVERY_STEPS = 100
MEASURED_CELLS = 1 << 22
"""Most cells of one-hot output that are in memory while a loss is measured."""


Progress = Callable[[int, int, float], None]
"""Called with (step, steps, held-out loss) each time that the loss was measured."""


@dataclass(frozen=True, slots=True)
class FitReport:
    """What a fit did; part of the bundle. Losses are squared errors per row, summed over its columns, whatever the fit
    made small: measured on held-out rows, or on the fitted ones where none were held out.

    notes: what had to be done otherwise than the options say, for people.
    """

    rows: int
    held_out_rows: int
    steps: int
    best_step: int
    held_out_loss: float
    mean_predictor_loss: float
    losses: list[tuple[int, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted network on the CPU, its report, and indices into the rows given: those that were fitted, and those that
    were held out (all of them, where none were)."""

    network: Autoencoder
    report: FitReport
    fitted: NDArray[np.int64]
    held_out: NDArray[np.int64]


def split(rows: int, holdout: float, generator: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row indices to fit on and to hold out; at least one row each, all rows for both where nothing is held out."""
    if holdout == 0:
        return np.arange(rows), np.arange(rows)
    order = generator.permutation(rows)
    count = min(max(round(rows * holdout), 1), rows - 1)
    return np.sort(order[count:]), np.sort(order[:count])


def mean_predictor_loss(fitted_on: Rows, measured_on: Rows, layout: Layout) -> float:
    """Held-out loss of always answering the column means: what a network has to beat."""
    loss = (measured_on.numeric - fitted_on.numeric.mean(0)).square().sum(1).mean().item() if layout.numeric else 0.0
    for column, width in enumerate(layout.widths):
        rate = torch.bincount(fitted_on.category_ids[:, column], minlength=width) / len(fitted_on)
        loss += ((rate @ rate) - 2 * rate[measured_on.category_ids[:, column]].mean() + 1).item()
    return loss


def fit_network(
    layout: Layout,
    numeric: NDArray[np.float32],
    category_ids: NDArray[np.int32],
    options: FitOptions,
    progress: Progress | None = None,
) -> Fit:
    """Fit on rows (R, N) and (R, C) by the options' recipe.

    Deterministic for a seed on one machine. Raises DataError for fewer than 32 rows or a loss that is not finite,
    SettingsError for sizes that don't fit the layout.
    """
    if len(numeric) < MINIMUM_ROWS:
        raise DataError(f"{len(numeric)} records are too few to learn from: at least {MINIMUM_ROWS} are needed")
    architecture = options.architecture(layout.columns)
    fit_index, held_out = split(len(numeric), options.holdout, np.random.default_rng(options.seed))
    every = Rows(torch.from_numpy(numeric), torch.from_numpy(category_ids.astype(np.int64)))
    train, held = every.take(torch.from_numpy(fit_index)), every.take(torch.from_numpy(held_out))
    options, notes = _fitting(options, len(train), layout)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = Autoencoder(layout, architecture)
        _silence_unseen(network, train)
        best_step, losses = _train(network, train, held, options, progress)
    report = FitReport(
        rows=len(train),
        held_out_rows=len(held) if options.holdout else 0,
        steps=losses[-1][0],
        best_step=best_step,
        held_out_loss=dict(losses)[best_step],
        mean_predictor_loss=mean_predictor_loss(train, held, layout),
        losses=losses,
        notes=notes,
    )
    return Fit(network.eval(), report, fit_index, held_out)


def _fitting(options: FitOptions, rows: int, layout: Layout) -> tuple[FitOptions, list[str]]:
    """The options as they can be followed, and what differs from what they say."""
    notes = []
    code = options.architecture(layout.columns).latent
    if code >= layout.columns and not options.is_denoising:
        notes.append(
            f"the code ({code} units) is not narrower than the {layout.columns} input columns: it may copy its input; "
            "WORKER_MODEL__HIDDEN or WORKER_MODEL__LATENT makes it smaller"
        )
    if options.epochs is not None and options.batch > rows:
        notes.append(f"WORKER_MODEL__BATCH = {options.batch}: there are {rows} rows to fit, so a batch is all of them")
        options = replace(options, batch=rows)
    return options, notes


def _silence_unseen(network: Autoencoder, train: Rows) -> None:
    """Codes that no row has get zero weights in the first layer, not random ones that nothing would ever correct."""
    seen = torch.zeros(len(network.table), dtype=torch.bool)
    seen[(train.category_ids + network.offsets).flatten()] = True
    with torch.no_grad():
        network.table[~seen] = 0.0


class _Batch(NamedTuple):
    """chosen: rows of one step, (B,). measure: whether the loss is measured after it."""

    chosen: Tensor
    measure: bool


def _batches(rows: int, options: FitOptions, generator: torch.Generator) -> Iterator[_Batch]:
    """The batches of a fit: drawn at random, or whole epochs of shuffled rows, measured after each."""
    if options.epochs is None:
        for step in range(1, (options.steps or 0) + 1):
            index = torch.randint(rows, (options.batch,), generator=generator)
            yield _Batch(index, step % EVALUATE_EVERY_STEPS == 0 or step == options.steps)
        return
    step = 0
    for _ in range(options.epochs):
        order = torch.randperm(rows, generator=generator)
        parts = [order[start : start + options.batch] for start in range(0, rows, options.batch)]
        # Batch norm knows no variance of a single row.
        if len(parts[-1]) < (options.batch if options.drop_last else 2 if options.batch_norm else 1):
            parts.pop()
        for place, part in enumerate(parts, 1):
            step += 1
            yield _Batch(part, place == len(parts) or step == options.steps)
            if step == options.steps:
                return


def total_steps(rows: int, options: FitOptions) -> int:
    """The most steps that a fit on so many rows takes."""
    if options.epochs is None:
        return options.steps or 0
    batches = rows // options.batch if options.drop_last else -(-rows // options.batch)
    return min(options.epochs * batches, options.steps or options.epochs * batches)


def _train(
    network: Autoencoder, train: Rows, held: Rows, options: FitOptions, progress: Progress | None
) -> tuple[int, list[tuple[int, float]]]:
    """Leaves the best weights in `network` (the last, without patience); returns their step and the held-out losses."""
    generator = torch.Generator().manual_seed(options.seed)
    optimizer, compute = _optimizer(network, options), _compiled(options)
    held_noisy = None
    if options.is_denoising:
        held_noisy = corrupt(held, held.take(torch.randperm(len(held), generator=generator)), options, generator)
    course, last = EarlyStopping(network, options.patience), total_steps(len(train), options)
    for step, batch in enumerate(_batches(len(train), options, generator), 1):
        rows = train.take(batch.chosen)
        noisy = _corrupted(rows, train, options, generator)
        loss = compute(network, rows, options, noisy)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch ships no type for it
        optimizer.step()
        if not batch.measure:
            continue
        held_loss = _measured(network.eval(), held, held_noisy)
        network.train()
        if not np.isfinite(held_loss):
            raise DataError(
                f"the loss is not finite after {step} steps: lower WORKER_MODEL__LEARNING_RATE "
                f"({options.learning_rate}; allowed is above 0 to 1)"
            )
        if progress:
            progress(step, last, held_loss)
        if course.is_over(step, held_loss):
            break
    course.take_best()
    return course.best_step, course.losses


class EarlyStopping:
    """How a fit goes: its losses so far, and the weights to keep. patience: see FitOptions."""

    def __init__(self, network: Autoencoder, patience: int) -> None:
        self._network, self._patience = network, patience
        self._best_loss, self._best_state, self._stale = float("inf"), network.state_dict(), 0
        self.best_step = 0
        self.losses: list[tuple[int, float]] = []

    def is_over(self, step: int, loss: float) -> bool:
        """Take in a loss; whether the fit should end with it."""
        self.losses.append((step, loss))
        if self._patience == 0:
            self.best_step = step
        elif loss < self._best_loss:
            self.best_step, self._best_loss, self._stale = step, loss, 0
            self._best_state = {name: value.clone() for name, value in self._network.state_dict().items()}
        else:
            self._stale += 1
        return 0 < self._patience == self._stale

    def take_best(self) -> None:
        """Put the weights to keep into the network."""
        if self._patience:
            self._network.load_state_dict(self._best_state)


def _optimizer(network: Autoencoder, options: FitOptions) -> torch.optim.Optimizer:
    rate, decay = options.learning_rate, options.weight_decay
    if options.optimizer == "sgd":
        return torch.optim.SGD(network.parameters(), lr=rate, weight_decay=decay)
    if options.optimizer == "adam":
        return torch.optim.Adam(network.parameters(), lr=rate, weight_decay=decay)
    return torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay)


def _corrupted(rows: Rows, pool: Rows, options: FitOptions, generator: torch.Generator) -> tuple[Tensor, Tensor] | None:
    """The rows as the network sees them, with values of others from the pool; None = as they are."""
    if not options.is_denoising:
        return None
    others = torch.randint(len(pool), (len(rows),), generator=generator)
    return corrupt(rows, pool.take(others), options, generator)


@torch.no_grad()
def _measured(network: Autoencoder, held: Rows, noisy: tuple[Tensor, Tensor] | None) -> float:
    """Mean squared error per row."""
    if network.linear:
        return network.errors(held.numeric, held.category_ids, noisy).mean().item()
    total, size = 0.0, max(1, MEASURED_CELLS // network.layout.columns)
    for start in range(0, len(held), size):  # every one-hot column is computed: a few rows at a time
        part = slice(start, start + size)
        seen = None if noisy is None else (noisy[0][part], noisy[1][part])
        total += network.errors(held.numeric[part], held.category_ids[part], seen).sum().item()
    return total / len(held)


def _compiled(options: FitOptions) -> Callable[..., Tensor]:
    """`training_loss`, compiled where that is asked for and works here."""
    if not options.compile:
        return training_loss
    fast = torch.compile(training_loss)

    def compute(*arguments: Any) -> Tensor:
        try:
            loss: Tensor = fast(*arguments)
        except RuntimeError as error:
            raise SettingsError(
                f"WORKER_MODEL__COMPILE = True: torch.compile fails here ({str(error).splitlines()[0]}); it needs a "
                "C++ compiler; allowed is true or false"
            ) from error
        return loss

    return compute
