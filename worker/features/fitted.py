"""All that a fit has learned about a schema's fields, as an object and as plain data, and what such data must be."""

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from worker.errors import BundleError
from worker.features.kinds.base import Field
from worker.features.kinds.lexicon import require_lexicon
from worker.features.learned import (
    PATTERN_KIND,
    CategoryColumn,
    FieldStats,
    Lexicon,
    MissingPattern,
    NumericColumn,
    pattern_name,
)
from worker.features.patterns import Patterns
from worker.features.scaling import FARTHEST, TRANSFORMS
from worker.features.schema import Schema
from worker.plain import read_plain
from worker.redaction import MASK, Redaction
from worker.texts import quoted

MAX_SPARE = 1_000_000  # ids of a column for values beyond its vocabulary, as the schema allows


@dataclass(frozen=True)
class Fitted:
    """What fitting learned about all fields: all that `Vectorizer` needs, and the way from model output to words.

    rows          how many rows it was learned from
    numeric       N columns, none for a cycle of time that the rows did not cover
    categorical   C columns, the last one is that of the missing patterns
    stats         one per encoded field
    lexicons      of the fields that learn more than a scale and a vocabulary
    redacted      the encoded fields of which it holds no value: tokens, coarse scales, no statistics
    check         of the secret behind the tokens, see Redaction.check; empty without redacted fields
    """

    schema: Schema
    rows: int
    numeric: tuple[NumericColumn, ...]
    categorical: tuple[CategoryColumn, ...]
    stats: tuple[FieldStats, ...]
    redacted: tuple[str, ...] = ()
    check: str = ""
    lexicons: tuple[Lexicon, ...] = ()

    @cached_property
    def reading(self) -> Schema:
        """The schema with fields that know what was learned of them: what records are read by."""
        lexicons = {lexicon.field: lexicon for lexicon in self.lexicons}
        fields = (f.knowing(lexicons[f.name]) if f.name in lexicons else f for f in self.schema.fields)
        return replace(self.schema, fields=tuple(fields)) if lexicons else self.schema

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Number of ids of each categorical column, length C."""
        return tuple(column.width for column in self.categorical)

    @cached_property
    def numeric_fields(self) -> tuple[str, ...]:
        """The field that each numeric column belongs to, length N."""
        return tuple(column.field for column in self.numeric)

    @cached_property
    def category_fields(self) -> tuple[str, ...]:
        """The field that each categorical column belongs to, length C; the last is `missing_pattern`."""
        return tuple(column.field for column in self.categorical)

    @property
    def missing_pattern(self) -> str:
        """The name of the missing patterns' column, which no field has."""
        return self.categorical[-1].field

    @cached_property
    def patterns(self) -> Patterns:
        """The missing patterns."""
        return Patterns([field.name for field in self.schema.encoded], self.categorical[-1].values)

    @cached_property
    def optional(self) -> frozenset[str]:
        """Names of the fields that some of the rows lacked, or held an unexpected value in."""
        kinds = ("absent", "free", "unexpected", "free_unexpected")
        return frozenset(name for pattern in self.patterns.patterns for of in kinds for name in getattr(pattern, of))

    @cached_property
    def stats_of(self) -> Mapping[str, FieldStats]:
        """The statistics by field name."""
        return {stats.field: stats for stats in self.stats}

    @cached_property
    def _vocabularies(self) -> Mapping[str, CategoryColumn]:
        return {column.field: column for column in self.categorical}

    @cached_property
    def _numbers_of(self) -> Mapping[str, tuple[Field, tuple[NumericColumn, ...]]]:
        return {f.name: (f, tuple(c for c in self.numeric if c.field == f.name)) for f in self.reading.fields}

    def expected(self, field: str, z: Sequence[float], category_id: int | None = None) -> Any:
        """What a reconstruction says that `field` should have been, in the record's own units.

        z             the reconstructed values of the field's numeric columns, in column order
        category_id   its most probable id, where the field has categories
        """
        if category_id is not None and field in self._vocabularies:
            return self._vocabularies[field].value(category_id)
        kind, columns = self._numbers_of.get(field, (None, ()))
        if kind is None or not columns or len(z) != len(columns):
            raise ValueError(f"{field!r} has {len(columns)} numeric columns, got {len(z)} values")
        return kind.read_back(columns, [float(value) for value in z])

    def observed(self, field: str, value: Any) -> Any:
        """What an explanation shows of a value that a record has in a field."""
        kind = self._numbers_of[field][0] if field in self._numbers_of else None
        return value if kind is None else kind.observed(value, self._vocabularies.get(field))

    def describe(self, field: str) -> str:
        """What is usual for an encoded field, in words."""
        if field in self.redacted:
            return MASK
        return self._numbers_of[field][0].describe(self.stats_of[field], self._vocabularies.get(field))

    def concealed(self, redaction: Redaction) -> "Fitted":
        """The same without the values of redacted fields, where it was learned before they were redacted; the scales
        stay. BundleError where its tokens are of another secret.
        """
        if self.redacted and self.check != redaction.check:
            raise BundleError("its redacted fields were learned with another [alerts.redact_secret]")
        names = covered(self.schema, redaction)
        if names == self.redacted:
            return self
        new = set(names) - set(self.redacted)
        # Lexicons stay: records are read by them, and nothing of them is shown or saved of what is concealed.
        categorical = tuple(
            replace(column, values=tuple(self._tokens(column, redaction))) if column.field in new else column
            for column in self.categorical
        )
        stats = tuple(FieldStats(entry.field) if entry.field in new else entry for entry in self.stats)
        return replace(self, categorical=categorical, stats=stats, redacted=names, check=redaction.check)

    def _tokens(self, column: CategoryColumn, redaction: Redaction) -> list[str]:
        kind, _ = self._numbers_of[column.field]
        return [kind.token(value, redaction.token) for value in column.values]

    def to_json(self) -> dict[str, Any]:
        """Plain data: dicts, lists, strings, numbers; equal objects give equal data. Of the schema the fingerprint."""
        names = ("numeric", "categorical", "stats", "lexicons")
        parts = {name: [asdict(entry) for entry in getattr(self, name)] for name in names}
        hidden = {"redacted": list(self.redacted), "check": self.check} if self.redacted else {}
        return {"schema_fingerprint": self.schema.fingerprint, "rows": self.rows, **parts, **hidden}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], schema: Schema) -> "Fitted":
        """The inverse of `to_json`, also after a round trip through JSON text; BundleError where parts are missing, or
        belong to another schema.
        """
        try:
            parts = read_plain(_Parts, data)
            if schema.fingerprint != parts.schema_fingerprint:
                learned = quoted(parts.schema_fingerprint)
                raise BundleError(f"the schema's fingerprint is {schema.fingerprint}, the model's is {learned}")
            *columns, patterns = [*parts.categorical] or [CategoryColumn("", "", ())]
            known = tuple(read_plain(MissingPattern, value) for value in patterns.values)
            categorical = (*columns, replace(patterns, values=known))
            hidden = parts.redacted, parts.check
            fitted = cls(schema, parts.rows, parts.numeric, categorical, parts.stats, *hidden, parts.lexicons)
            require_columns(fitted)
        except ValueError as error:
            raise BundleError(f"the fitted fields are incomplete or of another version: {error}") from error
        return fitted


@dataclass(frozen=True, slots=True)
class _Parts:
    """`Fitted.to_json` as it is read."""

    schema_fingerprint: str
    rows: int
    numeric: tuple[NumericColumn, ...]
    categorical: tuple[CategoryColumn, ...]
    stats: tuple[FieldStats, ...]
    redacted: tuple[str, ...] = ()
    check: str = ""
    lexicons: tuple[Lexicon, ...] = ()


def require_columns(fitted: Fitted) -> None:
    """ValueError, naming the column, where one doesn't belong to the schema, or numbers or ids could not be made of
    records by it, or words of them."""
    _require_lexicons(fitted)
    encoded = {field.name: field for field in fitted.reading.encoded}
    for place, column in enumerate(fitted.numeric):
        known = column.field in encoded and column.part in encoded[column.field].part_names()
        scales = column.transform in TRANSFORMS and column.scale > 0 and abs(column.imputed) <= FARTHEST
        if not (known and scales):
            raise ValueError(f"numeric[{place}], of field {quoted(column.field)}, is none of this schema's or unusable")
    for place, vocabulary in enumerate(fitted.categorical[:-1]):
        field = encoded.get(vocabulary.field)
        known = field is not None and field.has_categories and field.kind == vocabulary.kind
        if not known or not 0 <= vocabulary.spare <= MAX_SPARE or set(map(type, vocabulary.values)) - {str, int, bool}:
            raise ValueError(f"categorical[{place}], of field {quoted(vocabulary.field)}, is none of this schema's")
    patterns = fitted.categorical[-1]
    name = pattern_name([field.name for field in fitted.schema.fields])
    if (patterns.field, patterns.kind, patterns.spare) != (name, PATTERN_KIND, 0):
        raise ValueError("the last of categorical is not that of the missing patterns")
    _require_patterns(patterns.values, encoded.keys())
    _require_statistics(fitted, encoded.keys())
    _require_distinct(fitted)
    for field, columns in fitted._numbers_of.values():  # noqa: SLF001  # its own
        try:
            _ = columns and field.read_back(columns, [0.0] * len(columns))
        except LookupError as error:
            raise ValueError(f"numeric: a part of field {quoted(field.name)} is missing") from error


def _require_lexicons(fitted: Fitted) -> None:
    shown = {field.name: field for field in fitted.schema.encoded if field.name not in fitted.redacted}
    for lexicon in fitted.lexicons:
        field = shown.get(lexicon.field)
        if field is None or field.knowing(lexicon) is field:
            raise ValueError(f"lexicons: of {quoted(lexicon.field)}, where nothing is learned")
        try:
            require_lexicon(lexicon)
        except ValueError as error:
            raise ValueError(f"lexicons: of {quoted(lexicon.field)}: {error}") from error


def _require_patterns(patterns: Sequence[MissingPattern], names: Set[str]) -> None:
    for pattern in patterns:
        for ones, free in ((pattern.absent, pattern.free), (pattern.unexpected, pattern.free_unexpected)):
            if not names >= {*ones, *free} or {*ones} & {*free}:
                raise ValueError("a missing pattern is not made of the schema's fields")


def _require_statistics(fitted: Fitted, names: Collection[str]) -> None:
    for stats in fitted.stats:
        sizes = (stats.low, stats.median, stats.high)
        if isinstance(stats.top, dict | list) or (None in sizes and sizes != (None, None, None)):
            raise ValueError(f"stats of {quoted(stats.field)} are no statistics")
    if fitted.rows < 1 or set(names) != fitted.stats_of.keys():
        raise ValueError("stats: not those of the schema's fields")


def _require_distinct(fitted: Fitted) -> None:
    for what, entries in (
        ("numeric", [(column.field, column.part) for column in fitted.numeric]),
        ("categorical", fitted.category_fields),
        ("stats", [stats.field for stats in fitted.stats]),
        ("lexicons", [lexicon.field for lexicon in fitted.lexicons]),
        *((f"values of {quoted(column.field)}", _typed(column.values)) for column in fitted.categorical),
    ):
        if len(set(entries)) < len(entries):
            raise ValueError(f"{what}: something stands there twice")


def _typed(values: Sequence[Any]) -> list[tuple[type, Any]]:
    return [(type(value), value) for value in values]  # in Python, 1, 1.0 and True are the same


def covered(schema: Schema, redaction: Redaction) -> tuple[str, ...]:
    """The encoded fields that are redacted."""
    return tuple(field.name for field in schema.encoded if redaction.touches(field.name)) if redaction else ()
