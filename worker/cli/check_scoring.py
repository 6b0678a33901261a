"""Lines of `worker check` about models: the recipe for the next one, what the one in force costs, its thresholds."""

import time
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.model.scoring.scorer import Scorer
    from worker.model.store.bundle import Bundle
    from worker.settings import Settings, ThresholdSettings

ROWS = 4096
ROUNDS = 3


def recipe(bundle: "Bundle | None", settings: "Settings") -> str:
    """What the next fit will be, with its layers where a model tells the input width.

    SettingsError where values do not go together, or do not fit that width.
    """
    from worker.processes.wiring import fit_options

    options = fit_options(settings.model, settings.seed)
    name = f"preset {options.preset}, {options.preprocessing} scaling, {options.loss} loss, {options.score} score"
    if bundle is None:
        return name
    columns = bundle.network.layout.columns
    layers = options.architecture(columns).written(columns)
    return f"{name}; layers for the {columns} columns of the model in force: {layers}"


def scoring(bundle: "Bundle", device: str) -> str:
    """Whether every one-hot column has to be computed, and what that costs at this vocabulary, measured here."""
    from worker.model.network.autoencoder import Autoencoder
    from worker.model.scoring.score import Score
    from worker.model.scoring.scorer import Scorer

    network = bundle.network
    layout, kind = network.layout, network.architecture
    what = f"{bundle.score.kind} of a {kind.output} output, layers {kind.written(layout.columns)}"
    now = _microseconds(bundle.scorer(device), bundle)
    if bundle.score.without_onehot(network):
        return f"{what}: no one-hot column is computed; {now:.1f} µs a record"
    like = Autoencoder(layout, replace(kind, output="linear", variational=False)).eval()
    without = _microseconds(Scorer(like, len(bundle.fields), device, score=Score()), bundle)
    return (
        f"{what}: all {sum(layout.widths):,} one-hot columns are computed for each record: {now:.1f} µs a record, "
        f"{without:.1f} without them (a linear output with mse, rmse or euclidean and no field weights needs none)"
    )


def _microseconds(scorer: "Scorer", bundle: "Bundle") -> float:
    """Time of a record in a batch of 4,096 made-up ones, the best of three."""
    import numpy as np

    layout = bundle.network.layout
    draw = np.random.default_rng(0)
    numeric = draw.random((ROWS, layout.numeric), np.float32)
    category_ids = draw.integers(0, layout.widths or 1, (ROWS, len(layout.widths)), np.int32)
    took = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        scorer.score(numeric, category_ids)
        took.append(time.perf_counter() - started)
    return min(took) / ROWS * 1e6


def threshold(bundle: "Bundle", settings: "ThresholdSettings") -> str:
    """The rule in force, and who asks for it."""
    from worker.processes.wiring import threshold_factory

    rule = threshold_factory(settings).rule_for(bundle.rule)
    theta = rule.theta(bundle.training)
    asked = "WORKER_THRESHOLD__RULE" if settings.rule else "as the model asks"
    if theta is None:
        return f"rolling quantile {settings.quantile:g} of {settings.window:,} scores, {asked}"
    above = float((bundle.training > theta).mean())
    return f"{theta:.6g} for good, by the rule {rule.name}, {asked}; {above:.2%} of the training records lie above it"
