"""The category_ids of records: what a network keeps of them between its two halves."""

import copy

import numpy as np
import torch
from numpy.typing import NDArray

from worker.model.network.autoencoder import Autoencoder
from worker.model.scoring.scorer import CPU_TILE_ROWS, round_significant


class LatentEncoder:
    """Rows in, category_ids out, on the CPU: of a variational network the means.

    Computed in float64 in tiles of one shape, and rounded to 6 significant digits like scores: a record has the same
    code in whatever batch it comes.
    """

    def __init__(self, network: Autoencoder) -> None:
        self._network = copy.deepcopy(network).cpu().double().eval()
        self.width = network.architecture.latent

    @torch.inference_mode()
    def category_ids(self, numeric: NDArray[np.float32], category_ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """Codes float32 (B, L) of rows (B, N), (B, C); B = 0 is fine."""
        found = np.empty((len(numeric), self.width), np.float32)
        for start in range(0, len(numeric), CPU_TILE_ROWS):
            part = slice(start, start + CPU_TILE_ROWS)
            tile = torch.from_numpy(numeric[part]).double(), torch.from_numpy(category_ids[part])
            found[part] = round_significant(self._network.latent(*tile).numpy())
        return found
