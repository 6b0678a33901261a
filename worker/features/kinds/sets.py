"""Fields that hold several values at once: arrays of names, and maps of which the keys are data."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import chain, islice
from random import Random
from typing import Any

import numpy as np
from typing_extensions import override

from worker.features.kinds.base import Column, Field
from worker.features.kinds.options import TEXTS, option, size
from worker.features.learned import ANY_VALUE, CategoryColumn
from worker.features.paths import MAX_MEMBERS, NotAnObject
from worker.formats.base import type_name
from worker.records import FloatArray
from worker.redaction import Pseudonym

MAX_MEMBER = 256  # characters of a member, and of a map's key; longer ones are cut, for a vocabulary must stay small
EMPTY = "(empty)"
USUAL_NOVELTY = 0.01  # share of members that nobody else has, from which on a new one is nothing special


@dataclass(frozen=True)
class SetOfNames(Field):
    """Several names at once, such as the groups of a user or the labels of a container, and how many there are.

    Each member is counted at the fit, and a record's category is its rarest member: of two groups the one that fewer
    records have. A record with a member that no record of the fit had is of the category that was never seen before,
    an empty set is a category of its own. Members are texts: `7`, `true` and "7" are what their JSON says. The members
    of an object, and of those in an array, are its entries, `key=value`.

    Where more than 1% of a key's entries are in one record alone, another new value of it is nothing special, and
    counts as `key=*`; where more than 1% of all members are, so is a new member, which counts as a rare value.

    It works badly where members are only strange together, for the rarest one hides the others, and where their order
    says something. Of a record the first 1,000 members are read, 256 characters of each.

    max_values   size of the vocabulary; rarer members share one id
    leave_out    keys of an object that are no members of it, for they are fields of their own, or labels

    >>> groups = SetOfNames("groups")
    >>> column, _ = groups.read([["staff"], ["staff", "dev"], ["dev"], [], ["staff"], []])
    >>> vocabulary = groups.fit_categories(groups.categories(column))
    >>> vocabulary.values
    ('staff', '(empty)', 'dev')
    >>> [vocabulary.value(i).upper() for i in vocabulary.ids([("dev", "staff"), ("staff", "admins")], {tuple}).tolist()]
    ['DEV', 'NEVER SEEN BEFORE']
    """

    kind, accepts, expected = "set", frozenset({list, dict, str, int, float, bool}), "an array or an object"
    parts = ("length",)
    anomaly = "unseen_category"

    max_values: int = option(1024, size(1))
    leave_out: tuple[str, ...] = option((), TEXTS)

    @override
    def without(self, path: str) -> "SetOfNames":
        return self if path in self.leave_out else replace(self, leave_out=(*self.leave_out, path))

    @override
    def numbers(self, column: Column) -> list[FloatArray]:
        return [np.fromiter(map(self._length, column.values), np.float64, len(column.values))]

    def _length(self, value: Any) -> int:
        if type(value) is dict:
            return len(value) - sum(key in value for key in self.leave_out)
        if type(value) is list and value and type(value[0]) is dict:  # as many as `members` has, without their texts
            parts = (self._keys(one) if type(one) is dict else (one,) for one in value[:MAX_MEMBERS])
            return sum(1 for _ in islice(chain.from_iterable(parts), MAX_MEMBERS))
        return len(value) if type(value) is list else 1

    @override
    def categories(self, column: Column) -> Sequence[Any]:
        return [None if value is None else tuple(self.members(value)) or (EMPTY,) for value in column.values]

    @override
    def tokens(self, column: Column, token: Callable[[Any], str]) -> Sequence[Any]:
        rows = (None if value is None else self.members(value) for value in column.values)
        return [None if row is None else tuple(self.token(member, token) for member in row or [EMPTY]) for row in rows]

    @override
    def token(self, category: Any, token: Callable[[Any], str]) -> str:
        """Of an entry its key's and its value's, so that those of a key are still known as such."""
        if type(category) is Pseudonym or (type(category) is str and "=" not in category):
            return token(category)
        key, value = category if type(category) is list else category.split("=", 1)
        return token(key) + ANY_VALUE if value == ANY_VALUE[1:] else f"{token(key)}={token(value)}"

    def members(self, value: Any) -> list[Any]:
        """The members of a value as texts, in its order; what `conceal` has kept as it is."""
        values = value[:MAX_MEMBERS] if type(value) is list else [value]
        types = set(map(type, values))
        if types == {str} and max(map(len, values)) <= MAX_MEMBER:
            return values
        if dict not in types:
            return list(map(_text, values))
        parts = (self._entries(one) if type(one) is dict else (_text(one),) for one in values)
        return list(islice(chain.from_iterable(parts), MAX_MEMBERS))

    def _entries(self, value: Mapping[str, Any]) -> Iterator[str]:
        return (f"{key[:MAX_MEMBER]}={_text(value[key])}" for key in self._keys(value))

    def _keys(self, value: Mapping[str, Any]) -> Iterator[str]:
        return (key for key in value if key not in self.leave_out)

    @override
    def vocabulary_limit(self) -> tuple[int | None, int]:
        return self.max_values, 0

    @override
    def fit_categories(self, categories: Sequence[Any]) -> CategoryColumn | None:
        counts, of_key = Counter[str](), Counter[str]()
        for members, rows in Counter(categories).items():
            counts.update(dict.fromkeys(members or (), rows))
        for member, rows in counts.items():
            of_key[_key(member)] += rows
        single_of_key = Counter(_key(member) for member, rows in counts.items() if rows == 1)
        novel = {key for key, rows in single_of_key.items() if key and rows > USUAL_NOVELTY * of_key[key]}
        for member in [member for member, rows in counts.items() if rows == 1 and _key(member) in novel]:
            del counts[member]
        counts.update({key + ANY_VALUE: single_of_key[key] for key in novel})
        single = [
            member for member, rows in counts.items() if rows == 1 and (not _key(member) or of_key[_key(member)] == 1)
        ]
        spare = len(single) > USUAL_NOVELTY * of_key.total()
        ranked = sorted(counts.keys() - (single if spare else ()), key=lambda member: (-counts[member], member))
        spare |= len(ranked) > self.max_values
        return CategoryColumn(self.name, self.kind, tuple(ranked[: self.max_values]), int(spare))

    @override
    def observed(self, value: Any, vocabulary: CategoryColumn | None) -> Any:
        """The rarest member, for it makes the category."""
        members = list(self.members(value))
        if vocabulary is None or not members:
            return value
        return members[vocabulary.rarest(members)]

    @override
    def conceal(self, column: Column, columns: Sequence[Any], token: Callable[[Any], str]) -> Sequence[Any]:
        """Of an entry a pair."""

        def concealed(member: Any) -> Any:
            if type(member) is str and "=" in member:
                return [Pseudonym.of(token(part), part) for part in member.split("=", 1)]
            return member if type(member) is list else Pseudonym.of(token(member), member)

        rows = (None if value is None else self.members(value) for value in column.values)
        return [None if row is None else list(map(concealed, row)) for row in rows]

    @override
    def compared(self, values: Sequence[Any]) -> Sequence[Any]:
        return [None if value is None else sorted(map(str, self.members(value))) for value in values]

    @override
    def refused(self, types: Set[type]) -> Set[type]:
        return types & {NotAnObject}

    @override
    def can_plant(self, value: Any) -> bool:
        return type(value) in (list, dict)

    @override
    def plant(self, value: Any, rng: Random) -> Any:
        name = f"unseen-{rng.randrange(10**9, 10**10)}"
        return value | {name: name} if type(value) is dict else [*value, name]


def _key(member: str) -> str:
    """What stands before the first = of a member; empty where there is none."""
    return member.partition("=")[0] if "=" in member else ""


def _text(value: Any) -> Any:
    kind = type(value)
    if kind is str:
        return value if len(value) <= MAX_MEMBER else value[:MAX_MEMBER]
    if kind is Pseudonym or (kind is list and len(value) == 2 and set(map(type, value)) == {Pseudonym}):
        return value
    if kind is bool:
        return "true" if value else "false"
    return str(value) if kind in (int, float) else f"({type_name(value)})"
