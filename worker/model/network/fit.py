"""Fit an autoencoder on rows by a recipe (see FitOptions), and report what came of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.errors import DataError, SettingsError
from worker.model.network.autoencoder import Autoencoder, Layout, Rows
from worker.model.network.loss import MissingPattern, corrupt, training_loss, weighed_squares
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


class Fit(NamedTuple):
    """A fitted network on the CPU, and its report.

    fitted, held_out   indices into the rows: those that were fitted, and those that were held out (all of them, where
                       none were)
    """

    network: Autoencoder
    report: FitReport
    fitted: NDArray[np.int64]
    held_out: NDArray[np.int64]


def mean_predictor_loss(fitted_on: Rows, measured_on: Rows, layout: Layout, pattern: MissingPattern | None) -> float:
    """Held-out loss of always answering the column means; with `pattern` each field weighed by its share."""
    factors = torch.ones(layout.numeric + len(layout.widths)) if pattern is None else pattern.share
    of_numbers = (measured_on.numeric - fitted_on.numeric.mean(0)).square() * factors[: layout.numeric]
    loss = of_numbers.sum(1).mean().item() if layout.numeric else 0.0
    for column, (width, factor) in enumerate(zip(layout.widths, factors[layout.numeric :].tolist(), strict=True)):
        # |rate - e_t|² = rate·rate - 2 rate[t] + 1, as for the network: no one-hot column is made
        rate = torch.bincount(fitted_on.category_ids[:, column], minlength=width) / len(fitted_on.category_ids)
        loss += factor * ((rate @ rate) - 2 * rate[measured_on.category_ids[:, column]].mean() + 1).item()
    return loss


def fit_network(
    layout: Layout,
    numeric: NDArray[np.float32],
    category_ids: NDArray[np.int32],
    options: FitOptions,
    progress: Progress | None = None,
    pattern: MissingPattern | None = None,
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
        pattern       of the columns: each field's squared errors, those of the report's losses too, are weighed by the
                      share of the rows that have it, and a denoising fit leaves rare ones out of some rows. Only the
                      squared loss of a linear output takes it

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
    count = len(numeric)
    if count < MIN_ROWS:
        raise DataError(f"{count} records are too few to learn from: at least {MIN_ROWS} are needed")
    architecture = options.architecture(layout.columns)
    fitted = held_out = np.arange(count)
    if options.holdout:
        order = np.random.default_rng(options.seed).permutation(count)
        border = min(max(round(count * options.holdout), 1), count - 1)  # at least one row on each side
        fitted, held_out = np.sort(order[border:]), np.sort(order[:border])
    rows = Rows(torch.from_numpy(numeric), torch.from_numpy(category_ids.astype(np.int64)))
    train, held = rows.take(torch.from_numpy(fitted)), rows.take(torch.from_numpy(held_out))
    notes = []
    if architecture.latent >= layout.columns and not options.is_denoising:
        notes.append(
            f"the latent ({architecture.latent} units) is not narrower than the {layout.columns} input columns: it may "
            "copy its input; [model.hidden] or [model.latent] makes it smaller"
        )
    if options.epochs is not None and options.batch > len(fitted):
        notes.append(
            f"[model.options] batch = {options.batch}: there are {len(fitted)} rows to fit, so a batch is all of them"
        )
        options = replace(options, batch=len(fitted))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = Autoencoder(layout, architecture)
        # Ids that no row has get zero weights: no step would ever correct the random ones that they start with, and
        # such a category, met later, would shift the score by chance.
        seen = torch.zeros(len(network.table), dtype=torch.bool)
        seen[(train.category_ids + network.offsets).flatten()] = True
        network.table.data[~seen] = 0.0
        if options.loss != "squared" or not network.has_linear_output:
            pattern = None
        best_step, losses = _train(network, train, held, options, progress, pattern)
    report = FitReport(
        rows=len(fitted),
        held_out_rows=len(held_out) if options.holdout else 0,
        steps=losses[-1][0],
        best_step=best_step,
        held_out_loss=dict(losses)[best_step],
        mean_predictor_loss=mean_predictor_loss(train, held, layout, pattern),
        losses=losses,
        notes=notes,
    )
    return Fit(network.eval(), report, fitted, held_out)


def _batches(rows: int, options: FitOptions, generator: torch.Generator) -> Iterator[tuple[Tensor, bool]]:
    """The rows (B,) of each step, drawn at random or in whole epochs, and whether the loss is measured after it."""
    if options.epochs is None:
        for step in range(1, (options.steps or 0) + 1):
            index = torch.randint(rows, (options.batch,), generator=generator)
            yield index, step % EVALUATE_EVERY_STEPS == 0 or step == options.steps
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
            yield part, number == len(parts) or step == options.steps
            if step == options.steps:
                return


def _train(
    network: Autoencoder,
    train: Rows,
    held: Rows,
    options: FitOptions,
    progress: Progress | None,
    pattern: MissingPattern | None,
) -> tuple[int, list[tuple[int, float]]]:
    """Leaves the weights to keep in `network`; returns their step and the held-out losses.

    With patience they are the best ones, and the fit ends after so many measurements without better ones; without it
    they are the last.
    """
    count, patience = len(train.numeric), options.patience
    generator = torch.Generator().manual_seed(options.seed)
    rate, decay = options.learning_rate, options.weight_decay
    optimizer = OPTIMIZERS[options.optimizer](network.parameters(), lr=rate, weight_decay=decay)
    compute = _compiled(options)
    epoch = count // options.batch if options.drop_last else -(-count // options.batch)
    steps = min(bound for bound in (options.steps, options.epochs and options.epochs * epoch) if bound)
    factors = None if pattern is None else pattern.share
    how = {"loss": options.loss, "reduction": options.reduction, "beta": options.beta, "factors": factors}
    corrupted = partial(
        corrupt,
        generator=generator,
        kind=options.noise_kind,
        noise=options.noise,
        swap=options.swap,
        pattern=pattern,
    )
    held_noisy, noisy = held, None
    if options.is_denoising:
        # Corrupted once: a loss that was drawn anew at each measurement could not be compared with the one before.
        others = held.take(torch.randperm(len(held.numeric), generator=generator))
        held_noisy = corrupted(held, others)
    losses: list[tuple[int, float]] = []
    best_step, best_loss, best_state, stale = 0, float("inf"), network.state_dict(), 0
    for step, (chosen, is_measured) in enumerate(_batches(count, options, generator), 1):
        rows = train.take(chosen)
        if options.is_denoising:
            others = train.take(torch.randint(count, (len(chosen),), generator=generator))
            noisy = corrupted(rows, others)
        loss = compute(network, rows, noisy, **how)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch ships no type for it
        optimizer.step()
        if not is_measured:
            continue
        held_loss = _measured(network.eval(), held, held_noisy, factors)
        network.train()
        if not np.isfinite(held_loss):
            raise DataError(
                f"the loss is not finite after {step} steps: lower [model.learning_rate] "
                f"({options.learning_rate}; allowed is {RANGES['learning_rate']})"
            )
        losses.append((step, held_loss))
        if progress:
            progress(step, steps, held_loss)
        if not patience:
            best_step = step
        elif held_loss < best_loss:
            best_step, best_loss, stale = step, held_loss, 0
            best_state = {name: value.clone() for name, value in network.state_dict().items()}
        elif (stale := stale + 1) == patience:
            break
    network.load_state_dict(best_state)  # without patience these are the network's own
    return best_step, losses


@torch.no_grad()
def _measured(network: Autoencoder, held: Rows, noisy: Rows, factors: Tensor | None) -> float:
    """Mean squared error per row, with a factor on each column where there are some."""
    if factors is not None:
        return weighed_squares(factors)(network, network.encode(*noisy), held).mean().item()
    if network.has_linear_output:
        return network.squared_errors(network.encode(*noisy), *held).mean().item()
    total, size = 0.0, max(1, MAX_CELLS // network.layout.columns)
    for start in range(0, len(held.numeric), size):  # every one-hot column is computed: some of the rows at a time
        part = slice(start, start + size)
        total += network.squared_errors(network.encode(*noisy.take(part)), *held.take(part)).sum().item()
    return total / len(held.numeric)


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
