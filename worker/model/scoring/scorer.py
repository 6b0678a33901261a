"""Score rows with a network that stays on its device, in one fixed shape.

A row's score can differ in its last bits with the shape of the batch that it travels in. So every row is scored in a
tile of the same shape (the last one padded), and scores are rounded to 6 significant digits before anybody compares or
publishes them: the same record has the same score whatever the batching.

Some layer sizes leave a remainder to the matrix kernels of a CPU, and then the place in the tile matters, too: each
network is tried once, and where a place changes a bit, it is computed in float64, whose last bits are far below the
sixth digit.
"""

import copy
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.errors import SettingsError
from worker.model.network.autoencoder import Autoencoder, Layout
from worker.model.scoring.score import Score, raw_scores
from worker.records import FloatArray

SIGNIFICANT_DIGITS = 6
CPU_TILE_ROWS = 512
CUDA_TILE_ROWS = 8192
DENSE_CELLS = 1 << 22
"""Most cells of a tile where every one-hot column is computed: 16 MiB, so that a wide vocabulary fits into memory."""


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


PROBE_SHIFTS = (1, 6, 19)


def dense_rows(most: int, columns: int) -> int:
    """Rows of a tile with all its columns computed: a power of two, 32 to `most`."""
    fitting = max(DENSE_CELLS // max(columns, 1), 32)
    return min(most, 1 << (fitting.bit_length() - 1))


class Compute:
    """The raw scores of one tile, on the device that the network is on."""

    def __init__(self, network: Autoencoder, score: Score, weights: FloatArray | None) -> None:
        """weights: factors on the errors of each numeric column and each block, float64 (N + C,)."""
        where = network.table.device
        quick = score.without_onehot(network)
        square, linear, constant = network.gram()
        gram = (square.clone(), linear.clone(), constant.clone()) if quick else None
        columns = None
        if weights is not None:
            widths = torch.tensor([1] * network.layout.numeric + list(network.layout.widths))
            columns = torch.from_numpy(weights).float().repeat_interleave(widths).to(where)
        self._run = partial(raw_scores, network, kind=score.kind, gram=gram, weights=columns)

    def __call__(self, numeric: Tensor, category_ids: Tensor) -> Tensor:
        """Raw scores (T,) of rows (T, N), (T, C)."""
        return self._run(numeric, category_ids)


class Engine(Protocol):
    """One tile through the network. The result is only valid until the next call."""

    rows: int

    def run(self, numeric: NDArray[np.float32], category_ids: NDArray[np.int32]) -> NDArray[Any]:
        """Raw scores (T,), float32 or float64, of one tile (T, N), (T, C); T = rows."""


class CpuEngine:
    """The network on the CPU."""

    def __init__(self, network: Autoencoder, score: Score, weights: FloatArray | None) -> None:
        quick = score.without_onehot(network)
        self.rows = CPU_TILE_ROWS if quick else dense_rows(CPU_TILE_ROWS, network.layout.columns)
        self._type = torch.float32
        with torch.inference_mode():
            self._compute = Compute(network, score, weights)
            if not self._is_steady(network.layout):
                self._type = torch.float64
                self._compute = Compute(copy.deepcopy(network).double(), score, weights)

    @torch.inference_mode()
    def run(self, numeric: NDArray[np.float32], category_ids: NDArray[np.int32]) -> NDArray[Any]:
        """See Engine."""
        raw: NDArray[Any] = self._compute(
            torch.from_numpy(numeric).to(self._type), torch.from_numpy(category_ids)
        ).numpy()
        return raw

    def _is_steady(self, layout: Layout) -> bool:
        """Whether rows have the same raw scores to the bit wherever they stand in a tile."""
        rng = np.random.default_rng(0)
        numeric = rng.normal(size=(self.rows, layout.numeric)).astype(np.float32)
        category_ids = rng.integers(0, layout.widths or 1, (self.rows, len(layout.widths)), np.int32)
        found = self.run(numeric, category_ids)
        moved = (np.roll(self.run(np.roll(numeric, by, 0), np.roll(category_ids, by, 0)), -by) for by in PROBE_SHIFTS)
        return all(np.array_equal(again, found, equal_nan=True) for again in moved)


class CudaEngine:
    """The network on a GPU: one copy in from pinned memory, a replayed CUDA graph, one copy out."""

    def __init__(self, network: Autoencoder, device: torch.device, score: Score, weights: FloatArray | None) -> None:
        network = copy.deepcopy(network).to(device)  # explanations go on with the one on the CPU
        quick = score.without_onehot(network)
        self.rows = CUDA_TILE_ROWS if quick else dense_rows(CUDA_TILE_ROWS, network.layout.columns)
        self._numeric_columns = network.layout.numeric
        width = self._numeric_columns + len(network.layout.widths)
        self._pinned = torch.zeros((self.rows, width), dtype=torch.int32, pin_memory=True)
        self._pinned_out = torch.zeros(self.rows, dtype=torch.float32, pin_memory=True)
        self._packed = torch.zeros((self.rows, width), dtype=torch.int32, device=device)
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch ships no type for it
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            self._compute = Compute(network, score, weights)
            for _ in range(3):  # cuBLAS picks and allocates before the capture
                self._forward()
            self._stream.synchronize()
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=self._stream):
                self._out = self._forward()

    def _forward(self) -> Tensor:
        numeric = self._packed[:, : self._numeric_columns].contiguous().view(torch.float32)
        return self._compute(numeric, self._packed[:, self._numeric_columns :])

    def run(self, numeric: NDArray[np.float32], category_ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """See Engine."""
        packed = self._pinned.numpy()
        packed[:, : self._numeric_columns] = numeric.view(np.int32)
        packed[:, self._numeric_columns :] = category_ids
        with torch.cuda.stream(self._stream):
            self._packed.copy_(self._pinned, non_blocking=True)
            self._graph.replay()
            self._pinned_out.copy_(self._out, non_blocking=True)
            self._stream.synchronize()
        raw: NDArray[np.float32] = self._pinned_out.numpy()
        return raw


class Scorer:
    """Rows in, scores out; see `worker.model.scoring.score` for what a score is.

    fields: those that a mean is taken over. weights: factors on the errors of each numeric column and each block,
    float64 (N + C,), None = 1 each.
    """

    def __init__(
        self,
        network: Autoencoder,
        fields: int,
        device: str = "cpu",
        *,
        score: Score = Score(),  # noqa: B008  # frozen
        weights: FloatArray | None = None,
    ) -> None:
        where = resolve_device(device)
        self._layout = network.layout
        self._fields = fields
        self._score = score
        self._engine: Engine = (
            CpuEngine(network, score, weights) if where.type == "cpu" else CudaEngine(network, where, score, weights)
        )
        self._numeric = np.zeros((self._engine.rows, self._layout.numeric), np.float32)
        self._codes = np.zeros((self._engine.rows, len(self._layout.widths)), np.int32)

    def score(self, numeric: NDArray[np.float32], category_ids: NDArray[np.int32]) -> FloatArray:
        """Scores float64 (B,) of rows (B, N), (B, C), rounded to 6 significant digits; B = 0 is fine."""
        raw = np.empty(len(numeric), np.float64)
        tile = self._engine.rows
        for start in range(0, len(numeric), tile):
            part = slice(start, start + tile)
            raw[part] = self._tile(numeric[part], category_ids[part])
        return round_significant(self._score.finish(raw, self._fields))

    def _tile(self, numeric: NDArray[np.float32], category_ids: NDArray[np.int32]) -> NDArray[Any]:
        count = len(numeric)
        if count < self._engine.rows:
            self._numeric[:count], self._codes[:count] = numeric, category_ids
            self._numeric[count:], self._codes[count:] = 0, 0
            numeric, category_ids = self._numeric, self._codes
        return self._engine.run(np.ascontiguousarray(numeric), np.ascontiguousarray(category_ids))[:count]
