"""What every branch of the settings tree is made of."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints

Name = Annotated[str, StringConstraints(min_length=1, max_length=255)]


class Group(BaseModel):
    """A branch of the tree: frozen, and a name that it doesn't know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True, allow_inf_nan=False)


def empty_is_none(value: Any) -> Any:
    """An empty text switches off what it would name."""
    return None if value == "" else value
