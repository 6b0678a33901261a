"""The schema: which fields of a record the model sees, and how.

    strict = true               # optional: a record with a value that its field can't read is a dead letter
    [fields.amount]
    kind = "numeric"            # one of worker.features.kinds.KINDS
    [fields."merchant.country"] # a dot reaches into nested JSON
    kind = "categorical"
    [report.image]              # optional: fields that form a picture in the report; no model sees that they do
    fields = ["p0", "p1", …]    # numeric fields, row by row from the top left
    width = 8                   # pixels in a row

A record that has the literal key "merchant.country" is read at that key; see worker.features.paths.
"""

import hashlib
import json
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from worker.errors import SchemaError
from worker.features.kinds import KINDS, Numeric
from worker.features.kinds.base import Column, Failures, Field
from worker.features.paths import NotAnObject, column_of, dots, inside
from worker.formats.base import Row
from worker.texts import did_you_mean, printable

MAX_PIXELS = 4096


class Image(NamedTuple):
    """fields are the names of the pixels, row by row; width is the number of pixels in a row."""

    fields: tuple[str, ...]
    width: int


@dataclass(frozen=True)
class Schema:
    """The fields in file order; their names are unique and at least one is encoded, else SchemaError.

    image    fields that form a picture in a report; no part of the fingerprint
    strict   a record with a value that its field can't read is a dead letter
    """

    fields: tuple[Field, ...]
    image: Image | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        for name, count in Counter(field.name for field in self.fields).items():
            if count > 1:
                raise SchemaError(f"field {name!r} appears twice")
        if not any(field.encoded for field in self.fields):
            raise SchemaError("no field that a model could learn from: all are id or ignore, or there is none")
        clocks = [repr(field.name) for field in self.fields if field.options().get("event_time")]
        if len(clocks) > 1:
            raise SchemaError(f"only one field can be the event time, not {', '.join(clocks)}")

    @cached_property
    def encoded(self) -> tuple[Field, ...]:
        """The fields that the model sees."""
        return tuple(field for field in self.fields if field.encoded)

    @cached_property
    def event_time_field(self) -> str | None:
        """Name of the field that gives a record's event time; None = the broker's timestamp does."""
        clocks = [field for field in self.fields if field.is_time]
        marked = [field for field in clocks if field.options().get("event_time")]
        return next((field.name for field in (*marked, *clocks)), None)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Names of the fields that are carried into the alert and never encoded."""
        return tuple(field.name for field in self.fields if field.is_id)

    @cached_property
    def redacted(self) -> frozenset[str]:
        """Names of the fields whose values an alert must not show."""
        return frozenset(field.name for field in self.fields if field.redact)

    @cached_property
    def prefixed(self) -> frozenset[str]:
        """Names that begin like another field's and a dot: `a.b` beside `a`. Where they are read, a value at `a` is
        that other field's, and no object that is broken.
        """
        names = {field.name for field in self.fields}
        return frozenset(name for name in names if any(name[:at] in names for at in dots(name)))

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) of the canonical JSON of all fields, their order and all their options."""
        plain: list[dict[str, Any]] = [
            {"name": field.name, "kind": field.kind, **field.options()} for field in self.fields
        ]
        plain += [{"strict": True}] if self.strict else []
        text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def without(self, names: Iterable[str]) -> "Schema":
        """This schema without these fields and all that is nested in them; unknown names are no error."""
        names = list(names)
        kept = tuple(
            _without(field, names)
            for field in self.fields
            if not any(field.name in (name, name + "[]") or inside(field.name, name) is not None for name in names)
        )
        if kept == self.fields:
            return self
        is_whole = self.image is not None and {field.name for field in kept}.issuperset(self.image.fields)
        return replace(self, fields=kept, image=self.image if is_whole else None)

    def to_toml(self, comments: Mapping[str, str] | None = None) -> str:
        """The schema file's text: options that differ from their default, a comment line above each field."""
        blocks = ["strict = true\n"] if self.strict else []
        for field in self.fields:
            default = type(field)(field.name).options()
            lines = [f"# {printable(line)}" for line in (comments or {}).get(field.name, "").splitlines()]
            lines += [f"[fields.{_quoted(field.name)}]", f'kind = "{field.kind}"']
            lines += [f"{key} = {_toml(value)}" for key, value in field.options().items() if value != default.get(key)]
            blocks.append("\n".join(lines) + "\n")
        if self.image is not None:
            fields = _toml(list(self.image.fields))
            blocks.append(f"[report.image]\nfields = {fields}\nwidth = {self.image.width}\n")
        return "\n".join(blocks)


def _without(field: Field, names: Iterable[str]) -> Field:
    for name in names:
        path = inside(name, field.name)
        field = field if path is None else field.without(path)
    return field


def read_columns(schema: Schema, rows: Sequence[Row]) -> tuple[list[Column], Failures]:
    """All fields that are read, as columns of those rows that can be used; for the others, by index, the first reason
    why not.

    A value that can't be read is missing and unexpected. A row can't be used where it is that of a required field, or
    no encoded field of the row has another one; and where the schema is strict.
    """
    columns: list[Column] = []
    failures: Failures = {}
    unread: Failures = {}  # rows with an unexpected value, each with what is said of the first
    for field in schema.fields:
        if not (field.encoded or field.required or field.is_time):
            continue
        values = column_of(rows, field.name)
        if field.name in schema.prefixed:
            values = [None if type(value) is NotAnObject else value for value in values]
        column, failed = field.read(values)
        is_fatal = schema.strict or field.required
        columns.append(column.without(failed) if failed and not is_fatal else column)
        for index, error in failed.items():
            (failures if is_fatal else unread).setdefault(index, error)
    if unread:
        there = _has_values(columns, sorted(unread))
        for index in (index for index, has_one in zip(sorted(unread), there, strict=True) if not has_one):
            failures.setdefault(index, unread[index])
    if failures:  # what stands in their columns is anything; nothing of it may reach their neighbours
        kept = [index for index in range(len(rows)) if index not in failures]
        columns = [column.only(kept) for column in columns]
    return columns, failures


def _has_values(columns: Sequence[Column], rows: Sequence[int]) -> list[bool]:
    """Whether an encoded field of each of these rows has a value."""
    there = np.zeros(len(rows), bool)
    for column in columns:
        if column.field.encoded:
            there |= True if column.missing is None else ~column.missing[rows]
    return there.tolist()


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
        return _parse_document(tomllib.loads(text))
    except RecursionError as error:
        raise SchemaError(f"{source}: nested too deeply") from error
    except tomllib.TOMLDecodeError as error:
        raise SchemaError(f"{source}: not valid TOML: {error}") from error
    except SchemaError as error:
        raise SchemaError(f"{source}: {error}") from None


def _parse_document(document: Mapping[str, Any]) -> Schema:
    for key in document:
        if key not in ("fields", "report", "strict"):
            hint = did_you_mean(key, ("fields", "report", "strict"))
            raise SchemaError(f"unknown key {key!r}{hint}; a schema has [fields.NAME] tables")
    strict = document.get("strict", False)
    if not isinstance(strict, bool):
        raise SchemaError(f"strict = {strict!r} must be true or false")
    tables = document.get("fields", {})
    if not isinstance(tables, dict):
        raise SchemaError("'fields' must hold [fields.NAME] tables")
    fields = tuple(_parse_field(name, table) for name, table in tables.items())
    return Schema(fields, _parse_report(document.get("report", {}), fields), strict)


def _parse_field(name: str, table: Any) -> Field:
    where = f"field {name!r}"
    if not isinstance(table, dict):
        raise SchemaError(f'{where} must be a table: [fields.{_quoted(name)}] with kind = "..."')
    for key, value in table.items():
        if isinstance(value, dict):
            raise SchemaError(f"{where}: for a nested field write [fields.{_quoted(f'{name}.{key}')}], quoted")
    kind = table.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        what = "has no kind" if kind is None else f"has unknown kind {kind!r}{did_you_mean(kind, KINDS)}"
        raise SchemaError(f"{where} {what}; kinds are {', '.join(KINDS)}")
    values, checks = {}, KINDS[kind].checks()
    for key, value in table.items():
        if key == "kind":
            continue
        if key not in checks:
            what = f"a {kind} field has no option {key!r}{did_you_mean(key, checks)}"
            raise SchemaError(f"{where}: {what}; options are {', '.join(checks)}")
        if not checks[key].accepts(value):
            raise SchemaError(f"{where}: {key} = {value!r} must be {checks[key].expected}")
        values[key] = checks[key].convert(value)
    return KINDS[kind](name, **values)


def _parse_report(table: Any, schema_fields: Sequence[Field]) -> Image | None:
    if table == {}:
        return None
    if not isinstance(table, dict) or set(table) != {"image"}:
        raise SchemaError("[report] holds one table, [report.image], with fields and width")
    image = table["image"]
    if not isinstance(image, dict) or set(image) != {"fields", "width"}:
        raise SchemaError("[report.image] needs fields (a list of names) and width (pixels in a row), and nothing else")
    fields, width = image["fields"], image["width"]
    if not isinstance(fields, list) or not 1 <= len(fields) <= MAX_PIXELS:
        raise SchemaError(f"[report.image] fields must be a list of 1 to {MAX_PIXELS} names of numeric fields")
    numeric = {field.name for field in schema_fields if isinstance(field, Numeric)}
    for name in fields:
        if not isinstance(name, str) or name not in numeric:
            raise SchemaError(f"[report.image] fields names {name!r}, which is no numeric field of this schema")
    if type(width) is not int or width < 1 or len(fields) % width:
        raise SchemaError(f"[report.image] width = {width!r}: must be a whole number that divides {len(fields)} fields")
    return Image(tuple(fields), width)


def _quoted(name: str) -> str:
    bare = name and all(c.isascii() and (c.isalnum() or c in "-_") for c in name)
    return name if bare else _toml(name)


def _toml(value: Any) -> str:
    # A JSON string is a TOML basic string, except that TOML wants DEL escaped and knows no surrogate pairs.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
