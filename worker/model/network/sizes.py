"""Layer sizes by a rule: the hidden layers of a network for the width of its input.

listed     the hidden layers as the setting lists them
mirrored   the listed ones down to the latent, and back
pyramid    powers of two between the input and the latent: 2**arange(max(ceil(log2 latent), 2), log2 F), and back
halfway    one layer of (F + latent) // 2 between the input and the latent, and back
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from worker.errors import SettingsError
from worker.registry import Registry

MAX_WEIGHTS = 500_000_000
"""Of a network: 2 GB, four times that while it is fitted."""


class Sizes(NamedTuple):
    """What a layer rule starts from.

    columns         F, the input columns
    hidden          the setting's layers
    latent          the setting's width of the latent; None = not set
    keep_innermost  of a pyramid: whether the latent itself is a layer. The published tutorial slices the innermost
                    layer off on both sides, so that its latent is as wide as the smallest power of two: that is False
    """

    columns: int
    hidden: tuple[int, ...]
    latent: int | None
    keep_innermost: bool = True


LayerRule = Callable[[Sizes], tuple[tuple[int, ...], int | None]]
"""To all hidden sizes, and which of them is the latent (None: the narrowest). SettingsError for impossible sizes."""

LAYER_RULES: Registry[LayerRule] = Registry("layer rule")


def listed(sizes: Sizes) -> tuple[tuple[int, ...], int | None]:
    """The hidden layers as they are."""
    if sizes.latent is not None:
        raise SettingsError(
            f"[model.latent] = {sizes.latent}: not with [model.options] layers = 'listed', where the latent is the "
            "narrowest of [model.hidden]; allowed with mirrored, pyramid or halfway"
        )
    return sizes.hidden, None


def mirrored(sizes: Sizes) -> tuple[tuple[int, ...], int | None]:
    """The hidden layers down to the latent, and back."""
    latent = () if sizes.latent is None else (_latent(sizes, "mirrored"),)
    encoder = (*sizes.hidden, *latent)
    if not encoder or any(wide <= narrow for wide, narrow in pairwise(encoder)):
        raise SettingsError(
            f"[model.hidden] = {list(sizes.hidden)}{f' and [model.latent] = {sizes.latent}' if latent else ''}: "
            "with [model.options] layers = 'mirrored' each layer must be narrower than the one before it"
        )
    return _and_back(encoder)


def pyramid(sizes: Sizes) -> tuple[tuple[int, ...], int | None]:
    """Powers of two from the input down to the latent, and back."""
    columns, latent = sizes.columns, _latent(sizes, "pyramid")
    powers = tuple(int(2**power) for power in np.arange(max(np.ceil(np.log2(latent)), 2), np.log2(columns)))[::-1]
    if not powers and not sizes.keep_innermost:
        raise SettingsError(
            f"[model.options] keep_innermost = False: there is no power of two between the latent ({latent}) and the "
            f"{columns} input columns, so no layer would be left; allowed is True"
        )
    return _and_back((*powers, latent) if sizes.keep_innermost else powers)


def halfway(sizes: Sizes) -> tuple[tuple[int, ...], int | None]:
    """One layer between the input and the latent, and back."""
    latent = _latent(sizes, "halfway")
    return _and_back(((sizes.columns + latent) // 2, latent))


for _rule in (listed, mirrored, pyramid, halfway):
    LAYER_RULES.register(_rule.__name__, _rule)


def _latent(sizes: Sizes, rule: str) -> int:
    columns = sizes.columns
    if sizes.latent is None:
        raise SettingsError(f"[model.options] layers = {rule!r}: needs [model.latent], allowed is 1 to {columns - 1}")
    if not 1 <= sizes.latent < columns:
        raise SettingsError(
            f"[model.latent] = {sizes.latent}: allowed is 1 to {columns - 1}, less than the {columns} input columns "
            "of these records"
        )
    return sizes.latent


def _and_back(encoder: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    return (*encoder, *encoder[-2::-1]), len(encoder) - 1


def require_small(columns: int, hidden: Sequence[int]) -> None:
    """SettingsError where a network of these sizes would not fit into memory: some layers grow with the input."""
    sizes = (columns, *hidden, columns)
    weights = sum(wide * narrow for wide, narrow in pairwise(sizes))
    if weights > MAX_WEIGHTS:
        raise SettingsError(
            f"[model.hidden] with [model.options] layers: {'-'.join(map(str, sizes))} has {weights / 1e6:,.0f} million "
            f"weights, allowed are {MAX_WEIGHTS / 1e6:,.0f} million: fewer units, or a smaller vocabulary "
            "(max_values in the schema)"
        )
