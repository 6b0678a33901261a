"""The pointer document of a model store: which version is current, what was before it, and what is known of each.

    {"version": …, "history": [earlier ones, newest last], "marks": {version: Mark}, "going": […], "serial": n,
     "sha256": …}

It is the single point of truth, so it is one document, changed as a whole. A document with only the first two keys is
one of an earlier release and is read all the same.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

import orjson

from worker.errors import StoreConflict, StoreError

POINTER = "current.json"
HISTORY = 20
MARKS_OF_GONE = 200


class Status(StrEnum):
    """What was decided about a version."""

    CANDIDATE = "candidate"
    PROMOTED = "promoted"
    REJECTED = "rejected"
    HELD = "held"  # a possible change of regime, which waits for a person or for time
    VETOED = "vetoed"
    ROLLED_BACK = "rolled_back"


NEVER_AGAIN = frozenset({Status.VETOED, Status.ROLLED_BACK})


INSISTED = "after"
"""Figure of a promotion that was forced: what had been decided about the version."""


class _Any(StrEnum):
    ANY = "any"


ANY: Final = _Any.ANY
"""For `promote`: whatever is current now."""
Expected = str | None | _Any


@dataclass(frozen=True, slots=True)
class Mark:
    """One decision. at: RFC 3339, UTC; by: trainer, worker or operator; figures: plain data, for JSON."""

    status: Status
    at: str
    by: str
    why: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def insisted(self) -> bool:
        """Whether it promotes a version although that was vetoed or rolled back."""
        return INSISTED in self.figures

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "status": str(self.status), "figures": dict(self.figures)}


@dataclass(frozen=True, slots=True)
class Pointer:
    """The document. going: versions that are being removed, never to be promoted; serial: counts the changes."""

    version: str | None = None
    history: tuple[str, ...] = ()
    marks: Mapping[str, Mark] = field(default_factory=dict)
    going: tuple[str, ...] = ()
    serial: int = 0

    def to_bytes(self) -> bytes:
        """The file's content."""
        document = {
            "version": self.version,
            "history": list(self.history),
            "marks": {version: mark.to_json() for version, mark in self.marks.items()},
            "going": list(self.going),
            "serial": self.serial,
        }
        return orjson.dumps({**document, "sha256": _digest(document)}, option=orjson.OPT_SORT_KEYS)

    def marked(self, version: str, mark: Mark) -> "Pointer":
        """With this mark in the place of the version's earlier one."""
        return replace(self, marks={**self.marks, version: mark})

    def status(self, version: str) -> Status | None:
        """What was decided about a version, None where nothing was."""
        mark = self.marks.get(version)
        return mark.status if mark is not None else None

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
        if version in self.going:
            raise StoreConflict(f"model version {version} is being removed from the store")
        status = self.status(version)
        if status in NEVER_AGAIN and not force:
            old = self.marks[version]
            raise StoreError(
                f"model version {version} was {_words(old.status)} by the {old.by} at {old.at}"
                f"{f' ({old.why})' if old.why else ''}; to take it all the same: worker models promote --force"
            )
        if status in NEVER_AGAIN:
            mark = replace(mark, figures={**mark.figures, INSISTED: str(status)})
        history = self.history
        if self.version is not None and self.version != version:
            history = (*history, self.version)[-HISTORY:]
        return replace(self.marked(version, mark), version=version, history=history)

    def require_current(self, expected: Expected) -> None:
        """StoreConflict where another version is current."""
        if expected is not ANY and self.version != expected:
            raise StoreConflict(f"the current model version is {self.version}, no longer {expected}: decide again")

    def way_back(self) -> list[tuple[str, tuple[str, ...]]]:
        """Versions that a rollback may go to, nearest first, each with the history that it leaves."""
        return [
            (version, self.history[:index])
            for index, version in reversed(list(enumerate(self.history)))
            if version != self.version and version not in self.going and self.status(version) not in NEVER_AGAIN
        ]

    def without(self, gone: Iterable[str]) -> "Pointer":
        """After versions were removed: a mark stays where it keeps the version from coming back."""
        removed = set(gone)
        kept = [v for v, mark in self.marks.items() if v in removed and mark.status in NEVER_AGAIN][-MARKS_OF_GONE:]
        marks = {version: mark for version, mark in self.marks.items() if version not in removed or version in kept}
        return replace(self, marks=marks, going=tuple(version for version in self.going if version not in removed))


def parse_pointer(content: bytes, where: str) -> Pointer:
    """The document of these bytes; StoreError, naming the file, where they are broken."""
    try:
        document = orjson.loads(content)
        if "serial" in document or "sha256" in document:
            _check(document)
        version = document["version"]
        return Pointer(
            version=None if version is None else str(version),
            history=tuple(str(version) for version in document["history"]),
            marks={name: _mark(value) for name, value in document.get("marks", {}).items()},
            going=tuple(str(version) for version in document.get("going", ())),
            serial=int(document.get("serial", 0)),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"{where}: broken ({error}); name a version again with: worker models promote") from error


def _check(document: dict[str, Any]) -> None:
    if document.pop("sha256") != _digest(document):
        raise ValueError("its checksum does not match")


def _mark(value: dict[str, Any]) -> Mark:
    return Mark(Status(value["status"]), value["at"], value["by"], value["why"], value["figures"])


def _digest(document: dict[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _words(status: Status) -> str:
    return status.replace("_", " ")
