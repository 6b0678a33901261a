"""What the tree says about each setting: its variable, its range, how its value is shown."""

import re
from collections.abc import Iterator
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from worker.settings.base import Allowed
from worker.settings.secrets import is_secret
from worker.settings.tree import PREFIX, Settings

MASK = "********"


def leaves(tree: type[BaseModel] = Settings, prefix: str = PREFIX) -> Iterator[tuple[str, str, FieldInfo]]:
    """Every setting below `tree`: (variable, dotted path in TOML, field)."""
    for name, field in tree.model_fields.items():
        variable = f"{prefix}{name.upper()}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            for below, path, leaf in leaves(field.annotation, f"{variable}__"):
                yield below, f"{name}.{path}", leaf
        else:
            yield variable, name, field


def variable_of(path: str) -> str | None:
    """The environment variable of a setting's path, such as model.hidden; None where there is no such setting."""
    return next((name for name, known, _ in leaves() if known == path), None)


def allowed(field: FieldInfo) -> str:
    """The range of a setting in words."""
    extra = field.json_schema_extra
    if isinstance(extra, dict):
        return str(extra["allowed"])
    known = [rule.func for rule in field.metadata if isinstance(getattr(rule, "func", None), Allowed)]
    if known:
        return str(known[0])
    kinds = get_args(field.annotation) if get_origin(field.annotation) in {Union, UnionType} else (field.annotation,)
    kind = next(kind for kind in kinds if kind is not type(None))
    if get_origin(kind) is Literal:
        *first, last = map(str, get_args(kind))
        return f"{', '.join(first)} or {last}"
    if kind not in {int, float}:
        return "text"
    limits = {
        name: getattr(rule, name) for rule in field.metadata for name in ("ge", "gt", "le", "lt") if hasattr(rule, name)
    }
    low = f"{limits['ge']:.10g}" if "ge" in limits else f"above {limits['gt']:.10g}"
    high = f"to {limits['le']:.10g}" if "le" in limits else f"and below {limits['lt']:.10g}"
    return f"{low} {high}"


def shown(name: str, value: Any) -> str:
    """A value for an error message or a log: secrets and passwords in URLs are masked."""
    may_hold_secrets = "OPTIONS" in name.upper() and "MODEL__OPTIONS" not in name.upper()
    if is_secret(name) or may_hold_secrets or isinstance(value, SecretStr):
        return MASK
    text = repr(value) if isinstance(value, str) else str(value)
    text = re.sub(r"://[^@/\s]+@", f"://{MASK}@", text)
    return text if len(text) <= 200 else f"{text[:200]}…"
