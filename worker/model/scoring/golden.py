"""Golden rows: some encoded records and the scores that the machine gave them that fitted the model.

Checksums say that a bundle holds what was written. Golden rows say that this machine, with its libraries and its code,
makes of it what the fitting machine made of it: they find a worker whose encoding or network has changed meaning
between two releases, a miscompiled kernel, a GPU that computes in another precision.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.errors import BundleError
from worker.model.scoring.scorer import Scorer
from worker.records import FloatArray

MAX_ROWS = 64
RELATIVE = 1e-3
ABSOLUTE = 1e-5  # a score of nearly zero is a difference of large float32 numbers, see Autoencoder.block_errors


@dataclass(frozen=True, slots=True)
class Golden:
    """R rows, at most 64, and their scores.

    They say little about inputs that none of them has: a category that only other rows hold, a value far outside. A
    fault that shifts scores by less than a thousandth passes.

    numeric       float32 (R, N)
    category_ids  int32 (R, C)
    scores        float64 (R,)

    >>> from worker.model.network.autoencoder import Architecture, Autoencoder, Layout
    >>> scorer = Scorer(Autoencoder(Layout(2, (5,)), Architecture((4,))).eval(), fields=3)
    >>> golden = golden_of(scorer, np.ones((500, 2), np.float32), np.ones((500, 1), np.int32))
    >>> len(golden.scores)
    64
    >>> golden.check(scorer, "models/3f9a0c51d2e4")  # no BundleError

    Breck, E. et al. (2017): The ML test score: a rubric for ML production readiness. IEEE Big Data. (Tests that a model
    scores the same in training and in serving.)
    """

    numeric: NDArray[np.float32]
    category_ids: NDArray[np.int32]
    scores: FloatArray

    def tensors(self) -> dict[str, Tensor]:
        """For the weights file."""
        return {f"golden.{name}": torch.from_numpy(getattr(self, name)) for name in self.__slots__}

    def check(self, scorer: Scorer, where: str) -> None:
        """BundleError, naming the bundle, where the scorer gives other scores or none that are finite."""
        scores = scorer.score(self.numeric, self.category_ids)
        if not np.isfinite(scores).all():
            raise BundleError(f"{where}: scores of its golden rows are not finite")
        off = np.abs(scores - self.scores) > RELATIVE * np.abs(self.scores) + ABSOLUTE
        if off.any():
            row = int(off.argmax())
            raise BundleError(
                f"{where}: {off.sum()} of {len(off)} golden rows score otherwise than on the machine that fitted it "
                f"(row {row}: {scores[row]:.6g}, there {self.scores[row]:.6g}; allowed are {RELATIVE:.1%})"
            )


def golden_of(scorer: Scorer, numeric: NDArray[np.float32], category_ids: NDArray[np.int32]) -> Golden:
    """Up to 64 rows, evenly spaced among these (B, N), (B, C), and their scores."""
    chosen = np.unique(np.linspace(0, len(numeric) - 1, min(MAX_ROWS, len(numeric))).round().astype(np.int64))
    rows = np.ascontiguousarray(numeric[chosen]), np.ascontiguousarray(category_ids[chosen])
    return Golden(*rows, scorer.score(*rows))


def golden_from(tensors: Mapping[str, Tensor]) -> Golden | None:
    """The golden rows of a weights file, None where it has none."""
    if "golden.scores" not in tensors:
        return None
    return Golden(*(tensors[f"golden.{name}"].numpy() for name in Golden.__slots__))
