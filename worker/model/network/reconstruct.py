"""What the network would have expected of a row: computed for alerts only, by the dense path, in tiles of one shape."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from worker.model.network.autoencoder import Autoencoder

TILE_ROWS = 32


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """Of A rows. numeric: expected values, float64 (A, N), still transformed and scaled; numeric_errors: (A, N) and
    category_errors: (A, C), squared errors; expected_ids: int64 (A, C), the most probable category of each block,
    unknown (code 0) left out."""

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

    def rows(self, numeric: NDArray[np.float32], category_ids: NDArray[np.int32]) -> Reconstruction:
        """Reconstruct rows (A, N), (A, C); A = 0 is fine."""
        layout = self._network.layout
        found = Reconstruction(
            np.empty((len(numeric), layout.numeric)),
            np.empty((len(numeric), layout.numeric)),
            np.empty((len(numeric), len(layout.widths))),
            np.empty((len(numeric), len(layout.widths)), np.int64),
        )
        for start in range(0, len(numeric), TILE_ROWS):
            self._tile(numeric[start : start + TILE_ROWS], category_ids[start : start + TILE_ROWS], found, start)
        return found

    @torch.inference_mode()
    def _tile(
        self, numeric: NDArray[np.float32], category_ids: NDArray[np.int32], found: Reconstruction, start: int
    ) -> None:
        count = len(numeric)
        padded = torch.zeros((TILE_ROWS, numeric.shape[1]))
        padded[:count] = torch.from_numpy(numeric)
        padded_ids = torch.zeros((TILE_ROWS, category_ids.shape[1]), dtype=torch.int64)
        padded_ids[:count] = torch.from_numpy(category_ids)
        expected, errors, blocks, output = self._network.dense(padded, padded_ids)
        part = slice(start, start + count)
        found.numeric[part] = expected[:count].numpy()
        found.numeric_errors[part] = errors[:count].numpy()
        found.category_errors[part] = blocks[:count].numpy()
        layout = self._network.layout
        for j, (first, width) in enumerate(zip(layout.offsets, layout.widths, strict=True)):
            known = output[:count, first + 1 : first + width]  # code 0 means unknown: nobody expects that
            found.expected_ids[part, j] = known.argmax(1).numpy() + 1 if width > 1 else 0
