"""What a column contributes to the model: numbers, categories, and its share of the missing-field pattern."""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.features.columns import Column
from worker.features.schema import Field
from worker.features.text import template
from worker.features.timestamps import DAY_MS, WEEK_MS
from worker.records import FloatArray

CYCLES_SEEN = 1.9  # about two, so that two calendar weeks of records are enough
_MONDAY_MS = 4 * DAY_MS  # 1970-01-05; the epoch was a Thursday


def part_names(field: Field) -> tuple[str, ...]:
    """The parts of a field that become numeric columns, in the order of `numeric_parts`."""
    if field.kind == "numeric":
        return ("value",)
    if field.kind == "text":
        return ("length",)
    if field.kind == "timestamp":
        return tuple(f"{cycle}_{wave}" for cycle in field.cyclical for wave in ("sin", "cos"))
    return ()


def coverable_parts(column: Column) -> frozenset[str]:
    """The parts of a field that these rows can teach: of a time only the cycles that they cover twice.

    A weekday learned from three days makes an anomaly of every other weekday. Outliers do not count: the span is that
    of the middle 98% of the times.
    """
    parts = part_names(column.field)
    if column.field.kind != "timestamp" or column.numbers is None:
        return frozenset(parts)
    times = column.numbers if column.missing is None else column.numbers[~column.missing]
    span = float(np.subtract(*np.quantile(times, [0.99, 0.01]))) if len(times) else 0.0
    periods = {"hour": DAY_MS, "weekday": WEEK_MS}
    return frozenset(part for part in parts if span >= CYCLES_SEEN * periods[part.partition("_")[0]])


def numeric_parts(column: Column) -> list[FloatArray]:
    """The numeric columns of a field before scaling, each float64 (B,); anything where missing.

    Times become sine and cosine of the hour of the day and of the time of the week, UTC.
    """
    if column.field.kind == "text":
        return [np.fromiter((len(value or "") for value in column.values), np.float64, len(column.values))]
    if column.numbers is None:
        return []
    if column.field.kind == "numeric":
        return [column.numbers]
    waves = []
    for cycle in column.field.cyclical:
        period, start = (DAY_MS, 0) if cycle == "hour" else (WEEK_MS, _MONDAY_MS)
        angle = (column.numbers - start) % period * (math.tau / period)
        waves += [np.sin(angle), np.cos(angle)]
    return waves


def categories(column: Column) -> Sequence[Any]:
    """What is looked up in the vocabulary: the values, of a text its templates; None where missing."""
    if column.field.kind == "text":
        return [None if value is None else template(value) for value in column.values]
    return column.values


def missing_patterns(
    columns: Sequence[Column], count: int
) -> tuple[Sequence[Hashable], Mapping[Hashable, frozenset[str]]]:
    """For each of `count` rows a key of its missing-field pattern, and for each key the names of the missing fields.

    Only encoded fields count.
    """
    gaps = [(column.field.name, column.missing) for column in columns if column.field.encoded]
    partial = [(name, missing) for name, missing in gaps if missing is not None]
    if not partial:
        return [b""] * count, {b"": frozenset()}
    packed = np.packbits(np.stack([missing for _, missing in partial], axis=1), axis=1)  # (B, bytes)
    keys: NDArray[Any] = packed.view(f"V{packed.shape[1]}").ravel()
    names: dict[Hashable, frozenset[str]] = {}
    for key in set(keys.tolist()):
        bits = np.unpackbits(np.frombuffer(key, np.uint8), count=len(partial)).tolist()
        names[key] = frozenset(name for (name, _), bit in zip(partial, bits, strict=True) if bit)
    return keys.tolist(), names
