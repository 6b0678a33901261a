"""The pointer document of a model store: which version is current, what was before it, and what is known of each.

    {"version": …, "history": [earlier ones, newest last], "marks": {version: Mark}, "removing": […],
     "serial": n, "sha256": …}

It is the single point of truth, so it is one document, changed as a whole. A document with only the first two keys,
written by hand or by an earlier release, is read all the same.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

import orjson

from worker.errors import Hint, StoreConflict, StoreError

POINTER = "current.json"
MAX_HISTORY = 20
MAX_MARKS_OF_REMOVED = 200


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


class _Any(StrEnum):
    ANY = "any"


ANY: Final = _Any.ANY
"""For `promote`: whatever is current now."""
Expected = str | None | _Any


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

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "status": str(self.status), "figures": dict(self.figures)}


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
        """The file's content."""
        document = {
            "version": self.version,
            "history": list(self.history),
            "marks": {version: mark.to_json() for version, mark in self.marks.items()},
            "removing": list(self.removing),
            "serial": self.serial,
        }
        return orjson.dumps({**document, "sha256": _digest(document)}, option=orjson.OPT_SORT_KEYS)

    def marked(self, version: str, mark: Mark) -> "Pointer":
        """With this mark in the place of the version's earlier one."""
        return replace(self, marks={**self.marks, version: mark})

    def promoted(self, version: str, mark: Mark, *, expected: Expected, force: bool) -> "Pointer":
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

    def require_current(self, expected: Expected) -> None:
        """StoreConflict where another version is current."""
        if expected is not ANY and self.version != expected:
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


def parse_pointer(content: bytes, where: str) -> Pointer:
    """The document of these bytes; StoreError, naming the file, where they are broken."""
    try:
        document = orjson.loads(content)
        if "serial" in document or "sha256" in document:
            _require_whole(document)
        version = document["version"]
        return Pointer(
            version=None if version is None else str(version),
            history=tuple(str(version) for version in document["history"]),
            marks={
                name: Mark(Status(mark["status"]), mark["at"], mark["by"], mark["why"], mark["figures"])
                for name, mark in document.get("marks", {}).items()
            },
            removing=tuple(str(version) for version in document.get("removing", ())),
            serial=int(document.get("serial", 0)),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"{where}: broken ({error})", hint=Hint.PROMOTE_A_VERSION) from error


def _require_whole(document: dict[str, Any]) -> None:
    if document.pop("sha256") != _digest(document):
        raise ValueError("its checksum does not match")


def _digest(document: dict[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).hexdigest()
