"""Objects whose keys are data, such as labels and attributes: many keys over all records, each in few of them."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from types import NoneType
from typing import NamedTuple

from worker.features.choice import Choice
from worker.features.paths import MAX_MEMBERS, inside
from worker.formats.base import Row

MIN_MAPS = 20  # fewer objects prove nothing
MIN_SPARSE_KEYS = 20  # an object of 30 fields of which some are rare is still one of fields
SPARSE = 0.1  # share of the objects that have a key, up to which it counts as sparse
MIN_SPARSE_SHARE = 2 / 3  # of all keys
MIN_SINGLE_VALUES = 0.9  # share of the values of sparse keys that are no arrays and no objects

_SINGLE = frozenset({str, int, float, bool, NoneType})


class OpenMap(NamedTuple):
    """What speaks for an object whose keys are data.

    usual   its keys that are fields all the same, for most of the objects have them
    keys    how many others there are
    share   of the objects that have the most frequent of those
    """

    usual: Sequence[str]
    keys: int
    share: float

    @property
    def choice(self) -> Choice:
        """What it is as a field."""
        why = f"an object of {self.keys:,} keys, each in at most {100 * self.share:.2g}% of them: its keys are data"
        return Choice("set", why, {"leave_out": tuple(self.usual)})


def open_maps(rows: Sequence[Row], fields: Iterable[str] = ()) -> dict[str, OpenMap]:
    """The objects in these records whose keys are data, by name: as fields of their own, hundreds of them would be
    missing in nearly every record.

    It works badly where the first records have few keys and later ones others, and where an object holds what differs
    by the kind of event: then a field for each says more.

    fields   names that are wanted as fields, whatever speaks against it

    >>> rows = [{"tags": {f"k{n % 40}": "x", "team": "a"}} for n in range(80)]
    >>> open_maps(rows)
    {'tags': OpenMap(usual=('team',), keys=40, share=0.025)}
    """
    maps, level = dict[str, OpenMap](), [("", list(rows))]
    while level:  # level by level, for an object can be deep
        inner: dict[str, list[Row]] = defaultdict(list)
        for prefix, objects in level:
            name = prefix.removesuffix(".")
            map_of = None if not name else _open_map(objects, {rest for one in fields if (rest := inside(one, name))})
            if map_of is not None:
                maps[name] = map_of
            for row in objects:
                for key in row if map_of is None else map_of.usual:
                    value = row.get(key)
                    if type(value) is dict:
                        inner[f"{prefix}{key}."].append(value)
                    elif type(value) is list:
                        inner[f"{prefix}{key}[]."] += (one for one in value[:MAX_MEMBERS] if type(one) is dict)
        level = list(inner.items())
    return maps


def _open_map(objects: Sequence[Row], fields: Iterable[str]) -> OpenMap | None:
    objects = [one for one in objects if one]
    counts = Counter[str]()
    for one in objects:
        counts.update(one.keys())  # of a mapping itself, a Counter adds up the values
    if len(objects) < MIN_MAPS or len(counts) < MIN_SPARSE_KEYS:
        return None
    sparse = {key: count for key, count in counts.items() if count <= SPARSE * len(objects)}
    if len(sparse) < max(MIN_SPARSE_KEYS, MIN_SPARSE_SHARE * len(counts)) or not _hold_single_values(objects, sparse):
        return None
    usual = (counts.keys() - sparse.keys()) | (counts.keys() & fields)
    return OpenMap(tuple(sorted(usual)), len(counts) - len(usual), max(sparse.values()) / len(objects))


def _hold_single_values(objects: Iterable[Row], keys: Mapping[str, int]) -> bool:
    single = sum(type(value) in _SINGLE for one in objects for key, value in one.items() if key in keys)
    return single >= MIN_SINGLE_VALUES * sum(keys.values())
