"""The whole network in float64 numpy, over real one-hot rows: slow, plain, for every architecture."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from worker.model.network.autoencoder import Architecture, Autoencoder
from worker.model.store.bundle import Bundle
from worker.records import FloatArray

ACTIVATIONS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "identity": lambda x: x,
}


def one_hot_rows(network: Autoencoder, numeric: FloatArray, category_ids: FloatArray) -> FloatArray:
    """[numeric | one-hot], float64 (B, N + K)."""
    layout = network.layout
    blocks = [np.eye(width)[category_ids[:, j].astype(int)] for j, width in enumerate(layout.widths)]
    return np.concatenate([numeric.astype(np.float64), *blocks], 1)


def forward(
    network: Autoencoder, numeric: FloatArray, category_ids: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Rows (B, N + K), what the network makes of them (B, N + K), and their latent (B, L), of a drawn one its mean."""
    weights = {name: value.double().numpy() for name, value in network.state_dict().items()}
    kind, columns = network.architecture, sum(network.layout.widths)
    x = one_hot_rows(network, numeric, category_ids)
    hidden = x @ np.concatenate([weights["first.weight"], weights["table"].T[:, :columns]], 1).T + weights["first.bias"]
    place, latent = 0, np.empty((len(x), 0))
    for layer in range(len(kind.hidden)):
        if layer:
            hidden = hidden @ weights[f"hidden.{place}.weight"].T + weights[f"hidden.{place}.bias"]
            place += 1
        is_latent = layer == kind.latent_index
        if is_latent and kind.variational:
            hidden = hidden[:, : kind.latent]
        else:
            hidden, place = _after(kind, layer, hidden, weights, place)
        latent = hidden if is_latent else latent
    out = [hidden @ weights[f"{part}.weight"].T + weights[f"{part}.bias"] for part in ("out_numeric", "out_categories")]
    answer = np.concatenate([out[0], out[1][:, :columns]], 1)
    return x, ACTIVATIONS[kind.output](answer) if kind.output == "sigmoid" else answer, latent


def _after(
    kind: Architecture, layer: int, hidden: FloatArray, weights: dict[str, FloatArray], place: int
) -> tuple[FloatArray, int]:
    if kind.batch_norm:
        mean, variance = (weights[f"hidden.{place}.running_{name}"] for name in ("mean", "var"))
        hidden = (hidden - mean) / np.sqrt(variance + 1e-5)
        hidden = hidden * weights[f"hidden.{place}.weight"] + weights[f"hidden.{place}.bias"]
        place += 1
    name = (kind.latent_activation if layer == kind.latent_index else None) or kind.activation
    dropped = kind.dropout[0] if len(kind.dropout) == 1 else (*kind.dropout, *[0.0] * 99)[layer]
    return ACTIVATIONS[name](hidden), place + 1 + (dropped > 0)


def raw_score(
    kind: str, x: FloatArray, answer: FloatArray, fields: int, weights: FloatArray | None = None
) -> FloatArray:
    """A score by its definition, before any scaling, float64 (B,). weights: of the columns (N + K,)."""
    w = np.ones(x.shape[1]) if weights is None else weights
    squared, absolute = ((answer - x) ** 2 * w), np.abs(answer - x) * w
    scores: FloatArray = {
        "mse": squared.sum(1) / fields,
        "rmse": np.sqrt(squared.sum(1) / fields),
        "mae": absolute.sum(1) / fields,
        "sum-l1": absolute.sum(1),
        "euclidean": np.sqrt(squared.sum(1)),
        "max": absolute.max(1),
    }[kind]
    return scores


def relative_score(
    bundle: Bundle, numeric: FloatArray, category_ids: FloatArray, weights: Mapping[str, float] = MappingProxyType({})
) -> FloatArray:
    """The relative score by its definition, record by record and field by field, float64 (B,)."""
    x, answer, _ = forward(bundle.network, numeric, category_ids)
    fitted, usual = bundle.fitted, bundle.usual
    names, numbers = list(bundle.fields), len(fitted.numeric)
    factors = [weights.get(name, 1.0) for name in names]
    ratios = [w * m / s for w, m, s in zip(factors, usual.mean, usual.spread, strict=True)]
    typical = sum(usual.share)
    level = sum(ratio * share for ratio, share in zip(ratios, usual.share, strict=True)) / typical
    starts = [numbers, *(numbers + end for end in np.cumsum(fitted.widths))]
    scores = []
    for row in range(len(x)):
        beyond, count = 0.0, 0
        for place, name in enumerate(names):
            at = [column for column, field in enumerate(fitted.numeric_fields) if field == name]
            gaps = [numeric[row, column] == np.float32(fitted.numeric[column].imputed) for column in at]
            for block, field in enumerate(fitted.category_fields):
                if field == name:
                    at += range(starts[block], starts[block + 1])
                    gaps.append(category_ids[row, block] == 1 and name != fitted.missing_pattern)
                    if category_ids[row, block] == 0:
                        beyond += factors[place] / usual.unknown[place] ** 0.5
            if name in fitted.optional and all(gaps):
                continue
            error = sum((answer[row, column] - x[row, column]) ** 2 for column in at)
            beyond += factors[place] * error / usual.spread[place] - ratios[place]
            count += 1
        scores.append(max(level + beyond / (count * typical) ** 0.5, 0.0))
    return np.array(scores)
