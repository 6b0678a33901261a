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
from worker.model.network.options import OPTIMIZERS, RANGES, FitOptions

__all__ = ["MIN_ROWS", "Fit", "FitOptions", "FitReport", "Progress", "fit_network"]

MIN_ROWS = 32
EVALUATE_EVERY_STEPS = 100
MAX_CELLS = 1 << 22
"""One-hot outputs that are in memory at a time while a loss is measured."""


Progress = Callable[[int, int, float], None]
"""Called with (step, steps, held-out loss) each time that the loss was measured."""


@dataclass(frozen=True, slots=True)
class FitReport:
    """What a fit did; part of the bundle.

    Losses are squared errors per row, summed over its columns, whatever loss the fit minimised: measured on held-out
    rows, or on the fitted ones where none were held out.

    rows, held_out_rows  how many were fitted, and held out
    steps, best_step     optimizer steps in all, and up to the weights that were kept
    held_out_loss        with the weights that were kept
    mean_predictor_loss  of always answering the column means: what a network has to beat
    losses               (step, loss) of each measurement
    notes                what had to be done otherwise than the options say, for people; a setting stands in it by its
                         path in brackets
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


class Fit(NamedTuple):
    """A fitted network on the CPU, and its report.

    fitted, held_out   indices into the rows: those that were fitted, and those that were held out (all of them, where
                       none were)
    """

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
    """Held-out loss of always answering the column means."""
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
    """Fit a network on rows by the options' recipe, with early stopping.

    A share `holdout` of the rows is kept out of the fit. Their loss is measured every 100 steps, or after each epoch;
    after `patience` measurements without a better one the fit ends, and the weights of the best one are kept.
    Without patience it goes through all steps and keeps the last weights.

    It works badly on few rows (the held-out loss of a dozen is noise, and the fit ends on a lucky one), and where rows
    repeat: a held-out row then has its twin among the fitted ones, and an overfit looks like progress. Anomalies among
    the rows are learned like all else; a few in a thousand do little harm.

        layout        columns of the rows
        numeric       float32 (R, N), scaled
        category_ids  int32 (R, C)
        options       recipe; deterministic for its seed on one machine
        progress      called after each measurement

    Raises DataError for fewer than 32 rows or a loss that is not finite, SettingsError for sizes that don't fit the
    layout.

    >>> x = np.random.default_rng(0).normal(size=(400, 1)).astype(np.float32)
    >>> options = FitOptions(hidden=(8, 1, 8), noise=0.0, swap=0.0, steps=400, learning_rate=0.01)
    >>> fit = fit_network(Layout(2, ()), np.hstack([x, -x]), np.zeros((400, 0), np.int32), options)
    >>> fit.report.held_out_loss < 0.1 * fit.report.mean_predictor_loss  # two columns, but one degree of freedom
    True

    Prechelt, L. (1998): Early stopping, but when? In: Neural Networks: Tricks of the Trade. (Its criterion UP is close
    to patience.)
    """
    if len(numeric) < MIN_ROWS:
        raise DataError(f"{len(numeric)} records are too few to learn from: at least {MIN_ROWS} are needed")
    architecture = options.architecture(layout.columns)
    fit_index, held_out = split(len(numeric), options.holdout, np.random.default_rng(options.seed))
    rows = Rows(torch.from_numpy(numeric), torch.from_numpy(category_ids.astype(np.int64)))
    train, held = rows.take(torch.from_numpy(fit_index)), rows.take(torch.from_numpy(held_out))
    notes = []
    if architecture.latent >= layout.columns and not options.is_denoising:
        notes.append(
            f"the latent ({architecture.latent} units) is not narrower than the {layout.columns} input columns: it may "
            "copy its input; [model.hidden] or [model.latent] makes it smaller"
        )
    if options.epochs is not None and options.batch > len(train):
        notes.append(
            f"[model.options] batch = {options.batch}: there are {len(train)} rows to fit, so a batch is all of them"
        )
        options = replace(options, batch=len(train))
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


def _silence_unseen(network: Autoencoder, train: Rows) -> None:
    """Category ids that no row has get zero weights in the first layer, not random ones that no step would correct."""
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
        for number, part in enumerate(parts, 1):
            step += 1
            yield _Batch(part, number == len(parts) or step == options.steps)
            if step == options.steps:
                return


def max_steps(rows: int, options: FitOptions) -> int:
    """Steps that a fit on so many rows takes if nothing ends it early."""
    if options.epochs is None:
        return options.steps or 0
    batches = rows // options.batch if options.drop_last else -(-rows // options.batch)
    return min(options.epochs * batches, options.steps or options.epochs * batches)


def _train(
    network: Autoencoder, train: Rows, held: Rows, options: FitOptions, progress: Progress | None
) -> tuple[int, list[tuple[int, float]]]:
    """Leaves the best weights in `network` (the last, without patience); returns their step and the held-out losses."""
    generator = torch.Generator().manual_seed(options.seed)
    rate, decay = options.learning_rate, options.weight_decay
    optimizer = OPTIMIZERS[options.optimizer](network.parameters(), lr=rate, weight_decay=decay)
    compute = _compiled(options)

    def corrupted(rows: Rows, others: Rows) -> tuple[Tensor, Tensor]:
        kind, noise, swap = options.noise_kind, options.noise, options.swap
        return corrupt(rows, others, generator, kind=kind, noise=noise, swap=swap)

    held_noisy = noisy = None
    if options.is_denoising:
        # Corrupted once: a loss that was drawn anew at each measurement could not be compared with the one before.
        held_noisy = corrupted(held, held.take(torch.randperm(len(held), generator=generator)))
    stopping, last = EarlyStopping(network, options.patience), max_steps(len(train), options)
    for step, batch in enumerate(_batches(len(train), options, generator), 1):
        rows = train.take(batch.chosen)
        if options.is_denoising:
            noisy = corrupted(rows, train.take(torch.randint(len(train), (len(rows),), generator=generator)))
        loss = compute(network, rows, noisy, loss=options.loss, reduction=options.reduction, beta=options.beta)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch ships no type for it
        optimizer.step()
        if not batch.measure:
            continue
        held_loss = _measured(network.eval(), held, held_noisy)
        network.train()
        if not np.isfinite(held_loss):
            raise DataError(
                f"the loss is not finite after {step} steps: lower [model.learning_rate] "
                f"({options.learning_rate}; allowed is {RANGES['learning_rate']})"
            )
        if progress:
            progress(step, last, held_loss)
        if stopping.is_over(step, held_loss):
            break
    stopping.restore_best()
    return stopping.best_step, stopping.losses


class EarlyStopping:
    """The losses of a fit so far, and the weights to keep.

    patience   measurements without improvement that end the fit; 0 = never, and the last weights are kept
    """

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

    def restore_best(self) -> None:
        """Put the weights to keep into the network."""
        if self._patience:
            self._network.load_state_dict(self._best_state)


@torch.no_grad()
def _measured(network: Autoencoder, held: Rows, noisy: tuple[Tensor, Tensor] | None) -> float:
    """Mean squared error per row."""
    numeric, category_ids = noisy or (held.numeric, held.category_ids)
    if network.has_linear_output:
        hidden = network.encode(numeric, category_ids)
        return network.squared_errors(hidden, held.numeric, held.category_ids).mean().item()
    total, size = 0.0, max(1, MAX_CELLS // network.layout.columns)
    for start in range(0, len(held), size):  # every one-hot column is computed: some of the rows at a time
        part = slice(start, start + size)
        hidden = network.encode(numeric[part], category_ids[part])
        total += network.squared_errors(hidden, held.numeric[part], held.category_ids[part]).sum().item()
    return total / len(held)


def _compiled(options: FitOptions) -> Callable[..., Tensor]:
    """`training_loss`, compiled where the options ask for it."""
    if not options.compile:
        return training_loss
    fast = torch.compile(training_loss)

    def compute(*arguments: Any, **named: Any) -> Tensor:
        try:
            loss: Tensor = fast(*arguments, **named)
        except RuntimeError as error:
            raise SettingsError(
                f"[model.options] compile = True: torch.compile fails here ({str(error).splitlines()[0]}); it needs a "
                "C++ compiler; allowed is true or false"
            ) from error
        return loss

    return compute
