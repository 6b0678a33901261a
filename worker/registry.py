"""Named things that can be added from outside: field kinds, record formats, sinks, scores, losses, presets, policies.

    KINDS: Registry[FieldKind] = Registry("field kind")
    KINDS.register("currency", Currency())

A registry is filled while modules are imported, before settings are read, and is not changed afterwards.
"""

from collections.abc import Iterator
from typing import Generic, TypeVar

from worker.errors import SettingsError
from worker.texts import did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """Things of one sort by name, in the order in which they were registered.

    sort   what an entry is, for messages: "field kind"
    """

    def __init__(self, sort: str) -> None:
        self.sort = sort
        self._entries: dict[str, T] = {}

    def register(self, name: str, entry: T) -> T:
        """Adds an entry and returns it; ValueError where the name is taken."""
        if name in self._entries:
            raise ValueError(f"there is a {self.sort} {name!r} already")
        self._entries[name] = entry
        return entry

    def unregister(self, name: str) -> None:
        """Takes an entry out again, as a test does with its own; KeyError where there is none."""
        del self._entries[name]

    def names(self) -> tuple[str, ...]:
        """All names."""
        return tuple(self._entries)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __str__(self) -> str:
        """The names as a message lists them: "mse, rmse or max"."""
        *first, last = self._entries or ["none"]
        return f"{', '.join(first)} or {last}" if first else last

    def __getitem__(self, name: str) -> T:
        """The entry of this name; SettingsError, with the nearest name, where there is none."""
        if name not in self._entries:
            raise SettingsError(self.unknown(name))
        return self._entries[name]

    def unknown(self, name: str) -> str:
        """What to say of a name that nobody registered."""
        return f"unknown {self.sort} {name!r}{did_you_mean(name, self)}; there are {', '.join(self) or 'none'}"
