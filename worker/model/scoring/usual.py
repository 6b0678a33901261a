"""What is usual of a model's fields, and what becomes of it: factors on their errors, what an absent field counts.

Notation: F fields, N numeric columns, C categorical columns, B rows.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.features.fitted import Fitted
from worker.features.learned import MISSING_ID, UNKNOWN_ID
from worker.records import BoolArray, FloatArray

PRIOR_ERROR = 3.0
"""Squared error of one made-up record that counts with the held-out ones of each field: that of a number at 1.7 times
its scale. A field that was never wrong has a limit."""
RARITY_RECORDS = 400
"""A field that so many of very many held-out records have weighs 0.7 of one that all have, one that ten have 0.16. Many
rare fields would else drown the rest: each is a small noise in all records that have it."""


class Columns:
    """How a row's columns belong to fields, and how a row says that it lacks one.

    names     the fields, in order of their first column
    field     place of each column's field, int (N + C,)
    first     whether it is the field's first column, bool (N + C,)
    imputed   what stands for a missing number, float32 (N,); NaN where no row of the fit lacked the field
    optional  whether an id of a missing value says that the field is absent, bool (C,)
    """

    def __init__(self, fitted: Fitted) -> None:
        of_columns = (*fitted.numeric_fields, *fitted.category_fields)
        self.names = tuple(dict.fromkeys(of_columns))
        place_of = {name: place for place, name in enumerate(self.names)}
        self.field = np.array([place_of[name] for name in of_columns])
        self.first = np.zeros(len(of_columns), bool)
        self.first[np.unique(self.field, return_index=True)[1]] = True
        imputed = [column.imputed if column.field in fitted.optional else np.nan for column in fitted.numeric]
        self.imputed = np.array(imputed, np.float32)
        self.optional = np.array([name in fitted.optional for name in fitted.category_fields], bool)

    def present(self, numeric: NDArray[np.float32], category_ids: NDArray[np.int32]) -> BoolArray:
        """Which fields each row (B, N), (B, C) has, bool (B, F)."""
        here: BoolArray = np.hstack([numeric != self.imputed, (category_ids != MISSING_ID) | ~self.optional])
        return here[:, self.first]  # in order of the first columns, as the names


@dataclass(frozen=True, slots=True)
class Usual:
    """What is usual of each of F fields, all float64 (F,).

    mean      mean squared error of the held-out records that have the field
    spread    root of the mean of its square over them and a made-up one, above 0, times the root of how many fields
              err as it does (k fields that always err together count as the root of k, not as k), and more where few
              records have the field
    share     share of the held-out records that have the field
    unknown   about the chance that the next value is one that no record of the fit had, above 0; 1 without categories

    Good, I. J. (1953): The population frequencies of species and the estimation of population parameters. Biometrika
    40. (The chance of something new: the share of what was seen once.)
    """

    mean: FloatArray
    spread: FloatArray
    share: FloatArray
    unknown: FloatArray


def measure_usual(errors: FloatArray, present: BoolArray, unknown: FloatArray) -> Usual:
    """errors: squared errors of held-out records (H, F); present: which of them have which field; unknown: (F,).

    >>> usual = measure_usual(np.array([[1.0, 0.0], [3.0, 9.0]]), np.array([[True, True], [True, False]]), np.ones(2))
    >>> usual.mean.tolist(), usual.spread.round(2).tolist(), usual.share.tolist()
    ([2.0, 0.0], [2.52, 2.59], [1.0, 0.5])
    """
    rows = present.sum(0)
    there = np.where(present, errors, 0.0)
    spread = np.sqrt((np.square(there).sum(0) + PRIOR_ERROR**2) / (rows + 1))
    spread *= np.sqrt((1 + RARITY_RECORDS / (rows + 1)) / (1 + RARITY_RECORDS / (len(errors) + 1)))
    mean = there.sum(0) / np.maximum(rows, 1)
    centred = np.where(present, errors - mean, 0.0)
    norm = np.sqrt(np.square(centred).sum(0))
    centred /= np.where(norm > 0, norm, 1.0)
    correlation = np.maximum(centred.T @ centred, 0.0)
    np.fill_diagonal(correlation, 1.0)
    return Usual(mean, spread * np.sqrt(np.square(correlation).sum(0)), rows / len(errors), unknown)


def chance_of_unknown(fitted: Fitted, category_ids: NDArray[np.int32]) -> FloatArray:
    """`Usual.unknown` of each categorical column, float64 (C,), from all rows of the fit (R, C)."""
    chances = []
    for column, ids in zip(fitted.categorical, category_ids.T, strict=True):
        counts = np.bincount(ids, minlength=column.width)
        values = counts[column.first :]
        new = counts[UNKNOWN_ID] + (values == 1).sum()
        chances.append((new + 1) / (values.sum() + new + 1))
    return np.array(chances)


class Weighing(NamedTuple):
    """What a score makes of the errors of a row's columns, as tensors of one type on one device.

    factors    on the squared error of each column, (N + C,)
    first      1 for the first column of each field, else 0, (N + C,)
    usual      what the field's errors usually are, by the factor, at its first column, else 0, (N + C,)
    unknown    what a value counts that the fit never met, (C,)
    imputed    see Columns, (N,)
    optional   see Columns, bool (C,)
    typical    how many fields a record has on average
    level      the mean of what they usually are
    is_fixed   whether no row says that it lacks a field
    """

    factors: Tensor
    first: Tensor
    usual: Tensor
    unknown: Tensor
    imputed: Tensor
    optional: Tensor
    typical: float
    level: float
    is_fixed: bool

    def to(self, like: Tensor) -> "Weighing":
        """The same with the type and on the device of another tensor."""
        numbers = {name: getattr(self, name).to(like) for name in ("factors", "first", "usual", "unknown", "imputed")}
        return self._replace(**numbers, optional=self.optional.to(like.device))

    def present(self, numeric: Tensor, category_ids: Tensor) -> Tensor:
        """1 where a row (B, N), (B, C) has a column's field, else 0: (B, N + C), or (1, N + C) for all rows."""
        if self.is_fixed:
            return torch.ones_like(self.factors)[None]
        there = torch.cat([numeric != self.imputed, (category_ids != MISSING_ID) | ~self.optional], 1)
        return there.to(self.factors.dtype)


def plain_weighing(columns: Columns, weights: FloatArray) -> Weighing:
    """Errors times the weights of their fields (F,), absent fields among them."""
    blocks = len(columns.optional)
    return Weighing(
        factors=torch.from_numpy(weights[columns.field]),
        first=torch.from_numpy(1.0 * columns.first),
        usual=torch.zeros(len(columns.field)),
        unknown=torch.zeros(blocks),
        imputed=torch.full((len(columns.imputed),), torch.nan),
        optional=torch.zeros(blocks, dtype=torch.bool),
        typical=len(columns.names),
        level=0.0,
        is_fixed=True,
    )


def relative_weighing(columns: Columns, weights: FloatArray, usual: Usual) -> Weighing:
    """Errors in multiples of their spread, times the weights of their fields (F,); absent fields left out."""
    factors = weights / usual.spread
    field, typical = columns.field, float(usual.share.sum())
    blocks = field[len(columns.imputed) :]
    return Weighing(
        factors=torch.from_numpy(factors[field]),
        first=torch.from_numpy(1.0 * columns.first),
        usual=torch.from_numpy((factors * usual.mean)[field] * columns.first),
        unknown=torch.from_numpy(weights[blocks] / np.sqrt(usual.unknown[blocks])),
        imputed=torch.from_numpy(columns.imputed),
        optional=torch.from_numpy(columns.optional),
        typical=typical,
        level=float(usual.share @ (factors * usual.mean)) / typical,
        is_fixed=bool(np.isnan(columns.imputed).all()) and not columns.optional.any(),
    )
