"""Synthetic anomalies in real records: how well would this model find a mistake, with no label at hand?

Pure functions over rows (parsed JSON objects) and their schema. The given rows are never changed, and what was planted
is told beside the rows, never inside them.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from random import Random
from typing import Any

from worker.errors import DataError, UsageError
from worker.features.columns import value_of
from worker.features.schema import Schema

Row = dict[str, Any]
Change = tuple[Row, tuple[str, ...]]
"""A changed copy of a row, and the names of the fields that were changed."""

BURST_LENGTHS = (4, 8)
SCALES = (100, 1000)


@dataclass(frozen=True, slots=True)
class Planted:
    """One changed row: its index, the kind of anomaly, the fields that were changed."""

    index: int
    kind: str
    fields: tuple[str, ...]


def with_value(row: Row, name: str, value: Any) -> Row:
    """A copy of the row with this field set: the literal key where it has one, else the nested path."""
    changed = deepcopy(row)
    holder, key = _holder(changed, name)
    holder[key] = value
    return changed


def without_fields(row: Row, names: Sequence[str]) -> Row:
    """A copy of the row in which these fields are absent."""
    changed = deepcopy(row)
    for name in names:
        if value_of(changed, name) is not None:
            holder, key = _holder(changed, name)
            del holder[key]
    return changed


def swap_fields(row: Row, donor: Row, names: Sequence[str]) -> Row:
    """A copy of the row with the donor's values in these fields."""
    changed = row
    for name in names:
        changed = with_value(changed, name, value_of(donor, name))
    return changed


def scale_number(row: Row, name: str, factor: float) -> Row:
    """A copy of the row with one number multiplied; a whole number stays one where the result is whole."""
    value = value_of(row, name)
    product = value * factor
    return with_value(row, name, int(product) if isinstance(value, int) and product == int(product) else product)


def _holder(row: Row, name: str) -> tuple[Row, str]:
    """The object that holds the field, made where it is absent, and the field's key in it."""
    if name in row or "." not in name:
        return row, name
    *path, key = name.split(".")
    for step in path:
        inner = row.get(step)
        if not isinstance(inner, dict):
            inner = row[step] = {}
        row = inner
    return row, key


def _names(schema: Schema, *kinds: str) -> list[str]:
    return [field.name for field in schema.encoded if field.kind in kinds]


def _field_swap(row: Row, schema: Schema, rng: Random, donor: Row) -> Change | None:
    """About half of the fields in which the two records differ come from the other one."""
    names = [field.name for field in schema.encoded if field.kind != "timestamp"]
    differing = [name for name in names if _differ(value_of(row, name), value_of(donor, name))]
    if len(differing) < 2:
        return None
    fields = tuple(rng.sample(differing, len(differing) // 2))
    return swap_fields(row, donor, fields), fields


def _differ(one: Any, other: Any) -> bool:
    return one is not None and other is not None and bool(one != other)


def _scaled_number(row: Row, schema: Schema, rng: Random, donor: Row) -> Change | None:  # noqa: ARG001
    """One number in other units: a hundred or a thousand times what it was."""
    numbers = [name for name in _names(schema, "numeric") if value_of(row, name)]
    if not numbers:
        return None
    name = rng.choice(numbers)
    return scale_number(row, name, rng.choice(SCALES)), (name,)


def _unseen_category(row: Row, schema: Schema, rng: Random, donor: Row) -> Change | None:  # noqa: ARG001
    """One category that no record has had."""
    names = [name for name in _names(schema, "categorical", "text") if type(value_of(row, name)) in (str, int)]
    if not names:
        return None
    name = rng.choice(names)
    number = rng.randrange(10**9, 10**10)
    return with_value(row, name, f"unseen-{number}" if isinstance(value_of(row, name), str) else number), (name,)


SINGLE: Mapping[str, Callable[[Row, Schema, Random, Row], Change | None]] = {
    "field_swap": _field_swap,
    "scaled_number": _scaled_number,
    "unseen_category": _unseen_category,
}
KINDS = (*SINGLE, "missing_burst")


def plant(row: Row, kind: str, rng: Random, *, schema: Schema, donor: Row) -> Change | None:
    """An anomalous copy of one record, or None where the kind is impossible in it (no number, nothing to swap).

    kind: one of KINDS; `donor` is another record, `field_swap` takes its values. A `missing_burst` of one record is a
    record that lacks fields; `inject` plants real bursts. Raises UsageError for an unknown kind.
    """
    if kind == "missing_burst":
        fields = _to_drop(row, schema, rng)
        return (without_fields(row, fields), fields) if fields else None
    if kind not in SINGLE:
        raise UsageError(f"unknown kind of anomaly {kind!r}; kinds are {', '.join(KINDS)}")
    return SINGLE[kind](row, schema, rng, donor)


def _to_drop(row: Row, schema: Schema, rng: Random) -> tuple[str, ...]:
    """Up to three fields that this record has and may lack; the event time stays."""
    names = [
        field.name
        for field in schema.encoded
        if not field.required and field.name != schema.event_time_field and value_of(row, field.name) is not None
    ]
    return tuple(rng.sample(names, min(3, len(names))))


def inject(
    rows: Sequence[Row], schema: Schema, *, share: float = 0.02, seed: int = 0, kinds: Sequence[str] = KINDS
) -> tuple[list[Row], list[Planted]]:
    """Rows with about `share` of them made anomalous, kinds in turn, and the truth about each, by index.

    The same rows, schema and seed give the same result. Rows that were not touched are the same objects.
    Raises UsageError for a share outside (0, 0.5] or an unknown kind, DataError where no row can take any of the kinds.
    """
    if not 0 < share <= 0.5:
        raise UsageError(f"share of planted anomalies = {share}: more than 0, at most 0.5")
    rng = Random(seed)  # noqa: S311
    changed, truth = list(rows), list[Planted]()
    touched: set[int] = set()
    target, tries = max(1, round(len(rows) * share)), 0
    while len(truth) < target and tries < 20 * target:
        kind = kinds[tries % len(kinds)]
        tries += 1
        start, length = rng.randrange(len(rows)), 1
        if kind == "missing_burst":
            length = min(rng.randint(*BURST_LENGTHS), target - len(truth))
        run = range(start, min(start + length, len(rows)))
        if touched.intersection(run):
            continue
        planted = _plant_run(rows, run, kind, schema, rng)
        for index, (row, fields) in planted.items():
            changed[index] = row
            truth.append(Planted(index, kind, fields))
        touched.update(planted)
    if not truth:
        raise DataError(f"none of {', '.join(kinds)} can be planted in these records")
    return changed, sorted(truth, key=lambda planted: planted.index)


def _plant_run(rows: Sequence[Row], run: range, kind: str, schema: Schema, rng: Random) -> dict[int, Change]:
    """The changed rows of one anomaly, by index; all rows of a burst lack the same fields."""
    donor = rows[rng.randrange(len(rows))]
    first = plant(rows[run.start], kind, rng, schema=schema, donor=donor)
    if first is None:
        return {}
    fields = first[1]
    return {run.start: first, **{index: (without_fields(rows[index], fields), fields) for index in run[1:]}}
