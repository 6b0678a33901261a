"""The pointer document of the model store: which version is current, and what was decided about each.

It is the only file of the store that changes, and whoever can write it decides which folders are removed and what is
printed: every name in it is checked before it becomes a path.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, Final

import orjson

from worker.errors import Hint, StoreConflict, StoreError
from worker.model.store.bundle import NAME
from worker.plain import read_json, read_plain
from worker.texts import parse_iso_time, quoted

POINTER = "current.json"
MAX_POINTER_BYTES = 16 << 20
MAX_SERIAL = 1 << 53
MAX_HISTORY = 20
MAX_MARKS_OF_REMOVED = 200
ANY: Final = "any"
"""For `promote`: whatever is current now. No version has this name."""


class Status(StrEnum):
    """What was decided about a version."""

    CANDIDATE = "candidate"
    PROMOTED = "promoted"
    REJECTED = "rejected"
    HELD = "held"  # a possible change of regime, which waits for a person or for time
    VETOED = "vetoed"
    ROLLED_BACK = "rolled_back"


NEVER_AGAIN = frozenset({Status.VETOED, Status.ROLLED_BACK})
FORCED_OVER = "forced_over"
"""Figure of a promotion that was forced: what had been decided about the version."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One decision.

    at       RFC 3339, UTC
    by       trainer, worker or operator
    why      for people
    figures  plain data, for JSON
    """

    status: Status
    at: str
    by: str
    why: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def forced(self) -> bool:
        """Whether it promotes a version although that was vetoed or rolled back."""
        return FORCED_OVER in self.figures


@dataclass(frozen=True, slots=True)
class Pointer:
    """The document.

    version   the current one, None before there is one
    history   those that were current before, newest last
    marks     what was decided about each
    removing  versions whose files are being removed, never to be promoted
    serial    counts the changes
    """

    version: str | None = None
    history: tuple[str, ...] = ()
    marks: Mapping[str, Mark] = field(default_factory=dict)
    removing: tuple[str, ...] = ()
    serial: int = 0

    def to_bytes(self) -> bytes:
        """The file's content; StoreError where it would be one that nobody reads."""
        document = asdict(self)
        content = orjson.dumps({**document, "sha256": _digest(document)}, option=orjson.OPT_SORT_KEYS)
        self.from_bytes(content, POINTER)
        return content

    @classmethod
    def from_bytes(cls, content: bytes, where: str) -> "Pointer":
        """The inverse; StoreError, naming the file, where it is broken, or names what can't be a version."""
        try:
            pointer = read_plain(cls, _document(content))
            pointer.require_sound()
        except (ValueError, TypeError) as error:  # TypeError: a number or a text that JSON can't carry back
            raise StoreError(f"{where}: broken ({quoted(error)})", hint=Hint.PROMOTE_A_VERSION) from error
        return pointer

    def require_sound(self) -> None:
        """ValueError where a name is none of a version, and so may be a path, or a mark has no time."""
        for name in (*self.history, *self.marks, *self.removing, *([] if self.version is None else [self.version])):
            if not NAME.fullmatch(name):
                raise ValueError(f"{quoted(name)} is no name of a version")
        if self.version in self.removing:
            raise ValueError(f"the current version {self.version} is being removed")
        if not 0 <= self.serial <= MAX_SERIAL:
            raise ValueError(f"serial is {self.serial}")
        for mark in self.marks.values():
            parse_iso_time(mark.at)

    def marked(self, version: str, mark: Mark) -> "Pointer":
        """With this mark in the place of the version's earlier one."""
        return replace(self, marks={**self.marks, version: mark})

    def promoted(self, version: str, mark: Mark, *, expected: str | None, force: bool) -> "Pointer":
        """With this version as the current one.

        StoreConflict where another than `expected` is current, or the version is being removed; StoreError where it
        was vetoed or rolled back, unless forced. A promotion that is there already, by this very mark, is no conflict:
        the answer to a write can get lost and the write be tried again.
        """
        known = self.marks.get(version)
        if self.version == version and known is not None and (known.at, known.by) == (mark.at, mark.by):
            return self
        self.require_current(expected)
        if version in self.removing:
            raise StoreConflict(f"model version {version} is being removed from the store")
        if known is not None and known.status in NEVER_AGAIN:
            if not force:
                raise StoreError(
                    f"model version {version} was {known.status.replace('_', ' ')} by the {known.by} at {known.at}"
                    f"{f' ({known.why})' if known.why else ''}",
                    hint=Hint.FORCE_THE_PROMOTION,
                )
            mark = replace(mark, figures={**mark.figures, FORCED_OVER: str(known.status)})
        history = self.history
        if self.version is not None and self.version != version:
            history = (*history, self.version)[-MAX_HISTORY:]
        return replace(self.marked(version, mark), version=version, history=history)

    def require_current(self, expected: str | None) -> None:
        """StoreConflict where another version is current."""
        if expected not in {ANY, self.version}:
            raise StoreConflict(f"the current model version is {self.version}, no longer {expected}: decide again")

    def way_back(self) -> list[tuple[str, tuple[str, ...]]]:
        """Versions that a rollback may go to, nearest first, each with the history that it leaves."""
        barred = {self.version, *self.removing, *self._ruled_out()}
        line = reversed(list(enumerate(self.history)))
        return [(version, self.history[:index]) for index, version in line if version not in barred]

    def _ruled_out(self) -> list[str]:
        return [version for version, mark in self.marks.items() if mark.status in NEVER_AGAIN]

    def without(self, removed: Iterable[str]) -> "Pointer":
        """After versions were removed: a mark stays where it keeps the version from coming back."""
        files = set(removed)
        kept = [version for version in self._ruled_out() if version in files][-MAX_MARKS_OF_REMOVED:]
        return replace(
            self,
            marks={version: mark for version, mark in self.marks.items() if version not in files or version in kept},
            removing=tuple(version for version in self.removing if version not in files),
        )


def _document(content: bytes) -> dict[str, Any]:
    """The document without its checksum; ValueError where that does not match, or a part is missing."""
    document = read_json(content, MAX_POINTER_BYTES)
    if not isinstance(document, dict) or document.pop("sha256", None) != _digest(document):
        raise ValueError("its checksum does not match")
    if missing := {field.name for field in fields(Pointer)} - document.keys():
        raise ValueError(f"{min(missing)} is missing")
    return document


def _digest(document: dict[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).hexdigest()
