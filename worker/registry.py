"""Named things that can be added from outside: field kinds, record formats, sinks, scores, losses, presets, policies.

    KINDS: Registry[FieldKind] = Registry("field kind")
    KINDS.register("currency", Currency())

A registry is filled while modules are imported, before settings are read, and is not changed afterwards.
"""

from typing import TypeVar

from typing_extensions import override

from worker.errors import SettingsError
from worker.texts import did_you_mean

T = TypeVar("T")


class Registry(dict[str, T]):
    """Things of one sort by name, in the order in which they were registered.

    sort   what an entry is, for messages: "field kind"

    `registry[name]` raises SettingsError, with the nearest name, where there is no entry of this name.
    """

    def __init__(self, sort: str) -> None:
        super().__init__()
        self.sort = sort

    def register(self, name: str, entry: T) -> None:
        """Adds an entry; ValueError where the name is taken."""
        if name in self:
            raise ValueError(f"there is a {self.sort} {name!r} already")
        self[name] = entry

    def unknown(self, name: str) -> str:
        """What to say of a name that nobody registered."""
        return f"unknown {self.sort} {name!r}{did_you_mean(name, self)}; there are {', '.join(self) or 'none'}"

    def __missing__(self, name: str) -> T:
        raise SettingsError(self.unknown(name))

    @override
    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(name)  # a setting may be a list, which has no hash

    def __str__(self) -> str:
        """The names as a message lists them: "mse, rmse or max"."""
        *first, last = self or ["none"]
        return f"{', '.join(first)} or {last}" if first else last
