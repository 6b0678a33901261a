"""Seeded record streams that a trainer has to survive: normal traffic of a few profiles, and what happens to it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import orjson
from numpy.typing import NDArray

from worker.features.inject import plant
from worker.features.schema import parse_schema
from worker.formats.base import Row
from worker.records import FloatArray, Message

NUMBERS = ("amount", "items", "weight", "rate", "age", "delay")
CATEGORIES = ("country", "channel", "product", "device")
SCHEMA = parse_schema(
    '[fields.id]\nkind = "id"\n'
    + "".join(f'[fields.{name}]\nkind = "numeric"\n' for name in NUMBERS)
    + "".join(f'[fields.{name}]\nkind = "categorical"\n' for name in CATEGORIES)
)
PROFILES = 8
VALUES = 8
KINDS = ("field_swap", "scaled_number", "unseen_category")
SCALE = 1.7
"""Standard deviation of a number over all profiles."""

OFFSET = 12.0
"""Keeps the numbers above 0: a hundred times nothing would be no anomaly."""

SPACING_MS = 3_000
FIT_RECORDS = 6_000

Odds = Sequence[float] | None


class Traffic:
    """Normal records: each follows one of the profiles, which ties its fields together.

    The numbers of a profile lie around its means, along two latent directions; its categories prefer few values.
    """

    def __init__(self, seed: int) -> None:
        shape = np.random.default_rng(1_000 + seed)
        self._means = shape.normal(0, 1.6, (PROFILES, len(NUMBERS)))
        self._along = shape.normal(0, 0.3, (PROFILES, 2, len(NUMBERS)))
        self._odds = shape.dirichlet(np.full(VALUES, 0.15), (PROFILES, len(CATEGORIES))).cumsum(-1)
        self._random = np.random.default_rng(seed)
        self._made = 0

    def rows(self, count: int, *, weights: Odds = None, shifted: bool = False) -> list[Row]:
        """The next `count` records. weights: of the profiles. shifted: all numbers three scales higher, half of the
        values of each category replaced by new ones."""
        random = self._random
        profile = random.choice(PROFILES, count, p=weights)
        numbers = self._means[profile] + np.einsum("bl,bln->bn", random.normal(0, 1, (count, 2)), self._along[profile])
        numbers += random.normal(0, 0.1, numbers.shape)
        values = (random.random((count, len(CATEGORIES), 1)) > self._odds[profile]).sum(-1).clip(max=VALUES - 1)
        numbers = np.round(OFFSET + numbers + 3 * SCALE * shifted, 3)
        names = [f"new{value}" if shifted and value % 2 else f"v{value}" for value in range(VALUES)]
        first, self._made = self._made, self._made + count
        return [
            {
                "id": f"r{first + place}",
                **dict(zip(NUMBERS, row, strict=True)),
                **{name: names[value] for name, value in zip(CATEGORIES, picked, strict=True)},
            }
            for place, (row, picked) in enumerate(zip(numbers.tolist(), values.tolist(), strict=True))
        ]


@dataclass(frozen=True, slots=True)
class Stream:
    """What a trainer is shown.

    fit_on   rows of the first fit
    rows     what follows, length T
    truth    the kind of anomaly of each record, (T,), "" for a normal one
    parts    ranges of records worth a figure, by name
    """

    name: str
    fit_on: list[Row]
    rows: list[Row]
    truth: NDArray[np.str_]
    parts: Mapping[str, tuple[int, int]]

    def messages(self) -> Iterator[Message]:
        """As a topic of one partition, `SPACING_MS` apart."""
        for place, row in enumerate(self.rows):
            yield Message("refits", 0, place, 1_767_225_600_000 + place * SPACING_MS, None, orjson.dumps(row))


def planted(rows: list[Row], share: float | FloatArray, seed: int) -> tuple[list[Row], NDArray[np.str_]]:
    """The rows with anomalies planted into a share of them (one number, or one for each row), and the truth."""
    rng, chance = Random(seed), np.random.default_rng(seed).random(len(rows)) < share
    truth = np.full(len(rows), "", dtype="U24")
    changed = list(rows)
    for place in np.flatnonzero(chance).tolist():
        change = plant(rows[place], rng.choice(KINDS), rng, schema=SCHEMA, donor=_stranger(rows, rows[place], rng))
        if change is not None:
            changed[place], truth[place] = change[0], "planted"
    return changed, truth


def _stranger(rows: list[Row], row: Row, rng: Random) -> Row:
    """Another record, of a profile that shares no category with this one if one of 50 tries finds it."""
    tries = [rows[rng.randrange(len(rows))] for _ in range(50)]
    return min(tries, key=lambda other: sum(other[name] == row[name] for name in CATEGORIES))


def stationary(seed: int, records: int = 100_000) -> Stream:
    """Nothing changes; 5% of the records are anomalies, those of the first fit included."""
    traffic = Traffic(seed)
    fit_on, _ = planted(traffic.rows(FIT_RECORDS), 0.05, seed + 1)
    rows, truth = planted(traffic.rows(records), 0.05, seed + 2)
    return Stream("stationary, 5% anomalies", fit_on, rows, truth, {"all": (0, records)})


def unrepresentative(seed: int, records: int = 40_000) -> Stream:
    """The first fit saw some profiles rarely; the traffic has them all. 2% anomalies."""
    traffic = Traffic(seed)
    weights = np.where(np.arange(PROFILES) < PROFILES // 2, 1.0, 0.06)
    fit_on = traffic.rows(FIT_RECORDS, weights=(weights / weights.sum()).tolist())
    rows, truth = planted(traffic.rows(records), 0.02, seed + 2)
    return Stream("unrepresentative first fit", fit_on, rows, truth, {"last 10,000": (records - 10_000, records)})


def level_shift(seed: int, records: int = 60_000, at: int = 20_000) -> Stream:
    """All numbers move by three scales and half of the categories are replaced, for good. 2% anomalies."""
    traffic = Traffic(seed)
    fit_on = traffic.rows(FIT_RECORDS)
    rows, truth = planted([*traffic.rows(at), *traffic.rows(records - at, shifted=True)], 0.02, seed + 2)
    parts = {"before": (at - 15_000, at), "20,000 after it": (at + 20_000, records)}
    return Stream("level shift", fit_on, rows, truth, parts)


def flood(seed: int, records: int = 60_000, at: int = 20_000, length: int = 20_000, share: float = 0.3) -> Stream:
    """30% of 20,000 records are anomalies, 1% before and after."""
    traffic, place = Traffic(seed), np.arange(records)
    fit_on = traffic.rows(FIT_RECORDS)
    shares = np.where((place >= at) & (place < at + length), share, 0.01)
    rows, truth = planted(traffic.rows(records), shares, seed + 2)
    parts = {"before": (0, at), "flood": (at, at + length), "after": (at + length, records)}
    return Stream("flood of 30%", fit_on, rows, truth, parts)


def slow_poison(seed: int, records: int = 70_000, growth: int = 50_000, share: float = 0.04) -> Stream:
    """One kind of anomaly grows from nothing to gross over 50,000 records and then stays; 1% of others."""
    traffic, rng = Traffic(seed), np.random.default_rng(seed + 3)
    fit_on = traffic.rows(FIT_RECORDS)
    rows, truth = planted(traffic.rows(records), 0.01, seed + 2)
    names, signs = rng.choice(NUMBERS, 3, replace=False).tolist(), rng.choice([-1.0, 1.0], 3).tolist()
    for place in np.flatnonzero((rng.random(records) < share) & (truth == "")).tolist():
        strength = min(1.0, place / growth) * 8 * SCALE
        moved = {name: round(rows[place][name] + sign * strength, 3) for name, sign in zip(names, signs, strict=True)}
        rows[place] = {**rows[place], **moved}
        truth[place] = "poison"
    return Stream("slow poison", fit_on, rows, truth, {"fully grown": (growth, records)})


STREAMS = (stationary, unrepresentative, level_shift, flood, slow_poison)
