"""Layer sizes from a rule: what a network's hidden layers are for a given input width.

listed     the hidden layers as they are given
mirrored   the given ones down to the latent, and back
pyramid    powers of two between the input and the latent: 2**arange(max(ceil(log2 latent), 2), log2 F), and back
halfway    one layer of (F + latent) // 2 between the input and the latent, and back
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from worker.errors import SettingsError

RULES = ("listed", "mirrored", "pyramid", "halfway")
MOST_WEIGHTS = 500_000_000
"""Of a network: 2 GB, four times that while it is fitted."""


def hidden_layers(
    rule: str, columns: int, hidden: Sequence[int], latent: int | None, *, keep_innermost: bool = True
) -> tuple[tuple[int, ...], int | None]:
    """All hidden sizes for F = `columns` input columns, and which of them is the latent (None: the narrowest).

    keep_innermost: of a pyramid. The published tutorial slices the innermost layer off on both sides, so that its
    latent is as wide as the smallest power of two, not `latent`: that is False. SettingsError for impossible sizes.
    """
    if rule == "listed":
        if latent is not None:
            raise SettingsError(
                f"WORKER_MODEL__LATENT = {latent}: not with WORKER_MODEL__LAYERS = 'listed', where the latent is the "
                "narrowest of WORKER_MODEL__HIDDEN; allowed with mirrored, pyramid or halfway"
            )
        return tuple(hidden), None
    encoder = _encoder(rule, columns, hidden, latent, keep_innermost=keep_innermost)
    return (*encoder, *encoder[-2::-1]), len(encoder) - 1


def _encoder(
    rule: str, columns: int, hidden: Sequence[int], latent: int | None, *, keep_innermost: bool
) -> tuple[int, ...]:
    """The sizes from the input down to the latent."""
    if latent is not None and not 1 <= latent < columns:
        raise SettingsError(
            f"WORKER_MODEL__LATENT = {latent}: allowed is 1 to {columns - 1}, less than the {columns} input columns "
            "of these records"
        )
    if rule == "mirrored":
        sizes = (*hidden, *(() if latent is None else (latent,)))
        if not sizes or any(wide <= narrow for wide, narrow in pairwise(sizes)):
            raise SettingsError(
                f"WORKER_MODEL__HIDDEN = {list(hidden)}{'' if latent is None else f' and LATENT = {latent}'}: "
                "with WORKER_MODEL__LAYERS = 'mirrored' each layer must be narrower than the one before it"
            )
        return sizes
    if latent is None:
        raise SettingsError(
            f"WORKER_MODEL__LAYERS = {rule!r}: needs WORKER_MODEL__LATENT, allowed is 1 to {columns - 1}"
        )
    if rule == "halfway":
        return (columns + latent) // 2, latent
    powers = tuple(int(2**power) for power in np.arange(max(np.ceil(np.log2(latent)), 2), np.log2(columns)))[::-1]
    if not powers and not keep_innermost:
        raise SettingsError(
            f"WORKER_MODEL__KEEP_INNERMOST = False: there is no power of two between the latent ({latent}) and the "
            f"{columns} input columns, so no layer would be left; allowed is True"
        )
    return (*powers, latent) if keep_innermost else powers


def require_small(columns: int, hidden: Sequence[int]) -> None:
    """SettingsError where a network of these sizes would not fit into memory: some layers grow with the input."""
    sizes = (columns, *hidden, columns)
    weights = sum(wide * narrow for wide, narrow in pairwise(sizes))
    if weights > MOST_WEIGHTS:
        raise SettingsError(
            f"WORKER_MODEL__HIDDEN, WORKER_MODEL__LAYERS: {'-'.join(map(str, sizes))} has {weights / 1e6:,.0f} million "
            f"weights, allowed are {MOST_WEIGHTS / 1e6:,.0f} million: fewer units, or a smaller vocabulary "
            "(max_values in the schema)"
        )
