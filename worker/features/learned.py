"""What a fit learns about single fields: the columns of numbers and categories, what is usual in them."""

import math
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from hashlib import blake2b
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.features.scaling import CYCLE, Scaling
from worker.records import FloatArray
from worker.texts import MAX_SHOWN, quoted, shortened, significant

MISSING_PATTERN = "(missing fields)"  # the name of the missing patterns' categorical column, as if it were a field
PATTERN_KIND = "presence"
ADDRESS_KIND = "address"
UNKNOWN_ID, MISSING_ID = 0, 1
ANY_VALUE = "=*"  # ends the member of a set that stands for a key with values that hardly repeat


class Special(StrEnum):
    """Category ids that stand for no value of the data, in words."""

    UNKNOWN = "never seen before"
    MISSING = "missing"
    OTHER = "a rare value"


@dataclass(frozen=True)
class NumericColumn:
    """One column of the model's numeric input.

    field       name of the field that it belongs to
    part        which of the field's numbers: "value", "length" of a text, "hour_sin", "hour_cos", "weekday_sin", …
    transform, center, scale, knee   see Scaling
    whole       all values at fit were whole numbers
    imputed     stands for a missing value, scaled
    """

    field: str
    part: str
    transform: str
    center: float
    scale: float
    whole: bool = False
    knee: bool = True
    imputed: float = 0.0

    @property
    def scaling(self) -> Scaling:
        """How it was scaled."""
        return Scaling(self.transform, self.center, self.scale, self.knee)


def coarse(column: NumericColumn, x: FloatArray, preprocessing: str) -> NumericColumn:
    """The column of a redacted field with a scaling that holds no record's value: the center is moved by up to a
    sixteenth of the scale, the ends of "minmax" by up to an eighth, outwards. A constant keeps its magnitude only.

    x   the values that the column was fitted on, float64 (n,)
    """
    if column.transform == CYCLE or not len(x):
        return column
    constant = bool((x == x[0]).all())
    size = max(column.scale, abs(column.center)) if constant else column.scale
    step = 2.0 ** math.floor(math.log2(size / 8))  # sums and multiples of powers of two are exact
    if preprocessing == "minmax":
        low = math.floor(column.center / step) * step
        scale = math.ceil((column.center + column.scale - low) / step) * step
        imputed = significant((column.center + column.imputed * column.scale - low) / scale, 2)
        return replace(column, center=low, scale=scale, imputed=imputed)
    scale = significant(max(column.scale, step), 2)
    return replace(column, center=round(column.center / step) * step, scale=scale)


@dataclass(frozen=True)
class MissingPattern:
    """Which fields a record lacks, and which hold an unexpected value, one that can't be read. All names are sorted.

    absent            those that all records of this pattern lack; they have all others
    free              those that it says nothing of
    unexpected        those whose value all records of this pattern hold in a form that can't be read
    free_unexpected   those of which it says nothing in this respect
    """

    absent: tuple[str, ...] = ()
    free: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    free_unexpected: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = ("without", self.absent), ("unexpected", self.unexpected)
        return "; ".join(f"{word} {shortened(names)}" for word, names in parts if names) or "all fields present"

    @property
    def is_whole(self) -> bool:
        """Whether its records have all fields."""
        return not (self.absent or self.free or self.unexpected or self.free_unexpected)


def unexpected_text(counts: Mapping[str, int], rows: int, why: str = "") -> str:
    """What to say of unexpected values, counted by field, in so many rows; why: what is wrong with one of the first.

    >>> unexpected_text({"amount": 3, "at": 7}, 1000)
    "values that can't be read count as missing: at in 7, amount in 3 of 1,000 records"
    """
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    listed = [f"{quoted(name)} in {counts[name]:,}" for name in ranked[:MAX_SHOWN]]
    more = len(ranked) - MAX_SHOWN
    rest = f"; {more:,} more fields have some" if more > 0 else ""
    because = f" ({why})" if why else ""
    return f"values that can't be read count as missing: {', '.join(listed)} of {rows:,} records{because}{rest}"


@dataclass(frozen=True)
class CategoryColumn:
    """One column of the model's categorical input. Its ids: 0 for a value never seen before, 1 for a missing one, then
    the spare ones, then the vocabulary. A value beyond the vocabulary gets the spare id, its hash's one of several.

    field    name of the field, or of the missing patterns, see `pattern_name`
    kind     the field's kind; "presence" for missing patterns, which have no id for missing
    values   the vocabulary, most frequent first, of a redacted field its tokens; or missing patterns
    spare    ids for values beyond the vocabulary's limit: one for all of them, or as many as there are hash buckets
    """

    field: str
    kind: str
    values: tuple[Any, ...]
    spare: int = 0

    @property
    def first(self) -> int:
        """The id of values[0]."""
        return 1 if self.kind == PATTERN_KIND else 2 + self.spare

    @property
    def width(self) -> int:
        """How many ids there are: 0 <= id < width."""
        return self.first + len(self.values)

    def ids(self, values: Sequence[Any], types: Set[type]) -> NDArray[np.int32]:
        """The ids of some values, (B,); types: those that occur, without None's. A tuple holds the members of a set,
        of which the rarest has the id, or an address with its network, of which the first known one has it.
        """
        if tuple in types:
            choose = self._first_known if self.kind == ADDRESS_KIND else self._rarest
            memo = {None: MISSING_ID} | {members: choose(members)[0] for members in set(values) - {None}}
            return np.fromiter(map(memo.__getitem__, values), np.int32, len(values))
        ids = map(self._id, values)
        if len(types) <= 1 and self.spare <= 1:  # the usual case: no Python code runs for each value
            rare = repeat(MISSING_ID + 1 if self.spare else UNKNOWN_ID)
            ids = map(self._tables[next(iter(types), str)].get, values, rare)
        return np.fromiter(ids, np.int32, len(values))

    @cached_property
    def _tables(self) -> Mapping[type, dict[Any, int]]:
        # One table per JSON type, for in Python 1, 1.0 and True are the same key.
        tables: dict[type, dict[Any, int]] = {kind: {None: MISSING_ID} for kind in (str, int, bool)}
        for category_id, value in enumerate(self.values, self.first):
            tables[type(value)][value] = category_id
        return tables

    def _id(self, value: Any) -> int:
        known = MISSING_ID if value is None else self._tables[type(value)].get(value)
        if known is not None or not self.spare:
            return UNKNOWN_ID if known is None else known
        text = f"{type(value).__name__}:{value}".encode("utf-8", "surrogatepass")
        return MISSING_ID + 1 + int.from_bytes(blake2b(text, digest_size=8).digest(), "big") % self.spare

    def rarest(self, members: Sequence[str]) -> int:
        """The place of the rarest of these members, at least one: one that was never seen before, or the one that the
        fewest records of the fit had.
        """
        return self._rarest(members)[1]

    def _rarest(self, members: Sequence[str]) -> tuple[int, int]:
        """Its id, and its place."""
        ids = list(map(self._member_id, members))
        low = min(ids)
        category_id = low if low < self.first else max(ids)  # the vocabulary begins with the most frequent
        return category_id, ids.index(category_id)

    def _first_known(self, names: Sequence[str]) -> tuple[int, int]:
        known = self._tables[str]
        return next(((known[name], at) for at, name in enumerate(names) if name in known), (self._id(names[-1]), 0))

    def _member_id(self, member: str) -> int:
        known = self._tables[str]
        category_id = known.get(member)
        if category_id is None and "=" in member:
            category_id = known.get(member.partition("=")[0] + ANY_VALUE)
        return self._id(member) if category_id is None else category_id

    def value(self, category_id: int) -> Any:
        """The value that an id stands for, or a `Special`; for a missing pattern a phrase."""
        if category_id == UNKNOWN_ID:
            return Special.UNKNOWN
        if self.kind == PATTERN_KIND:
            return str(self.values[category_id - self.first])
        if category_id == MISSING_ID:
            return Special.MISSING
        return Special.OTHER if category_id < self.first else self.values[category_id - self.first]


@dataclass(frozen=True)
class SlotValues:
    """What usually stands at one slot of a template, where that repeats.

    template   its place among the templates
    slot       which of its placeholders and wildcards, from the left
    coarse     whether the values are classes of values: networks, beginnings of paths, numbers of digits
    unseen     the rarity of any other value
    values     the rarity of each value
    """

    template: int
    slot: int
    coarse: bool
    unseen: float
    values: Mapping[str, float]


@dataclass(frozen=True)
class Lexicon:
    """What is usual in a field of texts. A rarity is -log10 of the share of rows that are at least as rare.

    field       its name
    templates   the most frequent first
    rarities    of each template
    unseen      of a text that no template covers
    slots       of templates, those where values repeat
    grams       a bitmap of the hashed character trigrams of at least two rows, in base64
    """

    field: str
    templates: tuple[str, ...]
    rarities: tuple[float, ...]
    unseen: float
    slots: tuple[SlotValues, ...]
    grams: str


def pattern_name(fields: Collection[str]) -> str:
    """The name of the missing patterns' column beside fields of these names: MISSING_PATTERN, unless one has it.

    >>> pattern_name(["amount"]), pattern_name(["(missing fields)"])
    ('(missing fields)', '((missing fields))')
    """
    name = MISSING_PATTERN
    while name in fields:
        name = f"({name})"
    return name


@dataclass(frozen=True)
class FieldStats:
    """What is usual for a field, in the record's own units.

    low, median, high   values at 1%, 50% and 99%, of a text its length; None for a field without numbers
    top                 the most frequent category, of a text its template; None for a field without categories
    """

    field: str
    low: float | None = None
    high: float | None = None
    median: float | None = None
    top: Any = None
