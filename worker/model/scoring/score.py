"""What a score is: the error of a row as one number, and the range that it is brought to.

    mse        mean over the record's fields of the squared error; a one-hot block is one field, however wide
    rmse       its square root
    mae        mean over the fields of the absolute error
    sum-l1     absolute error summed over the columns
    euclidean  distance between a row and its reconstruction, over all columns
    max        largest absolute error of a column
    kl         divergence of a variational code from the standard normal

With `low` and `high`, the scores of the training records, smallest and largest, become 0 and 1: what is beyond 1 stays,
what is below 0 is 0. A refit brings its scores to the unit of the version before it in the same way.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from worker.model.network.autoencoder import Autoencoder, kl_divergence
from worker.records import FloatArray

KINDS = ("mse", "rmse", "mae", "sum-l1", "euclidean", "max", "kl")
SQUARED = frozenset({"mse", "rmse", "euclidean"})


@dataclass(frozen=True, slots=True)
class Score:
    """Which error, weighed how, in which range. weights: (field, factor on its errors); fields that it leaves out: 1.

    low, high: the raw scores that become 0 and 1; None = scores stay as they are.
    """

    kind: str = "mse"
    weights: tuple[tuple[str, float], ...] = ()
    low: float | None = None
    high: float | None = None

    def without_onehot(self, network: Autoencoder) -> bool:
        """Whether the score of this network needs no one-hot column, so that the vocabulary's width costs nothing."""
        return self.kind == "kl" or (self.kind in SQUARED and network.linear and not self.weights)

    def times(self, factor: float) -> "Score":
        """The same error with scores `factor` times as high, above 0."""
        low, high = (0.0, 1.0) if self.low is None or self.high is None else (self.low, self.high)
        span = high - low if high > low else 1.0
        return replace(self, low=low, high=low + span / factor)

    def finish(self, raw: FloatArray, fields: int) -> FloatArray:
        """Scores (B,) from what `raw_scores` found, (B,)."""
        found = np.maximum(raw, 0.0)
        if self.kind in {"mse", "rmse", "mae"}:
            found = found / max(fields, 1)
        if self.kind in {"rmse", "euclidean"}:
            found = np.sqrt(found)
        if self.low is None or self.high is None:
            return found
        # Training scores that are all the same have no range: then their unit stays.
        span = self.high - self.low if self.high > self.low else 1.0
        scaled: FloatArray = np.maximum((found - self.low) / span, 0.0)
        return scaled


def score_from(values: Mapping[str, Any]) -> Score:
    """The score of a manifest."""
    pairs = tuple((str(name), float(weight)) for name, weight in values["weights"])
    return Score(values["kind"], pairs, values["low"], values["high"])


def raw_scores(
    network: Autoencoder,
    numeric: Tensor,
    category_ids: Tensor,
    *,
    kind: str,
    gram: tuple[Tensor, Tensor, Tensor] | None,
    weights: Tensor | None,
) -> Tensor:
    """Summed squared, summed absolute or largest absolute errors, or divergences, float32 (B,).

    gram: of the network, computed once, for the way without one-hot columns; None = the dense way.
    weights: factors on the columns' errors (N + K,); None = 1 each.
    """
    if kind == "kl":
        return kl_divergence(*network.heads(numeric, category_ids))
    hidden = network.encode(numeric, category_ids)
    if gram is not None:
        total: Tensor = (network.out_numeric(hidden) - numeric).square().sum(1)
        return total + network.block_errors(hidden, category_ids, gram) if network.layout.widths else total
    errors = network.residual(hidden, numeric, category_ids)
    errors = errors.square() if kind in SQUARED else errors.abs()
    if weights is not None:
        errors = errors * weights
    return errors.amax(1) if kind == "max" else errors.sum(1)
