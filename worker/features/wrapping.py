"""Whether records are hardly more than an array of others, such as {"Records": [...]}."""

from collections.abc import Sequence
from itertools import chain, islice
from typing import Any

from worker.features.paths import MAX_MEMBERS
from worker.formats.base import Row

SAMPLED = 200  # records; what wraps others does so in all of them
MIN_CONTENT = 0.8  # share of a record's single values that stand in the array
MIN_RECORDS = 0.95  # share of the records that have it
MIN_MEMBERS = 1.5  # of it, on average; where less, it has to hold all there is
MAX_VALUES = 10_000  # of a record that are counted


def wrapping_array(rows: Sequence[Row]) -> str | None:
    """The path of the array that holds nearly everything, `a[].b` where it lies in another one; None without one.

    >>> wrapping_array([{"logs": [{"host": "a", "events": [{"t": n, "e": "x"} for n in range(9)]}]}] * 5)
    'logs[].events'
    """
    level: list[Row] = list(rows[:SAMPLED])
    total, path, is_wrapping = sum(map(_count_values, level)), list[str](), False
    while level:
        arrays = {key: [row.get(key) for row in level] for key in level[0] if type(level[0][key]) is list}
        for key, values in arrays.items():
            members = [
                one for value in values if type(value) is list for one in value[:MAX_MEMBERS] if type(one) is dict
            ]
            held = sum(type(value) is list and len(value) > 0 for value in values)
            content = sum(map(_count_values, members))
            if held >= MIN_RECORDS * len(level) and content >= MIN_CONTENT * total:
                is_wrapping |= len(members) >= MIN_MEMBERS * len(level) or content == total
                path.append(key)
                level = members
                break
        else:
            break
    return "[].".join(path) if is_wrapping else None


def wrapping_notes(rows: Sequence[Row]) -> list[str]:
    """What a person should know of such records."""
    path = wrapping_array(rows)
    text = f"each record is hardly more than an array of others: [input.unfold] = {path} makes records of them"
    return [] if path is None else [text]


def _count_values(value: Any) -> int:
    """How many single values stand in it, up to a bound; level by level, for it can be deep."""
    count, level = 0, [value]
    while level and count < MAX_VALUES:
        boxes = [one for one in level[:MAX_VALUES] if isinstance(one, dict | list)]
        count += len(level) - len(boxes)
        parts = (islice(box.values() if isinstance(box, dict) else box, MAX_MEMBERS) for box in boxes)
        level = list(chain.from_iterable(parts))
    return count
