"""Score rows with a network that stays on its device, in one fixed shape.

A row's score can differ in its last bits with the shape of the batch that it travels in. So every row is scored in a
tile of the same shape (the last one padded), and scores are rounded to 6 significant digits before anybody compares or
publishes them: the same record has the same score whatever the batching.
"""

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.errors import SettingsError
from worker.model.autoencoder import Autoencoder
from worker.records import FloatArray

SIGNIFICANT_DIGITS = 6
CPU_TILE_ROWS = 512
CUDA_TILE_ROWS = 8192


def round_significant(values: FloatArray, digits: int = SIGNIFICANT_DIGITS) -> FloatArray:
    """Values to `digits` significant decimal digits, float64; zero stays zero."""
    with np.errstate(divide="ignore"):
        exponent = np.floor(np.log10(np.abs(values)))
    power = digits - 1 - np.where(np.isfinite(exponent), exponent, 0).astype(np.int64)
    up, down = 10.0 ** np.maximum(power, 0), 10.0 ** np.maximum(-power, 0)  # exact powers: a negative one is not
    rounded: FloatArray = np.round(values * up / down) * down / up
    return rounded


def resolve_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:N` to a device; SettingsError where it isn't there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SettingsError(f"WORKER_DEVICE = {name!r}: one of auto, cpu, cuda, cuda:N") from error
    if device.type not in {"cpu", "cuda"}:
        raise SettingsError(f"WORKER_DEVICE = {name!r}: one of auto, cpu, cuda, cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingsError(f"WORKER_DEVICE = {name!r}: {torch.cuda.device_count()} CUDA devices are visible here")
    return device


class Engine(Protocol):
    """One tile through the network. The result is only valid until the next call."""

    rows: int

    def run(self, numeric: NDArray[np.float32], codes: NDArray[np.int32]) -> NDArray[np.float32]:
        """Summed squared errors (T,) of one tile (T, N), (T, C); T = rows."""


class CpuEngine:
    """The network on the CPU."""

    rows = CPU_TILE_ROWS

    def __init__(self, network: Autoencoder) -> None:
        self._network = network
        with torch.inference_mode():
            self._gram = tuple(part.clone() for part in network.gram())

    @torch.inference_mode()
    def run(self, numeric: NDArray[np.float32], codes: NDArray[np.int32]) -> NDArray[np.float32]:
        """See Engine."""
        errors: NDArray[np.float32] = tile_errors(
            self._network, torch.from_numpy(numeric), torch.from_numpy(codes), self._gram
        ).numpy()
        return errors


def tile_errors(network: Autoencoder, numeric: Tensor, codes: Tensor, gram: tuple[Any, ...]) -> Tensor:
    """Summed squared errors (T,), with the network's G computed once outside."""
    hidden = network.encode(numeric, codes)
    total: Tensor = (network.out_numeric(hidden) - numeric).square().sum(1)
    if network.layout.widths:
        total = total + network.block_errors(hidden, codes, (gram[0], gram[1], gram[2]))
    return total


class CudaEngine:
    """The network on a GPU: one copy in from pinned memory, a replayed CUDA graph, one copy out."""

    rows = CUDA_TILE_ROWS

    def __init__(self, network: Autoencoder, device: torch.device) -> None:
        self._network = network.to(device)
        self._numeric_columns = network.layout.numeric
        width = self._numeric_columns + len(network.layout.widths)
        self._pinned = torch.zeros((self.rows, width), dtype=torch.int32, pin_memory=True)
        self._pinned_out = torch.zeros(self.rows, dtype=torch.float32, pin_memory=True)
        self._packed = torch.zeros((self.rows, width), dtype=torch.int32, device=device)
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch ships no type for it
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            self._gram = tuple(part.clone() for part in self._network.gram())
            for _ in range(3):  # cuBLAS picks and allocates before the capture
                self._forward()
            self._stream.synchronize()
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=self._stream):
                self._out = self._forward()

    def _forward(self) -> Tensor:
        numeric = self._packed[:, : self._numeric_columns].contiguous().view(torch.float32)
        return tile_errors(self._network, numeric, self._packed[:, self._numeric_columns :], self._gram)

    def run(self, numeric: NDArray[np.float32], codes: NDArray[np.int32]) -> NDArray[np.float32]:
        """See Engine."""
        packed = self._pinned.numpy()
        packed[:, : self._numeric_columns] = numeric.view(np.int32)
        packed[:, self._numeric_columns :] = codes
        with torch.cuda.stream(self._stream):
            self._packed.copy_(self._pinned, non_blocking=True)
            self._graph.replay()
            self._pinned_out.copy_(self._out, non_blocking=True)
            self._stream.synchronize()
        errors: NDArray[np.float32] = self._pinned_out.numpy()
        return errors


class Scorer:
    """Rows in, scores out: the mean over the record's fields of the squared reconstruction error.

    A one-hot block counts as one field however wide it is, so 70 categories don't drown 38 numbers.
    """

    def __init__(self, network: Autoencoder, fields: int, device: str = "cpu") -> None:
        where = resolve_device(device)
        self._layout = network.layout
        self._fields = max(fields, 1)
        self._engine: Engine = CpuEngine(network) if where.type == "cpu" else CudaEngine(network, where)
        self._numeric = np.zeros((self._engine.rows, self._layout.numeric), np.float32)
        self._codes = np.zeros((self._engine.rows, len(self._layout.widths)), np.int32)

    def score(self, numeric: NDArray[np.float32], codes: NDArray[np.int32]) -> FloatArray:
        """Scores float64 (B,) of rows (B, N), (B, C), rounded to 6 significant digits; B = 0 is fine."""
        errors = np.empty(len(numeric), np.float64)
        tile = self._engine.rows
        for start in range(0, len(numeric), tile):
            part = slice(start, start + tile)
            errors[part] = self._tile(numeric[part], codes[part])
        return round_significant(np.maximum(errors, 0.0) / self._fields)

    def _tile(self, numeric: NDArray[np.float32], codes: NDArray[np.int32]) -> NDArray[np.float32]:
        count = len(numeric)
        if count < self._engine.rows:
            self._numeric[:count], self._codes[:count] = numeric, codes
            self._numeric[count:], self._codes[count:] = 0, 0
            numeric, codes = self._numeric, self._codes
        return self._engine.run(np.ascontiguousarray(numeric), np.ascontiguousarray(codes))[:count]
