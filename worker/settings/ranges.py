"""What the tree says about each setting: its variable, its allowed range, and how its value is shown."""

import re
from collections.abc import Iterator
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from worker.settings.group import Allowed
from worker.settings.options import is_secret
from worker.settings.tree import PREFIX

MASK = "********"


def leaves(tree: type[BaseModel], prefix: str = PREFIX) -> Iterator[tuple[str, str, FieldInfo]]:
    """Every setting below `tree`: (variable, dotted path in TOML, field)."""
    for name, field in tree.model_fields.items():
        variable = f"{prefix}{name.upper()}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            for below, path, leaf in leaves(field.annotation, f"{variable}__"):
                yield below, f"{name}.{path}", leaf
        else:
            yield variable, name, field


def allowed(field: FieldInfo) -> str:
    """The range of a setting in words."""
    extra = field.json_schema_extra
    if isinstance(extra, dict) and "allowed" in extra:
        return str(extra["allowed"])
    known = [rule.func for rule in field.metadata if isinstance(getattr(rule, "func", None), Allowed)]
    if known:
        return str(known[0])
    kind = _without_none(field.annotation)
    if get_origin(kind) is Literal:
        *first, last = [str(choice) for choice in get_args(kind)]
        return f"{', '.join(first)} or {last}" if first else last
    if kind is bool:
        return "true or false"
    if kind in {int, float}:
        return _bounds(field)
    return _text(field)


def _without_none(kind: Any) -> Any:
    if get_origin(kind) in {Union, UnionType}:
        (kind,) = (part for part in get_args(kind) if part is not type(None))
    return get_args(kind)[0] if hasattr(kind, "__metadata__") else kind


def _bounds(field: FieldInfo) -> str:
    rules = [(name, getattr(rule, name, None)) for rule in field.metadata for name in ("ge", "gt", "le", "lt")]
    found = {name: limit for name, limit in rules if limit is not None}
    low = f"{found['ge']:.10g}" if "ge" in found else f"above {found['gt']:.10g}"
    high = f"to {found['le']:.10g}" if "le" in found else f"and below {found['lt']:.10g}"
    return f"{low} {high}"


def _text(field: FieldInfo) -> str:
    is_topic = "249" in repr(field.metadata) + repr(field.annotation)
    return "1 to 249 of a-z A-Z 0-9 . _ -" if is_topic else "text"


def shown(name: str, value: Any) -> str:
    """A value for an error message or a log: secrets and passwords in URLs are masked."""
    may_hold_secrets = "OPTIONS" in name.upper() and "MODEL__OPTIONS" not in name.upper()
    if is_secret(name) or may_hold_secrets or isinstance(value, SecretStr):
        return MASK
    text = repr(value) if isinstance(value, str) else str(value)
    text = re.sub(r"://[^@/\s]+@", f"://{MASK}@", text)
    return text if len(text) <= 200 else f"{text[:200]}…"
