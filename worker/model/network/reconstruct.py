"""What the network would have expected of a row: computed for alerts only, over all columns, in tiles of one shape."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from worker.model.network.autoencoder import Autoencoder

TILE_ROWS = 32


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """The network's expectations of A rows.

    numeric          expected values, float64 (A, N), still transformed and scaled
    numeric_errors   squared errors of the numbers, float64 (A, N)
    category_errors  squared errors of the one-hot blocks, float64 (A, C)
    expected_ids     the most probable category of each block, int64 (A, C); unknown (id 0) is left out
    """

    numeric: NDArray[np.float64]
    numeric_errors: NDArray[np.float64]
    category_errors: NDArray[np.float64]
    expected_ids: NDArray[np.int64]

    def field_errors(
        self, numeric_fields: tuple[str, ...], category_fields: tuple[str, ...]
    ) -> dict[str, NDArray[np.float64]]:
        """Squared error of each field, (A,), over all of its columns."""
        errors: dict[str, NDArray[np.float64]] = {}
        for columns, fields in ((self.numeric_errors, numeric_fields), (self.category_errors, category_fields)):
            for j, name in enumerate(fields):
                errors[name] = errors.get(name, np.zeros(len(columns))) + columns[:, j]
        return errors


class Reconstructor:
    """A network on the CPU, asked for its expectations."""

    def __init__(self, network: Autoencoder) -> None:
        self._network = network

    @torch.inference_mode()
    def rows(self, numeric: NDArray[np.float32], category_ids: NDArray[np.int32]) -> Reconstruction:
        """Reconstruct rows (A, N), (A, C); A = 0 is fine."""
        count, layout = len(numeric), self._network.layout
        result = Reconstruction(
            np.empty((count, layout.numeric)),
            np.empty((count, layout.numeric)),
            np.empty((count, len(layout.widths))),
            np.empty((count, len(layout.widths)), np.int64),
        )
        # An explanation must not depend on how many alerts a batch has: see worker.model.scoring.scorer.
        tile = torch.zeros((TILE_ROWS, layout.numeric)), torch.zeros((TILE_ROWS, len(layout.widths)), dtype=torch.int64)
        for start in range(0, count, TILE_ROWS):
            part = slice(start, min(start + TILE_ROWS, count))
            size = part.stop - start
            for padded, rows in zip(tile, (numeric, category_ids), strict=True):
                padded[:size], padded[size:] = torch.from_numpy(rows[part]), 0
            expected, output = self._network.outputs(self._network.encode(*tile))  # (T, N), (T, K)
            result.numeric[part] = expected[:size].numpy()
            result.numeric_errors[part] = (expected - tile[0]).square()[:size].numpy()
            for j, (first, width) in enumerate(zip(layout.offsets, layout.widths, strict=True)):
                block = output[:, first : first + width]
                errors = (block - torch.nn.functional.one_hot(tile[1][:, j], width)).square().sum(1)
                result.category_errors[part, j] = errors[:size].numpy()
                result.expected_ids[part, j] = block[:size, 1:].argmax(1).numpy() + 1 if width > 1 else 0
        return result
