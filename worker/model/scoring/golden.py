"""Golden rows: a few encoded records and the scores that the fitting machine gave them.

Checksums say that a bundle holds what was written. These say that this machine, with its libraries and its code,
makes of it what the fitting machine made of it.
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

ROWS = 64
RELATIVE = 1e-3
ABSOLUTE = 1e-5  # a score of nearly zero is a difference of large float32 numbers


@dataclass(frozen=True, slots=True)
class Golden:
    """numeric: float32 (R, N); category_ids: int32 (R, C); scores: float64 (R,); R is at most 64."""

    numeric: NDArray[np.float32]
    category_ids: NDArray[np.int32]
    scores: FloatArray

    def tensors(self) -> dict[str, Tensor]:
        """For the weights file."""
        return {
            "golden.numeric": torch.from_numpy(self.numeric),
            "golden.category_ids": torch.from_numpy(self.category_ids),
            "golden.scores": torch.from_numpy(self.scores),
        }

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
    chosen = np.unique(np.linspace(0, len(numeric) - 1, min(ROWS, len(numeric))).round().astype(np.int64))
    picked = np.ascontiguousarray(numeric[chosen]), np.ascontiguousarray(category_ids[chosen])
    return Golden(*picked, scorer.score(*picked))


def golden_from(tensors: Mapping[str, Tensor]) -> Golden | None:
    """The golden rows of a weights file, None where an earlier release wrote it."""
    if "golden.scores" not in tensors:
        return None
    numeric, category_ids, scores = (
        tensors[f"golden.{name}"].numpy() for name in ("numeric", "category_ids", "scores")
    )
    return Golden(numeric, category_ids, scores)
