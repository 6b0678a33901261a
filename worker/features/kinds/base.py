"""What a kind of field is. A new one is a class and a line, in one file:

    @dataclass(frozen=True)
    class Currency(Numeric):
        kind, accepts, expected = "currency", frozenset({str}), "an amount such as 12.50 EUR"
        def parse(self, column): ...

    KINDS.register(Currency.kind, Currency)

Everything about a field is asked of its class: there is no list of kinds anywhere else.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, fields
from random import Random
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from worker.errors import ErrorCode, RecordError
from worker.features.kinds.evidence import Evidence, Sample
from worker.features.kinds.options import FLAG, Check, option
from worker.features.learned import CategoryColumn, FieldStats, Lexicon, NumericColumn
from worker.features.paths import NotAnObject
from worker.features.scaling import Scaling, fit_scaling
from worker.features.values import without_missing
from worker.formats.base import type_name
from worker.records import BoolArray, FloatArray, TimeArray
from worker.redaction import Pseudonym
from worker.texts import quoted, shortened, significant

COMPARED_VALUES = 50  # categories that are compared one by one between two samples; the rarer ones count together
SHOWN_VALUES = 6
NEAR = 2.0**-20  # of a scale: as good as no distance

Failures = dict[int, RecordError]  # rows that can't be used, by their index, each with the first reason why


@dataclass(frozen=True)
class Field:
    """One field of a record. This base is a value that is looked up in a vocabulary; a kind overrides what differs.
    A kind's dataclass fields are the options of the schema file, its class attributes say the rest:

    kind             its name in the schema file and in the registry
    accepts          JSON types that a value may have; one of another type is unexpected
    expected         what such a value is, with its article, for what is said of those
    parts            names of the numbers that the model sees of a field, in the order of `numbers`
    has_categories   whether the model sees a category of a field
    is_time          whether it may be the event time; it always moves, so it can't drift and isn't swapped for another
    is_id            whether it is carried into the alert on its own
    is_level         whether a value beyond all that were learned is strange, so that what only grows can't be learned
    cell             how the cells of a CSV column are read: as "number", "boolean" or "text"
    anomaly          name of the synthetic anomaly that `plant` makes; None = there is none
    usual_gaps       strings that stand for a missing value; a kind can let the option `missing` take their place

    name             key in the record, dots reach into nested objects
    required         a record without it (absent or null) is a `missing_field` dead letter, and one whose value can't be
                     read is a dead letter, too
    redact           nothing that leaves the worker shows the value
    """

    kind: ClassVar[str]
    accepts: ClassVar[frozenset[type]]
    expected: ClassVar[str]
    parts: ClassVar[tuple[str, ...]] = ()
    has_categories: ClassVar[bool] = True
    is_time: ClassVar[bool] = False
    is_id: ClassVar[bool] = False
    is_level: ClassVar[bool] = False
    cell: ClassVar[str] = "text"
    anomaly: ClassVar[str | None] = None
    usual_gaps: ClassVar[Collection[str]] = ()

    name: str
    required: bool = option(False, FLAG)
    redact: bool = option(False, FLAG)

    @classmethod
    def checks(cls) -> Mapping[str, Check]:
        """The options by name, with what their values must be."""
        return {entry.name: entry.metadata["check"] for entry in fields(cls) if "check" in entry.metadata}

    def options(self) -> dict[str, Any]:
        """Every option that has a value, as plain data. They are part of the schema's fingerprint."""
        values = {name: getattr(self, name) for name in self.checks()}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items() if v is not None}

    @property
    def encoded(self) -> bool:
        """Whether the model sees this field at all."""
        return self.has_categories or bool(self.part_names())

    def without(self, path: str) -> "Field":
        """The field without what lies at a path in its values, where it reads into them."""
        del path
        return self

    @classmethod
    def infer(cls, sample: Sample) -> Evidence | None:
        """What speaks for this kind in the values of a field that nobody has described; None = nothing does."""
        del sample
        return None

    def refused(self, types: Set[type]) -> Set[type]:
        """Which of these types, that of None never among them, a value must not have."""
        return types - self.accepts

    def type_name(self, value: Any) -> str:
        """What a value that can't be read is called."""
        if type(value) is NotAnObject:
            return "a path through a value that is no object"
        return type_name(value) if self.refused({type(value)}) else f"{type_name(value)} that is none"

    def parse(self, column: "Column") -> tuple[NDArray[Any], Failures]:
        """The values as one array (B,), anything where they are missing, and the rows whose value is none after all. A
        time becomes int64 milliseconds since the epoch, UTC. Empty for a kind of which nothing is a number.
        """
        del column
        return np.empty(0), {}

    def read(self, values: Sequence[Any]) -> tuple["Column", Failures]:
        """What stands in the field of each row, (B,), None where missing, as a column."""
        failures: Failures = {}
        types = set(map(type, values))
        # A batch has few types, so the types are checked, not the values; only a wrong one makes it look at each value.
        wrong = self.refused(types - {type(None), Pseudonym})
        if str in types and str not in wrong:
            values = without_missing(values, types, self.gaps())
            types = set(map(type, values))
        if wrong or (self.required and type(None) in types):
            for index, value in enumerate(values):
                if value is None and self.required:
                    failures[index] = self.failure(ErrorCode.MISSING_FIELD, "required, but absent or null")
                elif type(value) in wrong:
                    failures[index] = self.wrong_type(value)
            values = [None if index in failures else value for index, value in enumerate(values)]
            types = set(map(type, values))
        missing = np.array([value is None for value in values]) if type(None) in types else None
        types.discard(type(None))
        numbers, broken = self.parse(Column(self, values, types, np.empty(0), missing))
        return Column(self, values, types, numbers, missing), {**failures, **broken}

    def moments(self, column: "Column", near: Callable[[], TimeArray]) -> TimeArray:
        """Of a kind that `is_time`: the event times, int64 (B,). near: gives those of the broker."""
        del near
        return column.numbers

    def cell_sort(self) -> str:
        """`cell`, where it depends on an option."""
        return self.cell

    def gaps(self) -> Collection[str]:
        """The strings that stand for a missing value: `usual_gaps`, or those of an option `missing`."""
        listed: Collection[str] | None = getattr(self, "missing", None)
        return self.usual_gaps if listed is None else listed

    def complaint(self, value: Any) -> str | None:
        """Why a value can't be read, such as "expected a number, got an array"; None where it can."""
        failures = self.read([value])[1]
        return quoted(failures[0].detail.removeprefix(f"{self.name}: ")) if failures else None

    def failure(self, error_code: ErrorCode, detail: str) -> RecordError:
        """Why a record can't be used, with the field's name."""
        return RecordError(error_code, f"{self.name}: {detail}")

    def wrong_type(self, value: Any) -> RecordError:
        """Why a value that can't be read makes a record one that can't be used."""
        return self.failure(ErrorCode.WRONG_TYPE, f"expected {self.expected}, got {self.type_name(value)}")

    def learn(self, column: "Column") -> Lexicon | None:
        """What a fit learns of these values besides vocabulary and scales; None for a kind that learns nothing else."""
        del column
        return None

    def knowing(self, lexicon: Lexicon) -> "Field":
        """This field, reading values by what a fit learned of it with `learn`."""
        del lexicon
        return self

    def part_names(self) -> tuple[str, ...]:
        """`parts`, where they depend on an option or on what was learned."""
        return self.parts

    def numbers(self, column: "Column") -> list[FloatArray]:
        """The numbers that the model sees before scaling, one float64 (B,) a part; anything where missing."""
        return [column.numbers] if self.parts else []

    def categories(self, column: "Column") -> Sequence[Any]:
        """What is looked up in the vocabulary, (B,): strings, whole numbers, booleans, None where missing."""
        return column.values

    def tokens(self, column: "Column", token: Callable[[Any], str]) -> Sequence[Any]:
        """The categories of a redacted field, (B,), each as its token."""
        return [None if name is None else self.token(name, token) for name in self.categories(column)]

    def token(self, category: Any, token: Callable[[Any], str]) -> str:
        """The token of one category, or of a member of a set."""
        return token(category)

    def observed(self, value: Any, vocabulary: CategoryColumn | None) -> Any:
        """What an explanation shows of a value that is there."""
        del vocabulary
        return value

    def scaling(self, x: FloatArray, preprocessing: str) -> Scaling:
        """The scaling of a part, from the values that are there, float64 (n,)."""
        return fit_scaling(x, preprocessing=preprocessing)

    def fit_numbers(self, column: "Column", preprocessing: str) -> list[NumericColumn]:
        """How each part is scaled; a part that is left out here is never encoded."""
        columns = []
        for part, x in zip(self.part_names(), column.present(self.numbers(column)), strict=True):
            scaling, imputed = self.scaling(x, preprocessing), 0.0
            if preprocessing == "minmax" and len(x):  # 0 is an end of the range: the median stands for a missing value
                imputed = float(scaling.apply(np.median(x, keepdims=True))[0])
            if column.missing is not None:
                imputed = _unlike(scaling.apply(x), imputed)
            columns.append(NumericColumn(self.name, part, *scaling[:3], is_whole(x), scaling.knee, imputed))
        return columns

    def vocabulary_limit(self) -> tuple[int | None, int]:
        """How many categories have an id of their own, None = all, and over how many ids the rarer ones spread."""
        return None, 0

    def fit_categories(self, categories: Sequence[Any]) -> CategoryColumn | None:
        """The vocabulary: the most frequent first, equally frequent ones by type and value; None without categories."""
        if not self.has_categories:
            return None
        counts = Counter((type(value).__name__, value) for value in categories if value is not None)
        ranked = sorted(counts, key=lambda key: (-counts[key], key))
        limit, buckets = self.vocabulary_limit()
        spare = max(buckets, 1) if limit is not None and len(ranked) > limit else 0
        return CategoryColumn(self.name, self.kind, tuple(value for _, value in ranked[:limit]), spare)

    def statistics(self, column: "Column", vocabulary: CategoryColumn | None) -> FieldStats:
        """What is usual: of the first part, values that did occur; of the categories, the most frequent one."""
        top = vocabulary.values[0] if vocabulary is not None and vocabulary.values else None
        numbers = [] if self.is_time else column.present(self.numbers(column))
        if not numbers or len(numbers[0]) == 0:
            return FieldStats(self.name, top=top)
        seen = np.quantile(numbers[0], [0.01, 0.5, 0.99], method="inverted_cdf").tolist()
        low, median, high = map(int, seen) if is_whole(numbers[0]) else seen
        return FieldStats(self.name, low=low, high=high, median=median, top=top)

    def read_back(self, columns: Sequence[NumericColumn], z: Sequence[float]) -> Any:
        """The value that a model expected, in the record's own units: `z` are its numbers of this field's columns."""
        value = columns[0].scaling.invert(z[0])
        return round(value) if columns[0].whole else significant(value, 4)  # a reconstruction is no more exact

    def describe(self, stats: FieldStats, vocabulary: CategoryColumn | None) -> str:
        """What is usual for this field, for a report."""
        words = []
        if stats.low is not None:
            part = "" if self.parts == ("value",) else f"{self.parts[0]} "
            words.append(f"{part}{stats.low:g} to {stats.high:g}, median {stats.median:g}")
        if vocabulary is not None:
            words.append(shortened(vocabulary.values, SHOWN_VALUES))
        return "; ".join(words)

    def conceal(self, column: "Column", columns: Sequence[NumericColumn], token: Callable[[Any], str]) -> Sequence[Any]:
        """What may be kept of a redacted field for later fits, (B,): values of which none is a record's own, None where
        there is nothing to keep. `read` must take them.

        columns   how its numbers were scaled
        token     what stands for a category
        """
        del columns
        if not self.has_categories:
            return [None] * len(column.values)
        pairs = zip(column.values, self.categories(column), strict=True)
        return [None if name is None else Pseudonym.of(token(name), value) for value, name in pairs]

    def compared(self, values: Sequence[Any]) -> Sequence[Any]:
        """What `drift` compares of values, (B,), None among them: one for each of them."""
        return values

    def drift(self, learned: Sequence[Any], recent: Sequence[Any]) -> tuple[float, float]:
        """How far two samples of values lie apart, None among them: a distance in [0, 1], and the probability of one at
        least as large in samples of the same traffic. Here total variation, and the chi-square test of homogeneity.
        """
        from scipy.stats import chi2_contingency

        counts = [Counter(map(repr, self.compared(side))) for side in (learned, recent)]
        common = [value for value, _ in (counts[0] + counts[1]).most_common(COMPARED_VALUES)]
        table = np.array([[count[value] for value in common] for count in counts], np.float64)
        rest = np.array([[len(learned)], [len(recent)]]) - table.sum(1, keepdims=True)
        table = np.hstack([table, rest])[:, np.r_[np.full(len(common), True), rest.sum() > 0]]
        shares = table / table.sum(1, keepdims=True)
        distance = float(np.abs(shares[0] - shares[1]).sum() / 2)
        return distance, float(chi2_contingency(table).pvalue) if table.shape[1] > 1 else 1.0

    def can_plant(self, value: Any) -> bool:
        """Whether `plant` can make an anomaly of this value."""
        del value
        return False

    def plant(self, value: Any, rng: Random) -> Any:
        """An anomalous value in place of this one, drawn with `rng` alone."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Column:
    """One field of B rows.

    values       what the rows hold, None where missing
    types        types of the values that are there
    numbers      what `parse` made of them: (B,), of a text (B, 4), or empty
    missing      bool (B,), or None where nothing is missing
    unexpected   bool (B,), which of the missing values are there and can't be read; None where none is
    """

    field: Field
    values: Sequence[Any]
    types: Set[type]
    numbers: NDArray[Any]
    missing: BoolArray | None
    unexpected: BoolArray | None = None

    def without(self, failures: Failures) -> "Column":
        """The same with these rows' values, at least one, as missing and unexpected."""
        unexpected = np.zeros(len(self.values), bool)
        unexpected[list(failures)] = True
        values = [None if index in failures else value for index, value in enumerate(self.values)]
        numbers = self.numbers.copy()
        if len(numbers):
            numbers[unexpected] = 0
        missing = unexpected if self.missing is None else self.missing | unexpected
        types = set(map(type, values)) - {type(None)}
        return Column(self.field, values, types, numbers, missing, unexpected)

    def only(self, rows: Sequence[int]) -> "Column":
        """The same of these rows alone, by their index, as if the others had not been read with them."""
        values = [self.values[row] for row in rows]
        numbers = self.numbers[rows] if len(self.numbers) else self.numbers
        marks = (
            None if bits is None or not bits[rows].any() else bits[rows] for bits in (self.missing, self.unexpected)
        )
        return Column(self.field, values, set(map(type, values)) - {type(None)}, numbers, *marks)

    def present(self, arrays: Iterable[FloatArray]) -> list[FloatArray]:
        """These arrays (B,) without the rows where the field is missing."""
        return list(arrays) if self.missing is None else [x[~self.missing] for x in arrays]


def is_whole(x: FloatArray) -> bool:
    """Whether these are whole numbers that a double holds exactly."""
    return bool((x == np.floor(x)).all()) and bool((np.abs(x) < 2**53).all())


def _unlike(z: FloatArray, imputed: float) -> float:
    """A number near `imputed` that is none of z in float32, so that it tells by itself that a value is missing."""
    taken, steps = set(z.astype(np.float32).tolist()), range(len(z) + 1)
    near = (float(np.float32(imputed + (step + 1) * NEAR)) for step in steps)
    return next(value for value in near if value not in taken)
