"""The kind of one field, chosen by its values in a sample."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from worker.features.kinds import KINDS
from worker.features.kinds.base import Field
from worker.features.kinds.evidence import MIN_ROWS, Evidence, Sample
from worker.features.order import MIN_VARIETY, describe_calendar, describe_growth
from worker.features.paths import MAX_MEMBERS, members_of

MAX_STRAYS = 0.05  # share of values that the kind of the others need not read
DRAWS, DRAWN_VALUES = 8, 20  # with as many strays as that, 97 of 100 fields have a draw without any
MAX_REPEATING = 0.25  # share of distinct values where numbers and strings together are categories
NEVER_VARIED = "never varied yet"
UNSEEN = "left out: whatever comes next was never seen before"
_CODE = re.compile("[0-9]{5,}")


class Choice(NamedTuple):
    """What a field is.

    kind      its name in the schema file
    why       in words
    options   of the schema file
    doubt     what a person should know before they rely on it; empty where there is nothing
    strays    values, by their place among those that are there, that the kind does not read
    constant  whether it never varied
    """

    kind: str
    why: str
    options: Mapping[str, Any] = MappingProxyType({})
    doubt: str = ""
    strays: Sequence[int] = ()
    constant: bool = False

    def field(self, name: str) -> Field:
        """The schema's field."""
        return KINDS[self.kind](name, **self.options)


def choose_kind(name: str, present: Sequence[Any], total: int) -> Choice:
    """The kind that all values speak for, or all but a few; a field that only grows is none of them.

    Every kind in KINDS says what speaks for it, and the strongest evidence decides. Where no kind reads all values, or
    only one that reads anything, small random draws are asked instead: most of them have no stray in them, and a kind
    that one of them speaks for has it where it reads at least 95% of all (the idea of Fischler and Bolles, "Random
    Sample Consensus", Communications of the ACM 24, 1981). It works badly for names of which nearly all look like
    something else: of 100 article numbers, 96 of digits, 4 have letters and are taken for strays.

    name      of the field: only dates that hardly move are known by it
    present   values that are not null, in the order of their records
    total     number of records
    """
    if not present:
        return Choice("ignore", "always null")
    types = Counter(map(type, present))
    if types[list] > MAX_STRAYS * len(present):
        return _of_arrays(present)
    if types.keys() == {dict}:
        return Choice("ignore", "holds empty objects")
    # Asked before what never varied: a date stands still for a day, and then every record has one never seen before.
    if len(present) >= MIN_ROWS and (why := describe_calendar(name, present)) is not None:
        return _calendar(why, present)
    constant = _constant(present) if len(present) == total >= MIN_ROWS else None
    if constant is not None:
        return constant
    choice = _unanimous(present)
    # A kind that reads anything hides strays: without a few of the values, the others may have a form that says more.
    if choice is None or _reads_anything(choice):
        choice = _of_majority(present) or choice
    if choice is None:
        return _mixed(present)
    return _without_growth(choice, present)


def as_amounts(present: Sequence[Any]) -> Choice:
    """What numbers are that looked like times, and lie far from those of their records."""
    doubt = "of the magnitude of Unix times, but far from the other times of the records: read as amounts"
    return _without_growth(Choice("numeric", "numbers", doubt=doubt), present)


def _constant(present: Sequence[Any]) -> Choice | None:
    """What never varied is kept, so that another value stands out."""
    value = present[0]
    if isinstance(value, list | dict) or any(type(other) is not type(value) or other != value for other in present):
        return None
    sample = _sample(present)
    if not sample.present.values:
        return Choice("ignore", "always missing")
    choice = _unanimous(present)
    if choice is not None and KINDS[choice.kind].is_time:
        return choice  # the next one is another time
    if type(value) is bool:
        return Choice("boolean", NEVER_VARIED, constant=True)
    reading = sample.present.reading
    # Many digits in a string are a name, say of a branch: learned as an amount, the name next to it would be as usual.
    if reading is None or (type(value) is str and _CODE.fullmatch(value)):
        return Choice("categorical", NEVER_VARIED, constant=True)
    return Choice("numeric", NEVER_VARIED, reading.form.options(), constant=True)


def _calendar(why: str, present: Sequence[Any]) -> Choice:
    choice = _unanimous(present)
    is_time = choice is not None and KINDS[choice.kind].is_time
    return choice if choice is not None and is_time else Choice("ignore", why, doubt=UNSEEN)


def count_distinct(values: Sequence[Any]) -> int:
    """How many of them differ, those in arrays too, objects left out; 1, 1.0 and True do."""
    types = set(map(type, values))
    if len(types) == 1 and types.isdisjoint({list, dict}):
        return len(set(values))
    members = members_of(values) if list in types else values
    return len({(type(value), value) for value in members if not isinstance(value, list | dict)})


def _sample(values: Sequence[Any]) -> Sample:
    return Sample(values, set(map(type, values)), count_distinct(values))


def _unanimous(values: Sequence[Any]) -> Choice | None:
    """The kind that these values speak for; None where there is none."""
    if not values or not set(map(type, values)).isdisjoint({list, dict}):
        return None
    sample = _sample(values)
    evidence = [(kind, said) for kind in KINDS if (said := KINDS[kind].infer(sample)) is not None]
    if not evidence:
        return None
    strongest: Evidence
    kind, strongest = max(evidence, key=lambda entry: entry[1].strength)  # the first one of several
    return Choice(kind, strongest.why, strongest.options, strongest.doubt)


def _reads_anything(choice: Choice) -> bool:
    return not choice.field("").refused({str, int, bool})


def _of_majority(present: Sequence[Any]) -> Choice | None:
    """The kind that reads all values but a few; None where there is none, or no value is left over."""
    max_strays, tried = int(MAX_STRAYS * len(present)), set[str]()
    if not max_strays:
        return None
    for values in _draws(present):
        drawn = _unanimous(values)
        if drawn is None or drawn.kind in tried:
            continue
        tried.add(drawn.kind)
        strays = drawn.field("").read(present)[1]
        if not 0 < len(strays) <= max_strays:
            continue
        choice = _unanimous([value for index, value in enumerate(present) if index not in strays])
        if choice is not None:  # of the same kind mostly, but with options that so many values speak for
            strays = choice.field("").read(present)[1]
            return choice._replace(strays=sorted(strays)) if len(strays) <= max_strays else None
    return None


def _draws(present: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """The values of the most frequent type, then some at random, in their order."""
    ((frequent, count),) = Counter(map(type, present)).most_common(1)
    if count < len(present):
        yield [value for value in present if type(value) is frequent]
    random = Random(0)  # noqa: S311  # a sample is no secret
    for _ in range(DRAWS):
        yield [present[at] for at in sorted(random.sample(range(len(present)), min(DRAWN_VALUES, len(present))))]


def _of_arrays(present: Sequence[Any]) -> Choice:
    """The kind where many of the values are arrays; a single value counts as an array of one."""
    members = members_of(present)
    if not members:
        return Choice("set", "arrays that were always empty")
    if boxes := {list, dict}.intersection(map(type, members)):
        what = "arrays of arrays" if list in boxes else "arrays of objects and values"
        return Choice("ignore", f"holds {what}", doubt="left out")
    inner = _unanimous(members) or _of_majority(members) or _mixed(members)
    max_length = max(len(value) if type(value) is list else 1 for value in present)
    size = f"of up to {max_length:,}" + (f", of which {MAX_MEMBERS:,} are read" if max_length > MAX_MEMBERS else "")
    choice = Choice(
        "numbers" if inner.kind == "numeric" and not inner.options else "set", f"arrays {size} members: {inner.why}"
    )
    return choice._replace(strays=sorted(choice.field("").read(present)[1]))


def _mixed(present: Sequence[Any]) -> Choice:
    """Values that no kind has alone: categories where they come again, else nothing."""
    types = set(map(type, present))
    named = {bool: "booleans", str: "strings", list: "arrays", dict: "objects"}
    what = f"mixes {' and '.join(sorted({named.get(kind, 'numbers') for kind in types}))}"
    if types <= {str, int, bool} and _sample(present).distinct <= MAX_REPEATING * len(present):
        return Choice("categorical", what, doubt="all of them are read as names")
    return Choice("ignore", what, doubt="left out")


def _without_growth(choice: Choice, present: Sequence[Any]) -> Choice:
    """The choice, unless later values lie beyond all earlier ones: these can't be learned."""
    if not KINDS[choice.kind].is_level:
        return choice
    column, failures = choice.field("").read(present)
    values: Sequence[Any] = column.values
    if len(column.numbers):
        values = np.where(np.isfinite(column.numbers), column.numbers, 0).tolist()
    there = [value for index, value in enumerate(values) if index not in failures and column.values[index] is not None]
    growth = describe_growth(there)
    if growth is None:
        return choice
    names = float not in set(map(type, present)) and len(set(there)) >= MIN_VARIETY * len(there)
    kind = "id" if names else "ignore"
    return Choice(kind, growth, doubt=UNSEEN)
