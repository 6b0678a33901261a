"""Synthetic anomalies in real records: how well would this model find a mistake, with no label at hand?

Pure functions over rows and their schema. They never change a row, and what was planted never stands in the rows.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from random import Random
from typing import Any

from worker.errors import DataError, UsageError
from worker.features.kinds import KINDS
from worker.features.paths import holder_of, value_of
from worker.features.schema import Schema
from worker.formats.base import Row

Change = tuple[Row, tuple[str, ...]]
"""A changed copy of a row, and the names of the fields that were changed."""

SWAP, BURST = "field_swap", "missing_burst"
BURST_LENGTHS = (4, 8)


@dataclass(frozen=True, slots=True)
class Planted:
    """One changed row: its index, the kind of anomaly, the fields that were changed."""

    index: int
    kind: str
    fields: tuple[str, ...]


def with_values(row: Row, values: Mapping[str, Any]) -> Row:
    """A copy of the row with these fields set: the literal key where it has one, else the nested path."""
    changed = deepcopy(row)
    for name, value in values.items():
        holder, key = _holder(changed, name)
        holder[key] = value
    return changed


def without_fields(row: Row, names: Sequence[str]) -> Row:
    """A copy of the row in which these fields are absent."""
    changed = deepcopy(row)
    for name in names:
        if value_of(changed, name) is not None:
            holder, key = _holder(changed, name)
            holder[key] = None  # in the place of what lies in an array, which has no single place
            if "[]" not in key:
                del holder[key]
    return changed


def _holder(row: Row, name: str) -> tuple[Row, str]:
    """The object that holds the field, made where it is absent, and the field's key in it."""
    if (holder := holder_of(row, name)) is not None:
        return holder
    *path, key = [name] if "[]" in name else name.split(".")
    for step in path:
        if not isinstance(row.get(step), dict):
            row[step] = {}
        row = row[step]
    return row, key


def anomalies() -> tuple[str, ...]:
    """The sorts of anomalies that can be planted: a swap, one for each sort that a kind of field knows, a burst."""
    return (SWAP, *dict.fromkeys(name for kind in KINDS if (name := KINDS[kind].anomaly) is not None), BURST)


def plant(row: Row, anomaly: str, rng: Random, *, schema: Schema, donor: Row) -> Change | None:
    """An anomalous copy of one record, or None where that is impossible in it (no number, nothing to swap).

    anomaly   "field_swap": about half of the fields in which two records differ come from the other one;
              "missing_burst": up to three fields are missing, never the event time (`inject` plants real bursts);
              else one field becomes what its kind's `plant` makes of it
    donor     another record, from which a swap takes its values

    UsageError for an unknown anomaly.
    """
    if anomaly == SWAP:
        names = [field.name for field in schema.encoded if not field.is_time]
        values = [(name, value_of(row, name), value_of(donor, name)) for name in names]
        differing = [name for name, own, other in values if own is not None and other is not None and own != other]
        if len(differing) < 2:
            return None
        fields = tuple(rng.sample(differing, len(differing) // 2))
        return with_values(row, {name: value_of(donor, name) for name in fields}), fields
    if anomaly == BURST:
        may_lack = (f.name for f in schema.encoded if not f.required and f.name != schema.event_time_field)
        names = [name for name in may_lack if value_of(row, name) is not None]
        fields = tuple(rng.sample(names, min(3, len(names))))
        return (without_fields(row, fields), fields) if fields else None
    if anomaly not in anomalies():
        raise UsageError(f"unknown kind of anomaly {anomaly!r}; kinds are {', '.join(anomalies())}")
    able = [f for f in schema.encoded if f.anomaly == anomaly and f.can_plant(value_of(row, f.name))]
    if not able:
        return None
    field = rng.choice(able)
    return with_values(row, {field.name: field.plant(value_of(row, field.name), rng)}), (field.name,)


def inject(
    rows: Sequence[Row], schema: Schema, *, share: float = 0.02, seed: int = 0, kinds: Sequence[str] | None = None
) -> tuple[list[Row], list[Planted]]:
    """Rows with about `share` of them made anomalous, and the truth about each, by index.

    A swap keeps every field's own distribution and breaks what ties the fields together, as the synthetic side of an
    unsupervised random forest does (Shi and Horvath, "Unsupervised Learning with Random Forest Predictors", 2006). It
    says little where fields hardly depend on each other, for then half of another record makes a normal one; a scaled
    number says little where numbers spread over decades. What is found of planted anomalies is no promise for real
    ones, which can be subtler or of another sort.

    rows     JSON objects; those that are not touched are passed on as they are
    share    of the rows, more than 0, at most 0.5
    seed     the same rows, schema and seed give the same result
    kinds    sorts of anomalies, planted in turn; None = all of `anomalies()`

    UsageError for another share or an unknown kind, DataError where no row can take any of the kinds.

    >>> from worker.features.schema import parse_schema
    >>> rows = [{"amount": n} for n in range(100)]
    >>> schema = parse_schema("[fields.amount]\\nkind = 'numeric'")
    >>> changed, truth = inject(rows, schema, share=0.01, kinds=["scaled_number"])
    >>> [(planted.index, planted.fields, changed[planted.index]) for planted in truth]
    [(49, ('amount',), {'amount': 4900})]
    """
    if not 0 < share <= 0.5:
        raise UsageError(f"share of planted anomalies = {share}: more than 0, at most 0.5")
    kinds = anomalies() if kinds is None else kinds
    rng = Random(seed)  # noqa: S311
    changed, truth = list(rows), dict[int, Planted]()
    target = max(1, round(len(rows) * share))
    for attempt in range(20 * target):
        if len(truth) >= target:
            break
        kind, start, length = kinds[attempt % len(kinds)], rng.randrange(len(rows)), 1
        if kind == BURST:
            length = min(rng.randint(*BURST_LENGTHS), target - len(truth))
        run = range(start, min(start + length, len(rows)))
        if not truth.keys().isdisjoint(run):
            continue
        first = plant(rows[start], kind, rng, schema=schema, donor=rows[rng.randrange(len(rows))])
        if first is None:
            continue
        for index in run:  # all rows of a burst lack the same fields
            changed[index] = first[0] if index == start else without_fields(rows[index], first[1])
            truth[index] = Planted(index, kind, first[1])
    if not truth:
        raise DataError(f"none of {', '.join(kinds)} can be planted in these records")
    return changed, [truth[index] for index in sorted(truth)]
