"""The model store: versions, and one small file that names the current one and what was decided about the others.

    models/
      3f9a0c51d2e4/           a bundle, written next to its place and renamed into it
      current.json            the pointer document:

    {"version": …, "history": [earlier ones, newest last], "marks": {version: Mark}, "removing": […],
     "serial": n, "sha256": …}

A directory or a prefix in an object store. The pointer is the single point of truth, so it is one document, changed as
a whole by compare-and-swap: a reader sees the old state or the new, and of two writers one wins and the other hears of
it.
"""

import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from worker.errors import BundleError, Hint, StoreError, StoreUnavailable
from worker.model.store.bundle import NAME, Bundle, to_files
from worker.model.store.bundle_reader import Reader, read_bundle, read_manifest
from worker.model.store.objects import ObjectVolume
from worker.model.store.pointer import ANY, MAX_POINTER_BYTES, POINTER, Mark, Pointer, Status
from worker.model.store.volume import VERSION, LocalVolume, Volume
from worker.texts import event_time_text, parse_iso_time, quoted, rfc3339

READING_S = 3600.0
"""A version that was written, marked or left within this time is not removed: a process may be loading it."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of the list.

    current  whether it is the current one
    report   what its fit did
    broken   why it can't be loaded; None where its manifest is sound
    mark     what was decided about it; None where nothing was
    """

    version: str
    created_at: str
    current: bool
    report: dict[str, Any]
    broken: str | None = None
    mark: Mark | None = None


class ModelStore:
    """Versions in a directory or an object store. Reading never changes anything.

    Every method may block on the disk or the network. StoreUnavailable: waiting can help. StoreConflict: another
    process was faster and nothing was written. Any other StoreError needs a person.

    root     a directory, or s3://BUCKET/PREFIX
    options  for the client of the object store, secrets in clear
    clock    seconds since 1970
    """

    def __init__(
        self, root: str | Path, *, options: Mapping[str, Any] | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._volume: Volume = ObjectVolume(str(root), options or {}) if "://" in str(root) else LocalVolume(Path(root))
        self._clock = clock
        self.name = self._volume.name

    def current(self) -> str | None:
        """The current version, None before there is one; StoreError where the store can't be read."""
        return self._pointer().version

    def marks(self) -> dict[str, Mark]:
        """What was decided about the versions."""
        return dict(self._pointer().marks)

    def previous(self) -> str | None:
        """The version that a rollback would try first, None where there is none."""
        return next((version for version, _ in self._pointer().way_back()), None)

    def _pointer(self) -> Pointer:
        content = self._volume.read(POINTER, MAX_POINTER_BYTES)
        return Pointer() if content is None else Pointer.from_bytes(content, f"{self.name}/{POINTER}")

    def versions(self) -> list[Version]:
        """All versions, oldest first."""
        pointer = self._pointer()
        versions = []
        for name, written in self._volume.folders().items():
            report: dict[str, Any] = {}
            broken = None
            try:
                manifest = read_manifest(self._reader(name), f"{self.name}/{name}")
                created_at, report = manifest.created_at, manifest.report
            except StoreUnavailable:
                raise
            except (BundleError, StoreError) as error:  # one that can't be read does not hide the others
                created_at, broken = event_time_text(int(written * 1000)) or "", str(error)
            versions.append(Version(name, created_at, name == pointer.version, report, broken, pointer.marks.get(name)))
        return sorted(versions, key=lambda entry: (entry.created_at, entry.version))

    def load(self, version: str | None = None) -> Bundle:
        """A version, the current one by default. StoreError where there is none, BundleError where it is broken."""
        if version is not None:
            return self._load(version)
        name = self.current()
        if name is None:
            raise StoreError(f"no model in {self.name} yet", hint=Hint.FIT_A_MODEL)
        try:
            return self._load(name)
        except (BundleError, StoreError):
            current = self.current()
            if current in {name, None}:
                raise
            return self._load(str(current))  # it was replaced, and may have been removed, while it was read

    def require_version(self, name: str) -> None:
        """StoreError, naming those that there are, where there is no such version; it need not be sound."""
        if not NAME.fullmatch(name) or name not in self._volume.folders():
            written = self._volume.folders()
            known = ", ".join(sorted(written, key=written.__getitem__)) or "none"
            raise StoreError(f"no model version {quoted(name)!r} in {self.name}; there are: {known}")

    def _load(self, name: str) -> Bundle:
        self.require_version(name)
        where = f"{self.name}/{name}"
        bundle = read_bundle(self._reader(name), where)
        if bundle.version != name:
            raise BundleError(f"{where}: holds version {bundle.version}, not {name}")
        return bundle

    def _reader(self, version: str) -> Reader:
        return lambda file, max_bytes: self._volume.read(f"{version}/{file}", max_bytes)

    def save(self, bundle: Bundle) -> None:
        """Write a version; a sound one that is there already stays as it is. It is not current until promoted."""
        if bundle.version in self._volume.folders():
            try:
                self._load(bundle.version)
            except BundleError:
                self._volume.remove_folder(bundle.version)
            else:
                return
        self._volume.write_folder(bundle.version, to_files(bundle))

    def require_writable(self) -> None:
        """StoreError unless a version could be written now; called before long work, not after it."""
        self._volume.require_writable()

    def promote(
        self, version: str, *, expected: str | None = ANY, mark: Mark | None = None, force: bool = False
    ) -> None:
        """Make a version current, after it was loaded whole and proved sound.

        A pointer that is broken is replaced, unless `expected` says that it has to be known.

            expected  the version that has to be current before (None: none), else StoreConflict
            mark      by default that an operator did it now
            force     also a version that was vetoed or rolled back
        """
        self._load(version)
        decision = mark or self._mark(Status.PROMOTED)
        self._change(
            lambda pointer: pointer.promoted(version, decision, expected=expected, force=force), repair=expected == ANY
        )

    def rollback(self, *, leaving: str | None = None, mark: Mark | None = None) -> str:
        """Go back to the last sound version before the current one; returns it.

        leaving  the version that has to be current, else StoreConflict: another process was faster
        mark     for the version that is left, by default that an operator rolled it back now
        """
        decision = mark or self._mark(Status.ROLLED_BACK)
        is_sound = cache(self._is_sound)  # loaded once, however often the pointer's change is tried

        def back(pointer: Pointer) -> Pointer:
            pointer.require_current(ANY if leaving is None else leaving)
            for name, history in pointer.way_back():
                if is_sound(name):
                    return replace(pointer.marked(str(pointer.version), decision), version=name, history=history)
            raise StoreError(
                f"nothing to go back to in {self.name}: no sound version was current before {pointer.version}, which "
                "stays current",
                hint=Hint.FIT_A_MODEL,
            )

        return str(self._change(back).version)

    def _is_sound(self, version: str) -> bool:
        try:
            self._load(version)
        except StoreUnavailable:
            raise
        except (BundleError, StoreError):
            return False
        return True

    def mark(self, version: str, mark: Mark) -> None:
        """Note what was decided about a version, in the place of what was noted before."""
        self._change(lambda pointer: pointer.marked(version, mark))

    def prune(self, keep: int) -> list[str]:
        """Remove all but the newest `keep` versions; returns those that were removed.

        Never the current one, the last two before it, one that is held, or one that a process may be loading: it was
        written, marked or left within the hour. A removal that a crash interrupted is completed.
        """
        versions, written = self.versions(), self._volume.folders()
        old = [entry.version for entry in versions[: max(len(versions) - keep, 0)]]
        since = self._clock() - READING_S

        def mark_for_removal(pointer: Pointer) -> Pointer:
            line = [*pointer.history, *([pointer.version] if pointer.version else [])]
            young = {version for version, mark in pointer.marks.items() if parse_iso_time(mark.at) > since * 1000}
            protected = {*line[-3:], *young, *(version for version, at in written.items() if at > since)}
            protected |= {version for version, mark in pointer.marks.items() if mark.status == Status.HELD}
            protected |= {left for left, right in pairwise(line) if right in young}
            removable = (version for version in old if version not in protected and re.fullmatch(VERSION, version))
            return replace(pointer, removing=tuple(dict.fromkeys((*pointer.removing, *removable))))

        # The pointer first: then they can't be promoted any more, and a crash leaves the list of what to remove.
        removing = self._change(mark_for_removal).removing
        removed = [version for version in removing if self._is_removed(version)]
        if removed:
            self._change(lambda pointer: pointer.without(removed))
        self._volume.sweep(READING_S)
        return removed

    def _is_removed(self, version: str) -> bool:
        """Whether there is no such version any more; one that can't be removed now is tried again another time."""
        try:
            if re.fullmatch(VERSION, version):  # anything else is not the store's to remove, whoever has listed it
                self._volume.remove_folder(version)
        except StoreUnavailable:
            raise
        except StoreError:
            return False
        return True

    def _change(self, update: Callable[[Pointer], Pointer], *, repair: bool = False) -> Pointer:
        """Change the pointer by compare-and-swap; `update` may be called again. Returns the new one."""
        changed = Pointer()

        def write(content: bytes | None) -> bytes | None:
            nonlocal changed
            pointer = Pointer()
            if content is not None:
                with suppress(*((StoreError,) if repair else ())):
                    pointer = Pointer.from_bytes(content, f"{self.name}/{POINTER}")
            updated = update(pointer)
            changed = replace(updated, serial=pointer.serial + 1)
            return None if updated == pointer else changed.to_bytes()

        self._volume.change(POINTER, MAX_POINTER_BYTES, write)
        return changed

    def _mark(self, status: Status) -> Mark:
        return Mark(status, rfc3339(self._clock() * 1000), "operator")
