"""What every branch of the settings tree is made of."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints
from pydantic_core import PydanticCustomError

Name = Annotated[str, StringConstraints(min_length=1, max_length=255)]


class Group(BaseModel):
    """A branch of the tree: frozen, and a name that it doesn't know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True, allow_inf_nan=False)


def empty_is_none(value: Any) -> Any:
    """An empty text switches off what it would name."""
    return None if value == "" else value


class Allowed:
    """A validator for values that a room below knows: a registry's names, or a range.

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
