"""The schema: which fields of a record the model sees, and how.

    [fields.amount]
    kind = "numeric"            # one of worker.features.kinds.KINDS
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
from functools import cached_property
from pathlib import Path
from typing import Any

from worker.errors import SchemaError
from worker.features.image import Image, parse_report
from worker.features.kinds import KINDS, Numeric
from worker.features.kinds.base import Field
from worker.texts import did_you_mean

__all__ = ["Field", "Schema", "load_schema", "parse_schema"]


@dataclass(frozen=True)
class Schema:
    """The fields in file order; their names are unique and at least one is encoded, else SchemaError.

    image   fields that form a picture in a report; no part of the fingerprint
    """

    fields: tuple[Field, ...]
    image: Image | None = None

    def __post_init__(self) -> None:
        for name, count in Counter(field.name for field in self.fields).items():
            if count > 1:
                raise SchemaError(f"field {name!r} appears twice")
        if not any(field.encoded for field in self.fields):
            raise SchemaError("no field that a model could learn from: all are id or ignore, or there is none")
        clocks = [field.name for field in self.fields if _is_marked(field)]
        if len(clocks) > 1:
            raise SchemaError(f"only one field can be the event time, not {', '.join(map(repr, clocks))}")

    @cached_property
    def encoded(self) -> tuple[Field, ...]:
        """The fields that the model sees."""
        return tuple(field for field in self.fields if field.encoded)

    @cached_property
    def event_time_field(self) -> str | None:
        """Name of the field that gives a record's event time; None = the broker's timestamp does."""
        clocks = sorted((field for field in self.fields if field.is_time), key=lambda field: not _is_marked(field))
        return clocks[0].name if clocks else None

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Names of the fields that are carried into the alert and never encoded."""
        return tuple(field.name for field in self.fields if field.is_id)

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
            default = type(field)(field.name).options()
            lines = [f"# {line}" for line in (comments or {}).get(field.name, "").splitlines()]
            lines += [f"[fields.{_quoted(field.name)}]", f'kind = "{field.kind}"']
            lines += [f"{key} = {_toml(value)}" for key, value in field.options().items() if value != default.get(key)]
            blocks.append("\n".join(lines) + "\n")
        if self.image is not None:
            fields = _toml(list(self.image.fields))
            blocks.append(f"[report.image]\nfields = {fields}\nwidth = {self.image.width}\n")
        return "\n".join(blocks)


def _is_marked(field: Field) -> bool:
    return bool(field.options().get("event_time"))


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
            hint = did_you_mean(key, ("fields", "report"))
            raise SchemaError(f"unknown key {key!r}{hint}; a schema has [fields.NAME] tables")
    tables = document.get("fields", {})
    if not isinstance(tables, dict):
        raise SchemaError("'fields' must hold [fields.NAME] tables")
    fields = tuple(_parse_field(name, table) for name, table in tables.items())
    numeric = {field.name for field in fields if isinstance(field, Numeric)}
    return Schema(fields, parse_report(document.get("report", {}), numeric))


def _parse_field(name: str, table: Any) -> Field:
    where = f"field {name!r}"
    if not isinstance(table, dict):
        raise SchemaError(f'{where} must be a table: [fields.{_quoted(name)}] with kind = "..."')
    nested = next((key for key, value in table.items() if isinstance(value, dict)), None)
    if nested is not None:
        raise SchemaError(f"{where}: for a nested field write [fields.{_quoted(f'{name}.{nested}')}], quoted")
    kind = table.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        what = "has no kind" if kind is None else f"has unknown kind {kind!r}{did_you_mean(kind, KINDS)}"
        raise SchemaError(f"{where} {what}; kinds are {', '.join(KINDS)}")
    try:
        return KINDS[kind].parsed(name, {key: value for key, value in table.items() if key != "kind"})
    except SchemaError as error:
        raise SchemaError(f"{where}: {error}") from None


def _quoted(name: str) -> str:
    bare = name and all(c.isascii() and (c.isalnum() or c in "-_") for c in name)
    return name if bare else _toml(name)


def _toml(value: Any) -> str:
    # A JSON string is a TOML basic string, except that TOML wants DEL escaped and knows no surrogate pairs.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
