"""What every branch of the settings tree is made of."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

Name = Annotated[str, StringConstraints(min_length=1, max_length=255)]


class Group(BaseModel):
    """A branch of the tree: frozen, and a name that it doesn't know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True, allow_inf_nan=False)


def setting(
    default: Any,
    description: str,
    *,
    within: tuple[float, float] | None = None,
    gt: float | None = None,
    lt: float | None = None,
    le: float | None = None,
    allowed: str | None = None,
) -> Any:
    """One setting.

    default       works without anything else being set
    description   one line of help, in Markdown
    within        of a number: its bounds, both allowed; gt, lt, le: where one of them isn't
    allowed       its range in words, where type, bounds and validators don't tell
    """
    ge, le = within or (None, le)
    extra: Any = None if allowed is None else {"allowed": allowed}
    return Field(default=default, description=description, ge=ge, gt=gt, lt=lt, le=le, json_schema_extra=extra)


class Allowed:
    """A validator for values that a registry or a range knows.

    read   returns them: `value in …` tells, and their text follows "allowed is". It is called when a value is set and
           when the range is shown, so that reading the settings does not import torch and what else they need
    """

    def __init__(self, read: Callable[[], Any]) -> None:
        self._read = read

    def __call__(self, value: Any) -> Any:
        """The value, where it is one of them or not set."""
        if value is not None and value not in self._read():
            raise PydanticCustomError("not_allowed", "is not allowed")
        return value

    def __str__(self) -> str:
        return str(self._read())


def registered(module: str, registry: str) -> AfterValidator:
    """The names of a registry, such as POLICIES of worker.thresholds.factory."""
    return AfterValidator(Allowed(lambda: getattr(import_module(module), registry)))


@dataclass(frozen=True, slots=True)
class Text:
    """Texts that match a pattern as a whole, and the words for them."""

    pattern: str
    words: str

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, str) and re.fullmatch(self.pattern, value) is not None

    def __str__(self) -> str:
        return self.words


def matching(pattern: str, words: str) -> AfterValidator:
    """Texts that match a pattern as a whole; words: the same for people."""
    return AfterValidator(Allowed(lambda: Text(pattern, words)))


def empty_is_none(value: Any) -> Any:
    """An empty text switches off what it would name."""
    return None if value == "" else value


def parse_list(value: Any) -> Any:
    """`a,b` or a JSON array as a list; anything that is no text stays as it is."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [part.strip() for part in value.split(",") if part.strip()]


def parse_object(value: Any, example: str) -> dict[str, Any]:
    """A JSON object from its text, or a table as it is; ValueError for anything else."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise ValueError(f"is not valid JSON ({error.msg} at character {error.pos + 1})") from None
    if not isinstance(value, dict):
        raise ValueError(f"must be a JSON object such as {example}")  # noqa: TRY004 - pydantic takes ValueError
    return value
