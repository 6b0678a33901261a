"""Missing patterns: which fields a record lacks, or can't be read, as one category of the model's input.

In most topics few sets of fields are missing together, and each of them is a pattern. Where sorts of records have
fields of their own, of which some come and go as they like, hardly any set comes twice: there a pattern stands for a
cluster of records, says of some fields that all of the cluster have or lack them, and leaves the others free.

A set is F bits, 1 where a field is missing. Where records hold unexpected values it is 2 F bits: a field whose value
can't be read is not missing, and has 1 among the second F.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from worker.features.kinds.base import Column
from worker.features.learned import MissingPattern
from worker.records import BoolArray

# Each pattern is a row of the model's embedding and of its output and learns from the records that have it: without a
# bound, a topic of sparse records would give most of the network to patterns that were seen once.
MAX_PATTERNS = 64
MAX_SINGLE = 0.01
"""Share of rows whose set of missing fields no other row has, up to which each set is a pattern. It is about the chance
that the next record has a set that no row had (Good 1953): such records are strange only where they are rare."""
MIN_SINGLE = 10  # rows; of fewer a share says nothing
MAX_ODD = 0.005  # share of a cluster's rows that may be otherwise in the fields that its pattern decides
MIN_OTHER = 5.0  # rows of a cluster that would be otherwise in a field, as in others, for none to mean something
MAX_CLUSTERED = 4000  # sets
MAX_COMPARED = 1000  # fields; of more, those that come and go most. Both bound the time of a fit


class Difference(NamedTuple):
    """Names of the fields of a set that are otherwise than a pattern says: missing, there, unexpected."""

    lacks: tuple[str, ...]
    extra: tuple[str, ...]
    unexpected: tuple[str, ...]


class Patterns:
    """The missing patterns of a model, to be looked up.

    names      the encoded fields, F of them
    patterns   P patterns; a set of missing fields fits one of them at most
    """

    def __init__(self, names: Sequence[str], patterns: Sequence[MissingPattern]) -> None:
        self.names, self.patterns = tuple(names), tuple(patterns)
        place_of = {name: place for place, name in enumerate(self.names)}
        self._unset = np.ones((len(self.patterns), 2 * len(self.names)), np.float32)  # (P, 2 F): a pattern wants 0
        self._set = np.zeros_like(self._unset)  # it wants 1
        for place, pattern in enumerate(self.patterns):
            for start, ones, free in (
                (0, pattern.absent, pattern.free),
                (len(self.names), pattern.unexpected, pattern.free_unexpected),
            ):
                self._set[place, [start + place_of[name] for name in ones]] = 1
                self._unset[place, [start + place_of[name] for name in (*ones, *free)]] = 0

    def differences(self, sets: BoolArray) -> NDArray[np.int64]:
        """How many bits of each set, (B, F) or (B, 2 F), are otherwise than each pattern says, int64 (B, P)."""
        weights = (self._unset - self._set)[:, : sets.shape[1]]
        whole: NDArray[np.int64] = (sets.astype(np.float32) @ weights.T + self._set.sum(1)).astype(np.int64)
        return whole

    def against(self, bits: BoolArray, pattern: int) -> Difference:
        """How a set, (F,) or (2 F,), differs from a pattern."""
        size = len(self.names)
        bits = np.pad(bits, (0, 2 * size - len(bits)))
        more = (bits & (self._unset[pattern] == 1)).reshape(2, size)
        less = (~bits & (self._set[pattern] == 1)).reshape(2, size)
        unexpected = more[1]
        extra = (less[0] | less[1]) & ~unexpected & ~bits[:size]
        return Difference(*(tuple(self.names[at] for at in np.flatnonzero(of)) for of in (more[0], extra, unexpected)))

    def find(self, columns: Sequence[Column], count: int) -> NDArray[np.int64]:
        """The pattern of each of `count` rows, its place among the patterns or -1, int64 (B,)."""
        sets, of_row = missing_sets(columns, count)
        differences = self.differences(sets)
        nearest = differences.argmin(1) if len(self.patterns) else np.zeros(len(sets), np.int64)
        fits = np.take_along_axis(differences, nearest[:, None], 1)[:, 0] == 0
        places: NDArray[np.int64] = np.where(fits, nearest, -1)[of_row]
        return places


def missing_sets(columns: Sequence[Column], count: int) -> tuple[BoolArray, NDArray[np.int64]]:
    """The different sets of encoded fields that `count` rows lack, bool (S, F), or (S, 2 F) where there are unexpected
    values, and the place of each row's, (B,).
    """
    encoded = [column for column in columns if column.field.encoded]
    all_bits = [
        column.missing if column.missing is None or column.unexpected is None else column.missing & ~column.unexpected
        for column in encoded
    ]
    unexpected = [column.unexpected for column in encoded]
    if any(bits is not None for bits in unexpected):
        all_bits += unexpected
    gaps = [place for place, bits in enumerate(all_bits) if bits is not None]
    if not gaps:
        return np.zeros((min(count, 1), len(encoded)), bool), np.zeros(count, np.int64)
    bits = np.stack([bits for bits in all_bits if bits is not None], axis=1)
    # A batch has few different sets: each is spelled out once, and a row costs one look-up by its packed bits.
    packed = np.packbits(bits, axis=1)
    keys = packed.view(f"V{packed.shape[1]}").ravel().tolist()
    place_of: dict[bytes, int] = {}
    of_row = np.fromiter((place_of.setdefault(key, len(place_of)) for key in keys), np.int64, count)
    sets = np.zeros((len(place_of), len(all_bits)), bool)
    distinct = np.frombuffer(b"".join(place_of), np.uint8).reshape(len(place_of), -1)
    sets[:, gaps] = np.unpackbits(distinct, axis=1, count=len(gaps)).astype(bool)
    return sets, of_row


def fit_patterns(columns: Sequence[Column], count: int) -> tuple[MissingPattern, ...]:
    """The missing patterns of `count` rows, at most 64, most frequent first.

    Each set of missing fields is a pattern where there are at most 64 of them and nearly all rows share theirs with
    another one. Else they are clustered by a tree: its node splits the rows by whether they lack one field, the one
    that tells most of the other fields, as long as that pays for what the two halves have to remember (the Bayesian
    information criterion). A leaf is a pattern: it says of a field what holds for nearly all of its rows, and leaves
    the field free where that depends, or where the leaf has too few rows to tell.

    It works badly where a field that comes and goes as it likes is anomalous by being there: in a leaf it is free. And
    where sorts of records lack the same fields they are one leaf, which is right: nothing tells them apart by this.

    >>> import random
    >>> from worker.features.schema import parse_schema, read_columns
    >>> schema = parse_schema("\\n".join(f"[fields.f{n}]\\nkind = 'numeric'" for n in range(20)))
    >>> draw = random.Random(0)
    >>> rows = [{f"f{n}": 1 for n in range(20) if n < 10 or draw.random() < 0.5} for _ in range(500)]
    >>> [(pattern.absent, len(pattern.free)) for pattern in fit_patterns(read_columns(schema, rows)[0], 500)]
    [((), 10)]

    Blockeel, H., De Raedt, L., Ramon, J. (1998): Top-down induction of clustering trees. ICML. Schwarz, G. (1978):
    Estimating the dimension of a model. Annals of Statistics 6. Good, I. J. (1953): The population frequencies of
    species and the estimation of population parameters. Biometrika 40.
    """
    names = [column.field.name for column in columns if column.field.encoded]
    sets, of_row = missing_sets(columns, count)
    rows = np.bincount(of_row, minlength=len(sets))
    single = int((rows == 1).sum())
    if len(sets) <= MAX_PATTERNS and not (single >= MIN_SINGLE and single > MAX_SINGLE * count):
        sizes, absent, free = rows, sets, np.zeros_like(sets)
    else:
        sizes, absent, free = _clusters(sets, rows)
    patterns = []
    for size, ones, open_ in zip(sizes.tolist(), absent, free, strict=True):
        places = [
            np.flatnonzero(bits[half])
            for half in (slice(len(names)), slice(len(names), None))
            for bits in (ones, open_)
        ]
        patterns.append((-size, *(tuple(sorted(names[at] for at in of)) for of in places)))
    return tuple(MissingPattern(*listed) for _, *listed in sorted(patterns))


def _clusters(sets: BoolArray, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], BoolArray, BoolArray]:
    """Size of each cluster (L,), its absent and its free fields (L, F), of sets (S, F) that so many rows have, (S,)."""
    leaves = _leaves(sets, rows)
    sizes = np.array([rows[leaf].sum() for leaf in leaves])
    lacking = np.stack([rows[leaf] @ sets[leaf] for leaf in leaves])  # (L, F) rows
    odd = np.minimum(lacking, sizes[:, None] - lacking)  # rows that are otherwise than most of their leaf
    order = np.argsort(odd, 1, kind="stable")
    odd_so_far = np.take_along_axis(odd, order, 1).cumsum(1)
    decided = np.zeros_like(lacking, bool)
    np.put_along_axis(decided, order, odd_so_far <= MAX_ODD * sizes[:, None], 1)
    # A field that is free elsewhere, and by its share there would be otherwise in a row or two here, is free here, too.
    free_rows = np.maximum((sizes[:, None] * ~decided).sum(0), 1)
    share = (lacking * ~decided).sum(0) / free_rows  # (F,) of lacking it
    absent = 2 * lacking > sizes[:, None]
    other = sizes[:, None] * np.where(absent, 1 - share, share)
    free = ~decided | ((~decided).any(0) & (other < MIN_OTHER))
    return sizes, absent & ~free, free


def _leaves(sets: BoolArray, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Places of the sets (S, F) in each leaf of the tree; rows: how many rows have each, (S,)."""
    growing = [np.arange(len(sets))]
    splits = [_split(sets, rows, growing[0])]
    while len(growing) < MAX_PATTERNS:
        best = max(range(len(growing)), key=lambda at: splits[at][0])
        if splits[best][0] <= 0:
            break
        leaf, field = growing.pop(best), splits.pop(best)[1]
        for half in (leaf[sets[leaf, field]], leaf[~sets[leaf, field]]):
            growing.append(half)
            splits.append(_split(sets, rows, half))
    return growing


def _split(sets: BoolArray, rows: NDArray[np.int64], leaf: NDArray[np.int64]) -> tuple[float, int]:
    """What the best split of a leaf gains, in nats, and the field that it splits by; 0 or less: none pays."""
    part = leaf if len(leaf) <= MAX_CLUSTERED else leaf[np.linspace(0, len(leaf) - 1, MAX_CLUSTERED).astype(np.int64)]
    weights = rows[part].astype(np.float64)
    total, lacking = weights.sum(), weights @ sets[part]
    odd = np.minimum(lacking, total - lacking)
    varying = np.argsort(-odd, kind="stable")[: min(int((odd > 0).sum()), MAX_COMPARED)]
    if len(varying) < 2:
        return 0.0, -1
    bits = sets[np.ix_(part, varying)].astype(np.float32)
    both = (bits.T @ (bits * weights[:, None].astype(np.float32))).astype(np.float64) / total
    share = lacking[varying] / total
    mutual = np.zeros_like(both)  # information of each pair of fields, in nats
    for joint, one, other in (
        (both, share, share),
        (share[:, None] - both, share, 1 - share),
        (share[None, :] - both, 1 - share, share),
        (1 - share[:, None] - share[None, :] + both, 1 - share, 1 - share),
    ):
        mutual += joint * np.log(np.maximum(joint, 1e-12) / np.outer(one, other))
    np.fill_diagonal(mutual, 0.0)
    gain = rows[leaf].sum() * mutual.sum(1) - 0.5 * (len(varying) - 1) * np.log(total)
    best = int(gain.argmax())
    return float(gain[best]), int(varying[best])
