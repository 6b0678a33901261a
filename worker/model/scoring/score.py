"""What a score is: the error of a row as one number, and the range that it is brought to.

    mse        mean over the record's fields of the squared error; a one-hot block is one field, however wide
    rmse       its square root
    mae        mean over the fields of the absolute error
    sum-l1     absolute error summed over the columns
    euclidean  distance between a row and its reconstruction, over all columns
    max        the highest absolute error of a column
    kl         divergence of a variational latent from the standard normal

Another one is a file with one `SCORES.register(...)`; the settings read their names from there.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from operator import truediv
from typing import Final

import numpy as np
from torch import Tensor

from worker.model.network.autoencoder import Autoencoder, Gram, Rows, kl_divergence
from worker.records import FloatArray
from worker.registry import Registry


class RowErrors:
    """What a score can be made of: the errors of B rows, each kind computed where it is asked for.

    Factors on the fields are in the errors already.
    """

    def __init__(self, network: Autoencoder, rows: Rows, gram: Gram | None, weights: Tensor | None) -> None:
        self._network, self._rows, self._gram, self._weights = network, rows, gram, weights

    @cached_property
    def _hidden(self) -> Tensor:
        return self._network.encode(*self._rows)

    def squared(self) -> Tensor:
        """Squared error summed over the columns, (B,): without a one-hot column where that is possible."""
        if self._weights is None:
            return self._network.squared_errors(self._hidden, *self._rows, self._gram)
        return (self._network.residual(self._hidden, *self._rows).square() * self._weights).sum(1)

    def absolute(self) -> Tensor:
        """Absolute error of every column, (B, N + K)."""
        errors = self._network.residual(self._hidden, *self._rows).abs()
        return errors if self._weights is None else errors * self._weights

    def divergence(self) -> Tensor:
        """Divergence of a variational latent from the standard normal, (B,)."""
        return kl_divergence(*self._network.latent_distribution(*self._rows))


@dataclass(frozen=True, slots=True)
class ScoreKind:
    """How errors become a score.

    raw                errors of B rows to raw scores (B,), on the network's device
    score              raw scores, float64 (B,), none below 0, and the number of fields to scores (B,)
    needs_onehot       whether `raw` asks for errors of single columns, so that a wide vocabulary costs time
    needs_variational  whether `raw` asks for the divergence, and for nothing else
    """

    raw: Callable[[RowErrors], Tensor]
    score: Callable[[FloatArray, int], FloatArray] = lambda raw, _: raw
    needs_onehot: bool = False
    needs_variational: bool = False


SCORES: Final[Registry[ScoreKind]] = Registry("score")
SCORES.register("mse", ScoreKind(RowErrors.squared, truediv))
SCORES.register("rmse", ScoreKind(RowErrors.squared, lambda raw, fields: np.sqrt(raw / fields)))
SCORES.register("mae", ScoreKind(lambda errors: errors.absolute().sum(1), truediv, needs_onehot=True))
SCORES.register("sum-l1", ScoreKind(lambda errors: errors.absolute().sum(1), needs_onehot=True))
SCORES.register("euclidean", ScoreKind(RowErrors.squared, lambda raw, _: np.sqrt(raw)))
SCORES.register("max", ScoreKind(lambda errors: errors.absolute().amax(1), needs_onehot=True))
SCORES.register("kl", ScoreKind(RowErrors.divergence, needs_variational=True))


@dataclass(frozen=True, slots=True)
class Score:
    """Which error, weighed how, in which range. SettingsError for a kind that is not registered.

    The mean squared error, the default, works badly where one field matters that a mean over many drowns (give it a
    weight, or take `max`), and where a category is rare but fine: its error is high, because the network seldom met it.

        kind      a name in SCORES
        weights   (field, factor on its errors); fields that it leaves out: 1
        low, high the scores that become 0 and 1; what is beyond 1 stays, what is below 0 is 0. None = as they are.
                  With `scale_score` they are the lowest and highest score of the training records; a refit brings its
                  scores to the unit of the version before it in the same way

    >>> Score("rmse").finish(np.array([12.0, 0.0]), fields=3).tolist()
    [2.0, 0.0]
    >>> Score("sum-l1", low=1.0, high=3.0).finish(np.array([0.5, 2.0, 7.0]), fields=3).tolist()
    [0.0, 0.5, 3.0]

    Sakurada, M., Yairi, T. (2014): Anomaly detection using autoencoders with nonlinear dimensionality reduction. MLSDA.
    """

    kind: str = "mse"
    weights: tuple[tuple[str, float], ...] = ()
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        SCORES[self.kind]

    def without_onehot(self, network: Autoencoder) -> bool:
        """Whether the score of this network needs no one-hot column, so that the vocabulary's width costs nothing."""
        kind = SCORES[self.kind]
        return kind.needs_variational or (not kind.needs_onehot and network.has_linear_output and not self.weights)

    @property
    def _range(self) -> tuple[float, float]:
        """The score that becomes 0, and how far above it the one is that becomes 1."""
        if self.low is None or self.high is None:
            return 0.0, 1.0
        # Training scores that are all the same have no range: then their unit stays.
        return self.low, self.high - self.low if self.high > self.low else 1.0

    def times(self, factor: float) -> "Score":
        """The same error with scores `factor` times as high, above 0."""
        low, span = self._range
        return replace(self, low=low, high=low + span / factor)

    def finish(self, raw: FloatArray, fields: int) -> FloatArray:
        """Scores (B,) from raw scores (B,)."""
        scores = SCORES[self.kind].score(np.maximum(raw, 0.0), fields)
        if self.low is None:
            return scores
        low, span = self._range
        scaled: FloatArray = np.maximum((scores - low) / span, 0.0)
        return scaled
