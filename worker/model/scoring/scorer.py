"""What a network says of rows: scores, latents, reconstructions; the same in whatever batch a record comes."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.errors import SettingsError
from worker.model.network.autoencoder import Autoencoder, Rows
from worker.model.scoring.score import SCORES, RowErrors, Score, Weighed
from worker.model.scoring.usual import Weighing
from worker.records import FloatArray

# Tiles and rounding: why a score does not depend on the batch.
#
# Promise. A record that is read again (after a crash, a rebalance, in a replay with other batch sizes) has the same
# score to the bit. Thresholds are learned from scores and compared with them, so a last bit that differs can become an
# alert that is there in one run and missing in the other; the recorded state of a partition would not fit its records.
#
# One shape. Matrix kernels are chosen by the shape of their operands, and each adds up in its own order: a row alone
# and the same row among 8,192 differ in the last bits. So every row goes through the network in a tile of one shape,
# the last tile padded with zeros.
#
# Six digits. float32 holds a bit more than seven. The last one is noise of the order of addition, and differs between
# processors, BLAS versions and a GPU. Rounding hides that difference from people and from comparisons. It is no
# replacement for the one shape: a value that lies between two six-digit numbers would still fall to either side.
#
# float64, sometimes. Where a layer's size is no multiple of the vector width, a CPU kernel leaves rows at the end of a
# block to other code, and then the place of a row in its tile counts, too. No rule tells which sizes do on which
# processor, so each network is probed once, with the same rows at shifted places. Where a bit moves, it is computed in
# float64 (at about half the speed): the noise is then nine digits below the rounded one.
#
# Revisit when torch has batch-invariant matrix kernels: then the padding and the probe can go, the rounding stays.

SIGNIFICANT_DIGITS = 6
CPU_TILE_ROWS = 512
CUDA_TILE_ROWS = 8192
RECONSTRUCTION_TILE_ROWS = 32
MAX_CELLS = 1 << 22
"""Cells of a tile where every one-hot column is computed: 16 MiB, so that a wide vocabulary fits into memory."""
PROBE_SHIFTS = (1, 6, 19)


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
    unknown = f"[device] = {name!r}: one of auto, cpu, cuda, cuda:N"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SettingsError(unknown) from error
    if device.type not in {"cpu", "cuda"}:
        raise SettingsError(unknown)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingsError(f"[device] = {name!r}: {torch.cuda.device_count()} CUDA devices are visible here")
    return device


def tile_rows(max_rows: int, network: Autoencoder, score: Score, weighing: Weighing | None) -> int:
    """Rows of a tile: `max_rows`, or a power of two from 32 up where many of its columns are computed."""
    columns, last = network.layout.columns, network.architecture.hidden[-1]
    if score.without_onehot(network):
        optional = [] if weighing is None else weighing.optional.nonzero()[:, 0].tolist()
        columns = sum(min(network.layout.widths[place], last + 1) for place in optional)
    fitting = max(MAX_CELLS // max(columns, 1), 32)
    return min(max_rows, 1 << (fitting.bit_length() - 1))


def tiles(
    numeric: NDArray[np.float32], category_ids: NDArray[np.int32], rows: int
) -> Iterator[tuple[slice, NDArray[np.float32], NDArray[np.int32]]]:
    """Rows (B, N), (B, C) in tiles of one shape, the last one padded with zeros: where each belongs, and the tile."""
    for start in range(0, len(numeric), rows):
        part = slice(start, min(start + rows, len(numeric)))
        yield part, _padded(numeric[part], rows), _padded(category_ids[part], rows)


def _padded(values: NDArray[Any], rows: int) -> NDArray[Any]:
    if len(values) == rows:
        return np.ascontiguousarray(values)
    tile = np.zeros((rows, values.shape[1]), values.dtype)
    tile[: len(values)] = values
    return tile


Compute = Callable[[Tensor, Tensor], Tensor]
"""Rows (T, N), (T, C) to raw scores (T,), on the device that the network is on."""


def raw_scores(network: Autoencoder, score: Score, weighing: Weighing | None) -> Compute:
    """The raw scores of a tile."""
    weighed, kind = Weighed.of(network, weighing, every_column=not score.without_onehot(network)), SCORES[score.kind]
    return lambda *rows: kind.raw(RowErrors(weighed, Rows(*rows)))


class CpuEngine:
    """The network on the CPU."""

    def __init__(self, network: Autoencoder, score: Score, weighing: Weighing | None) -> None:
        layout = network.layout
        self.rows = tile_rows(CPU_TILE_ROWS, network, score, weighing)
        self._type = torch.float32
        rng = np.random.default_rng(0)
        numeric = rng.normal(size=(self.rows, layout.numeric)).astype(np.float32)
        category_ids = rng.integers(0, layout.widths or 1, (self.rows, len(layout.widths)), np.int32)
        with torch.inference_mode():
            self._compute = raw_scores(network, score, weighing)
            raw = self.run(numeric, category_ids)
            for by in PROBE_SHIFTS:
                moved = self.run(np.roll(numeric, by, 0), np.roll(category_ids, by, 0))
                if not np.array_equal(np.roll(moved, -by), raw, equal_nan=True):
                    self._type = torch.float64
                    self._compute = raw_scores(copy.deepcopy(network).double(), score, weighing)
                    break

    @torch.inference_mode()
    def run(self, numeric: NDArray[np.float32], category_ids: NDArray[np.int32]) -> NDArray[Any]:
        """Raw scores (T,), float32 or float64, of one tile (T, N), (T, C); T = rows. Valid until the next call."""
        raw = self._compute(torch.from_numpy(numeric).to(self._type), torch.from_numpy(category_ids))
        scores: NDArray[Any] = raw.numpy()
        return scores


class CudaEngine:
    """The network on a GPU: one copy in from pinned memory, a replayed CUDA graph, one copy out."""

    def __init__(self, network: Autoencoder, device: torch.device, score: Score, weighing: Weighing | None) -> None:
        network = copy.deepcopy(network).to(device)  # explanations go on with the one on the CPU
        self.rows = tile_rows(CUDA_TILE_ROWS, network, score, weighing)
        self._numeric_columns = network.layout.numeric
        width = self._numeric_columns + len(network.layout.widths)
        self._pinned = torch.zeros((self.rows, width), dtype=torch.int32, pin_memory=True)
        self._pinned_out = torch.zeros(self.rows, dtype=torch.float32, pin_memory=True)
        self._packed = torch.zeros((self.rows, width), dtype=torch.int32, device=device)
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch ships no type for it
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            self._compute = raw_scores(network, score, weighing)
            for _ in range(3):  # cuBLAS picks and allocates before the capture
                self._forward()
            self._stream.synchronize()
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=self._stream):
                self._out = self._forward()

    def _forward(self) -> Tensor:
        numeric = self._packed[:, : self._numeric_columns].contiguous().view(torch.float32)
        return self._compute(numeric, self._packed[:, self._numeric_columns :])

    def run(self, numeric: NDArray[np.float32], category_ids: NDArray[np.int32]) -> NDArray[Any]:
        """Raw scores (T,), float32, of one tile (T, N), (T, C); T = rows. Valid until the next call."""
        packed = self._pinned.numpy()
        packed[:, : self._numeric_columns] = numeric.view(np.int32)
        packed[:, self._numeric_columns :] = category_ids
        with torch.cuda.stream(self._stream):
            self._packed.copy_(self._pinned, non_blocking=True)
            self._graph.replay()
            self._pinned_out.copy_(self._out, non_blocking=True)
            self._stream.synchronize()
        raw: NDArray[Any] = self._pinned_out.numpy()
        return raw


class Scorer:
    """Rows in, scores out; see worker.model.scoring.score for what a score is.

    network   stays on its device; a scorer has buffers, so one thread at a time uses it
    fields    number of fields that a mean is taken over
    device    `auto`, `cpu`, `cuda` or `cuda:N`
    score     which error, in which range
    weighing  factors on the errors; None = 1 each, absent fields among them
    """

    def __init__(
        self,
        network: Autoencoder,
        fields: int,
        device: str = "cpu",
        *,
        score: Score = Score(),  # noqa: B008  # frozen
        weighing: Weighing | None = None,
    ) -> None:
        resolved = resolve_device(device)
        self._fields, self._score = fields, score
        self._engine = (
            CpuEngine(network, score, weighing)
            if resolved.type == "cpu"
            else CudaEngine(network, resolved, score, weighing)
        )

    def score(self, numeric: NDArray[np.float32], category_ids: NDArray[np.int32]) -> FloatArray:
        """Scores float64 (B,) of rows (B, N), (B, C), rounded to 6 significant digits; B = 0 is fine."""
        raw = np.empty(len(numeric), np.float64)
        for part, numbers, ids in tiles(numeric, category_ids, self._engine.rows):
            raw[part] = self._engine.run(numbers, ids)[: part.stop - part.start]
        return round_significant(self._score.finish(raw, self._fields))


class LatentEncoder:
    """The latent of records, on the CPU in float64: of a variational network the means."""

    def __init__(self, network: Autoencoder) -> None:
        self._network = copy.deepcopy(network).cpu().double().eval()
        self.width = network.architecture.latent

    @torch.inference_mode()
    def latent(self, numeric: NDArray[np.float32], category_ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """Latents float32 (B, L) of rows (B, N), (B, C), rounded as scores are; B = 0 is fine."""
        latents = np.empty((len(numeric), self.width), np.float32)
        for start in range(0, len(numeric), CPU_TILE_ROWS):
            part = slice(start, start + CPU_TILE_ROWS)
            tile = torch.from_numpy(numeric[part]).double(), torch.from_numpy(category_ids[part])
            latents[part] = round_significant(self._network.latent(*tile).numpy())
        return latents


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """The network's expectations of A rows.

    numeric          expected values, float64 (A, N), still transformed and scaled
    numeric_errors   squared errors of the numbers, float64 (A, N)
    category_errors  squared errors of the one-hot blocks, float64 (A, C)
    expected_ids     the most probable category of each block, int64 (A, C); unknown (id 0) is left out
    """

    numeric: FloatArray
    numeric_errors: FloatArray
    category_errors: FloatArray
    expected_ids: NDArray[np.int64]

    def field_errors(self, numeric_fields: tuple[str, ...], category_fields: tuple[str, ...]) -> dict[str, FloatArray]:
        """Squared error of each field, (A,), over all of its columns."""
        errors: dict[str, FloatArray] = {}
        for columns, fields in ((self.numeric_errors, numeric_fields), (self.category_errors, category_fields)):
            for j, name in enumerate(fields):
                errors[name] = errors.get(name, np.zeros(len(columns))) + columns[:, j]
        return errors


class Reconstructor:
    """A network on the CPU, asked what it would have expected: for alerts only, over all columns."""

    def __init__(self, network: Autoencoder) -> None:
        self._network = network

    @torch.inference_mode()
    def rows(self, numeric: NDArray[np.float32], category_ids: NDArray[np.int32]) -> Reconstruction:
        """Reconstruct rows (A, N), (A, C); A = 0 is fine."""
        layout, shape = self._network.layout, (len(numeric), self._network.layout.numeric)
        blocks = (len(numeric), len(layout.widths))
        result = Reconstruction(np.empty(shape), np.empty(shape), np.empty(blocks), np.empty(blocks, np.int64))
        for part, *tile in tiles(numeric, category_ids, RECONSTRUCTION_TILE_ROWS):
            size, (numbers, ids) = part.stop - part.start, map(torch.from_numpy, tile)
            expected, output = self._network.outputs(self._network.encode(numbers, ids))  # (T, N), (T, K)
            result.numeric[part] = expected[:size].numpy()
            result.numeric_errors[part] = (expected - numbers).square()[:size].numpy()
            for j, (first, width) in enumerate(zip(layout.offsets, layout.widths, strict=True)):
                block = output[:, first : first + width]
                errors = (block - torch.nn.functional.one_hot(ids[:, j].long(), width)).square().sum(1)
                result.category_errors[part, j] = errors[:size].numpy()
                result.expected_ids[part, j] = block[:size, 1:].argmax(1).numpy() + 1 if width > 1 else 0
        return result
