"""The schema: which fields of a record the model sees, and how.

    [fields.amount]
    kind = "numeric"            # numeric | categorical | boolean | timestamp | text | id | ignore
    [fields."merchant.country"] # a dot reaches into nested JSON
    kind = "categorical"
    [report.image]              # optional: numeric fields that form a picture, see worker.features.image

A record that has the literal key "merchant.country" is read at that key; the nested path comes second.
"""

import hashlib
import json
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from worker.errors import SchemaError
from worker.features.image import Image, parse_report
from worker.texts import did_you_mean

Kind = Literal["numeric", "categorical", "boolean", "timestamp", "text", "id", "ignore"]
KINDS: tuple[str, ...] = get_args(Kind)
TRANSFORMS = ("auto", "linear", "log1p")
CYCLES = ("hour", "weekday")
TIME_FORMATS = ("auto", "iso8601", "epoch_s", "epoch_ms", "epoch_us", "epoch_ns")

_COMMON = ("required", "redact")
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "numeric": (*_COMMON, "transform", "range"),
    "categorical": (*_COMMON, "max_values", "hash_buckets"),
    "boolean": _COMMON,
    "timestamp": (*_COMMON, "format", "cyclical", "event_time"),
    "text": (*_COMMON, "max_values", "hash_buckets"),
    "id": _COMMON,
    "ignore": ("redact",),
}


@dataclass(frozen=True)
class Field:
    """One field of a record.

    name: key in the record, dots reach into nested objects.
    required: a record without it (absent or null) is a `missing_field` dead letter.
    redact: alerts show a mark instead of the value.
    transform (numeric): "log1p" takes sign(x) log(1 + |x|) first, "auto" decides from the data.
    range (numeric): smallest and largest value that can occur, for models that scale to [0, 1]; None = as fitted.
    max_values (categorical, text): size of the vocabulary; rarer values share one code, or `hash_buckets` codes.
    format (timestamp): "auto", "iso8601", "epoch_s|ms|us|ns", or a strptime pattern with a percent sign; UTC where
    the value names no zone.
    cyclical (timestamp): which cycles the model sees; none of them = the field gives the event time only.
    event_time (timestamp): this field is the record's event time (default: the schema's first timestamp).
    """

    name: str
    kind: Kind
    required: bool = False
    redact: bool = False
    transform: str = "auto"
    max_values: int = 1024
    hash_buckets: int = 0
    format: str = "auto"
    cyclical: tuple[str, ...] = CYCLES
    event_time: bool = False
    range: tuple[float, float] | None = None

    @property
    def encoded(self) -> bool:
        """Whether the model sees this field at all."""
        return self.kind not in ("id", "ignore") and not (self.kind == "timestamp" and not self.cyclical)

    def options(self) -> dict[str, Any]:
        """Every option of this kind with its value, as plain data; a range only where there is one."""
        values = {name: getattr(self, name) for name in _OPTIONS[self.kind]}
        if self.range is None:
            values.pop("range", None)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


@dataclass(frozen=True)
class Schema:
    """The fields in file order; their names are unique and at least one is encoded, else SchemaError.

    image: fields that form a picture in a report; no part of the fingerprint.
    """

    fields: tuple[Field, ...]
    image: Image | None = None

    def __post_init__(self) -> None:
        for name, count in Counter(field.name for field in self.fields).items():
            if count > 1:
                raise SchemaError(f"field {name!r} appears twice")
        if not any(field.encoded for field in self.fields):
            raise SchemaError("no field that a model could learn from: all are id or ignore, or there is none")
        clocks = [field.name for field in self.fields if field.event_time]
        if len(clocks) > 1:
            raise SchemaError(f"only one field can be the event time, not {', '.join(map(repr, clocks))}")

    @cached_property
    def encoded(self) -> tuple[Field, ...]:
        """The fields that the model sees."""
        return tuple(field for field in self.fields if field.encoded)

    @cached_property
    def event_time_field(self) -> str | None:
        """Name of the field that gives a record's event time; None = the broker's timestamp does."""
        clocks = [field for field in self.fields if field.kind == "timestamp"]
        clocks.sort(key=lambda field: not field.event_time)
        return clocks[0].name if clocks else None

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Names of the fields that are carried into the alert and never encoded."""
        return tuple(field.name for field in self.fields if field.kind == "id")

    @cached_property
    def redacted(self) -> frozenset[str]:
        """Names of the fields whose values an alert must not show."""
        return frozenset(field.name for field in self.fields if field.redact)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) of the canonical JSON of all fields, their order and all their options."""
        plain = [{"name": field.name, "kind": field.kind, **field.options()} for field in self.fields]
        text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def without(self, names: Iterable[str]) -> "Schema":
        """This schema without these fields and all that is nested in them; unknown names are no error."""
        gone = tuple(names)
        prefixes = tuple(name + "." for name in gone)
        kept = tuple(f for f in self.fields if f.name not in gone and not f.name.startswith(prefixes))
        if len(kept) == len(self.fields):
            return self
        names_left = {f.name for f in kept}
        image = self.image if self.image is not None and names_left.issuperset(self.image.fields) else None
        return replace(self, fields=kept, image=image)

    def to_toml(self, comments: Mapping[str, str] | None = None) -> str:
        """The schema file's text: options that differ from their default, a comment line above each field."""
        blocks = []
        for field in self.fields:
            default = Field(field.name, field.kind).options()
            lines = [f"# {line}" for line in (comments or {}).get(field.name, "").splitlines()]
            lines += [f"[fields.{_quoted(field.name)}]", f'kind = "{field.kind}"']
            lines += [f"{key} = {_toml(value)}" for key, value in field.options().items() if value != default.get(key)]
            blocks.append("\n".join(lines) + "\n")
        if self.image is not None:
            fields = _toml(list(self.image.fields))
            blocks.append(f"[report.image]\nfields = {fields}\nwidth = {self.image.width}\n")
        return "\n".join(blocks)


def load_schema(path: str | Path) -> Schema:
    """The schema in this TOML file; SchemaError names the file and what is wrong in it."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SchemaError(f"{path}: can't be read: {error}") from error
    return parse_schema(text, source=str(path))


def parse_schema(text: str, *, source: str = "schema") -> Schema:
    """The schema in this TOML text; `source` names it in errors."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SchemaError(f"{source}: not valid TOML: {error}") from error
    try:
        return _parse_document(document)
    except SchemaError as error:
        raise SchemaError(f"{source}: {error}") from None


def _parse_document(document: Mapping[str, Any]) -> Schema:
    for key in document:
        if key not in ("fields", "report"):
            raise SchemaError(
                f"unknown key {key!r}{did_you_mean(key, ('fields', 'report'))}; a schema has [fields.NAME] tables"
            )
    fields = document.get("fields", {})
    if not isinstance(fields, dict):
        raise SchemaError("'fields' must hold [fields.NAME] tables")
    parsed = tuple(_parse_field(name, options) for name, options in fields.items())
    numeric = {field.name for field in parsed if field.kind == "numeric"}
    return Schema(parsed, parse_report(document.get("report", {}), numeric))


def _parse_field(name: str, table: Any) -> Field:
    where = f"field {name!r}"
    if not isinstance(table, dict):
        raise SchemaError(f'{where} must be a table: [fields.{_quoted(name)}] with kind = "..."')
    nested = next((key for key, value in table.items() if isinstance(value, dict)), None)
    if nested is not None:
        raise SchemaError(f"{where}: for a nested field write [fields.{_quoted(f'{name}.{nested}')}], quoted")
    kind = table.get("kind")
    if kind not in KINDS:
        said = "has no kind" if kind is None else f"has unknown kind {kind!r}{did_you_mean(kind, KINDS)}"
        raise SchemaError(f"{where} {said}; kinds are {', '.join(KINDS)}")
    known = _OPTIONS[kind]
    values = {}
    for key, value in table.items():
        if key == "kind":
            continue
        if key not in known:
            hint = did_you_mean(key, known)
            raise SchemaError(f"{where}: a {kind} field has no option {key!r}{hint}; options are {', '.join(known)}")
        values[key] = _check(where, key, value)
    return Field(name, kind, **values)


def _check(where: str, key: str, value: Any) -> Any:
    if key in ("required", "redact", "event_time"):
        wanted, right = "true or false", isinstance(value, bool)
    elif key == "transform":
        wanted, right = "one of " + ", ".join(TRANSFORMS), value in TRANSFORMS
    elif key == "format":
        wanted = f"one of {', '.join(TIME_FORMATS)}, or a strptime pattern such as %d/%b/%Y:%H:%M:%S"
        right = isinstance(value, str) and (value in TIME_FORMATS or _is_pattern(value))
    elif key == "range":
        wanted, right = "[low, high], two finite numbers with low below high", _is_range(value)
        value = (float(value[0]), float(value[1])) if right else value
    elif key == "cyclical":
        wanted = "a list with any of " + ", ".join(CYCLES)
        right = isinstance(value, list) and all(c in CYCLES for c in value) and len(set(value)) == len(value)
        value = tuple(c for c in CYCLES if c in value) if right else value
    else:
        least = 1 if key == "max_values" else 0
        wanted = f"a whole number from {least} to 1000000"
        right = isinstance(value, int) and not isinstance(value, bool) and least <= value <= 1_000_000
    if not right:
        raise SchemaError(f"{where}: {key} = {value!r} must be {wanted}")
    return value


def _is_range(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 2 or not all(type(end) in (int, float) for end in value):
        return False
    return all(-1e300 <= end <= 1e300 for end in value) and bool(value[0] < value[1])


def _is_pattern(text: str) -> bool:
    try:
        datetime.strptime(datetime(2000, 1, 1, tzinfo=UTC).strftime(text), text)
    except ValueError:
        return False
    return "%" in text


def _quoted(name: str) -> str:
    bare = name and all(c.isascii() and (c.isalnum() or c in "-_") for c in name)
    return name if bare else _toml(name)


def _toml(value: Any) -> str:
    # A JSON string is a TOML basic string, except that TOML wants DEL escaped and knows no surrogate pairs.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
