"""What a score is: the error of a row as one number, and the range that it is brought to.

    relative   squared error of each field that the record has, in multiples of what it usually is, see `relative`
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
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from worker.features.learned import UNKNOWN_ID
from worker.model.network.autoencoder import Autoencoder, Gram, Rows, WeighedForms, kl_divergence
from worker.model.scoring.usual import Weighing
from worker.records import FloatArray
from worker.registry import Registry


class Weighed(NamedTuple):
    """What the errors of rows are made of, prepared once.

    weighing  factors on the fields, of the network's type and on its device; None = 1 each, absent fields among them
    column    place of each input column's factor, int (N + K,); None where no column is computed or has a factor
    gram      of the network without factors, forms with them; None where every column is computed
    """

    network: Autoencoder
    weighing: Weighing | None
    column: Tensor | None
    gram: Gram | None
    forms: WeighedForms | None

    @classmethod
    def of(cls, network: Autoencoder, weighing: Weighing | None, *, every_column: bool) -> "Weighed":
        """Prepare a network; every_column: whether the score needs the errors of single columns."""
        if weighing is None:
            return cls(network, None, None, None if every_column else network.gram(), None)
        weighing = weighing.to(network.table)
        if not every_column:
            return cls(network, weighing, None, None, network.weighed_forms(weighing.factors, weighing.optional))
        widths = torch.tensor([1] * network.layout.numeric + list(network.layout.widths))
        column = torch.arange(len(widths)).repeat_interleave(widths).to(network.table.device)
        return cls(network, weighing, column, None, None)


class RowErrors:
    """What a score can be made of: the errors of B rows, each kind computed where it is asked for.

    Factors on the fields are in the errors already.
    """

    def __init__(self, weighed: Weighed, rows: Rows) -> None:
        self._network, self._weighing, self._column, self._gram, self._forms = weighed
        self._rows = rows

    @cached_property
    def _hidden(self) -> Tensor:
        return self._network.encode(*self._rows)

    @property
    def weighing(self) -> Weighing:
        """The factors on the fields; TypeError where there are none."""
        if self._weighing is None:
            raise TypeError("errors without a weighing")
        return self._weighing

    @cached_property
    def present(self) -> Tensor:
        """1 where a row has a column's field, else 0: (B, N + C), or (1, N + C) for all rows."""
        return self.weighing.present(*self._rows)

    def squared(self) -> Tensor:
        """Squared error summed over the columns, (B,): without a one-hot column where that is possible."""
        if self._weighing is None:
            return self._network.squared_errors(self._hidden, *self._rows, self._gram)
        factors = self.present * self.weighing.factors
        if self._forms is not None:
            return self._network.weighed_errors(self._hidden, *self._rows, factors, self._forms)
        return (self._network.residual(self._hidden, *self._rows).square() * factors[:, self._column]).sum(1)

    def absolute(self) -> Tensor:
        """Absolute error of every column, (B, N + K)."""
        errors = self._network.residual(self._hidden, *self._rows).abs()
        return errors if self._weighing is None else errors * self.weighing.factors[self._column]

    def unknown(self) -> Tensor:
        """What the values count that the fit never met, (B,)."""
        return (self._rows.category_ids == UNKNOWN_ID).to(self.weighing.unknown.dtype) @ self.weighing.unknown

    def divergence(self) -> Tensor:
        """Divergence of a variational latent from the standard normal, (B,)."""
        return kl_divergence(*self._network.latent_distribution(*self._rows))


def relative(errors: RowErrors) -> Tensor:
    """How far the errors of a record's own fields lie above what is usual of them, (B,).

        e   squared error of a field, m its mean over the h held-out records that have the field, s the root of the mean
            of its square over them and a made-up one with an error of 3,
            times the root of the sum, over the fields, of the squared correlation of their errors with its own, as far
            as it is positive: fields that err together are not counted as if each of them were news,
            times the root of 1 + 400 / h, over the same for a field that all have: the noise of many rare fields would
            drown what the others say
        u   of a value that no record of the fit had 1 / sqrt(chance that a value is new), else 0
        n   fields of the record, N of a record on average, L the mean of m / s

        score = L + (sum over the record's fields of (e - m) / s + u) / sqrt(n N)

    Where every record has every field that is the mean of e / s, and u. So a field that nobody can predict adds little
    but its level, and one that is nearly always right counts as much when it is wrong as it is rarely wrong. A record
    of many fields is no stranger than one of few: the mean of its sum is taken off, and the root of n is the width that
    is left if the fields err independently. Absent fields say nothing: which they are is a category of its own.

    It works badly for a field that was seldom there in the fit, which needs a large error to count at all, and where
    the held-out records hold many anomalies in one field, which raise what is usual of it.
    """
    weighing = errors.weighing
    beyond = errors.squared() - errors.present @ weighing.usual + errors.unknown()
    return weighing.level + beyond / (errors.present @ weighing.first * weighing.typical).sqrt()


@dataclass(frozen=True, slots=True)
class ScoreKind:
    """How errors become a score.

    raw                errors of B rows to raw scores (B,), on the network's device
    score              raw scores, float64 (B,), none below 0, and the number of fields to scores (B,)
    needs_onehot       whether `raw` asks for errors of single columns, so that a wide vocabulary costs time
    needs_variational  whether `raw` asks for the divergence, and for nothing else
    is_relative        whether factors are those of `relative_weighing`
    """

    raw: Callable[[RowErrors], Tensor]
    score: Callable[[FloatArray, int], FloatArray] = lambda raw, _: raw
    needs_onehot: bool = False
    needs_variational: bool = False
    is_relative: bool = False


SCORES: Final[Registry[ScoreKind]] = Registry("score")
SCORES.register("relative", ScoreKind(relative, is_relative=True))
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

    The mean squared error works badly where one field matters that a mean over many drowns (give it a weight, or take
    `relative` or `max`), where records lack most of the fields, and where a category is rare but fine: its error is
    high, because the network seldom met it.

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
        return kind.needs_variational or (not kind.needs_onehot and network.has_linear_output)

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
