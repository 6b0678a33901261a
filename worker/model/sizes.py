"""Layer sizes from a rule: what a network's hidden layers are for a given input width.

listed     the hidden layers as they are given
mirrored   the given ones down to the code, and back
pyramid    powers of two between the input and the code: 2**arange(max(ceil(log2 code), 2), log2 F), and back
halfway    one layer of (F + code) // 2 between the input and the code, and back
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from worker.errors import SettingsError

RULES = ("listed", "mirrored", "pyramid", "halfway")
MOST_WEIGHTS = 500_000_000
"""Of a network: 2 GB, four times that while it is fitted."""


def hidden_layers(
    rule: str, columns: int, hidden: Sequence[int], code: int | None, *, keep_innermost: bool = True
) -> tuple[tuple[int, ...], int | None]:
    """All hidden sizes for F = `columns` input columns, and which of them is the code (None: the narrowest).

    keep_innermost: of a pyramid. The published tutorial slices the innermost layer off on both sides, so that its
    code is as wide as the smallest power of two, not `code`: that is False. SettingsError for impossible sizes.
    """
    if rule == "listed":
        if code is not None:
            raise SettingsError(
                f"WORKER_MODEL__CODE = {code}: not with WORKER_MODEL__LAYERS = 'listed', where the code is the "
                "narrowest of WORKER_MODEL__HIDDEN; allowed with mirrored, pyramid or halfway"
            )
        return tuple(hidden), None
    encoder = _encoder(rule, columns, hidden, code, keep_innermost=keep_innermost)
    return (*encoder, *encoder[-2::-1]), len(encoder) - 1


def _encoder(
    rule: str, columns: int, hidden: Sequence[int], code: int | None, *, keep_innermost: bool
) -> tuple[int, ...]:
    """The sizes from the input down to the code."""
    if code is not None and not 1 <= code < columns:
        raise SettingsError(
            f"WORKER_MODEL__CODE = {code}: allowed is 1 to {columns - 1}, less than the {columns} input columns "
            "of these records"
        )
    if rule == "mirrored":
        sizes = (*hidden, *(() if code is None else (code,)))
        if not sizes or any(wide <= narrow for wide, narrow in pairwise(sizes)):
            raise SettingsError(
                f"WORKER_MODEL__HIDDEN = {list(hidden)}{'' if code is None else f' with WORKER_MODEL__CODE = {code}'}: "
                "with WORKER_MODEL__LAYERS = 'mirrored' each layer must be narrower than the one before it"
            )
        return sizes
    if code is None:
        raise SettingsError(f"WORKER_MODEL__LAYERS = {rule!r}: needs WORKER_MODEL__CODE, allowed is 1 to {columns - 1}")
    if rule == "halfway":
        return (columns + code) // 2, code
    powers = tuple(int(2**power) for power in np.arange(max(np.ceil(np.log2(code)), 2), np.log2(columns)))[::-1]
    if not powers and not keep_innermost:
        raise SettingsError(
            f"WORKER_MODEL__KEEP_INNERMOST = False: there is no power of two between the code ({code}) and the "
            f"{columns} input columns, so no layer would be left; allowed is True"
        )
    return (*powers, code) if keep_innermost else powers


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
