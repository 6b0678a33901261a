"""The model store: a folder of versions, and one small file that names the current one.

    models/
      3f9a0c51d2e4/           a bundle, written next to its place and renamed into it
      current.json            {"version": …, "history": [earlier ones, newest last]}

Every step is atomic on a local volume (write, fsync, rename, fsync of the folder): a reader sees the old or the new.
"""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from worker.errors import BundleError, StoreError
from worker.model.bundle import MANIFEST, Bundle, load_bundle, read_manifest, to_files

POINTER = "current.json"
HISTORY = 20


@dataclass(frozen=True, slots=True)
class Version:
    """One row of `worker models list`. `broken` says why it can't be loaded, None where its manifest is sound."""

    version: str
    created_at: str
    current: bool
    report: dict[str, Any]
    broken: str | None = None


@contextmanager
def _named_errors(action: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"the model store can't be {action} ({path}): {error.strerror or error}") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file so that a reader, or a crash, sees the old content or the new."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class ModelStore:
    """Versions in a local folder. Reading never changes anything; writing creates the folder."""

    def __init__(self, root: str | Path) -> None:
        if "://" in str(root):
            raise StoreError(f"WORKER_MODEL_STORE = {str(root)!r}: must be a directory, not an object store")
        self.root = Path(root)

    def current(self) -> str | None:
        """The version in force, None before there is one; StoreError where the store can't be read."""
        version: str | None = self._pointer()["version"]
        return version

    def _pointer(self) -> dict[str, Any]:
        path = self.root / POINTER
        with _named_errors("read", path):
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                return {"version": None, "history": []}
        try:
            pointer = orjson.loads(content)
            return {"version": str(pointer["version"]), "history": [str(version) for version in pointer["history"]]}
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise StoreError(f"{path}: broken ({error}); name a version again with: worker models promote") from error

    def versions(self) -> list[Version]:
        """All versions, oldest first."""
        current = self.current()
        with _named_errors("read", self.root):
            folders = [folder for folder in self.root.glob("*") if folder.is_dir() and not folder.name.startswith(".")]
        found = []
        for folder in folders:
            try:
                manifest = read_manifest(folder)
            except BundleError as error:
                found.append(Version(folder.name, "", folder.name == current, {}, str(error)))
            else:
                found.append(Version(folder.name, manifest["created_at"], folder.name == current, manifest["report"]))
        return sorted(found, key=lambda version: (version.created_at, version.version))

    def load(self, version: str | None = None) -> Bundle:
        """A version, the current one by default. StoreError where there is none, BundleError where it is broken."""
        name = version or self.current()
        if name is None:
            raise StoreError(f"no model in {self.root} yet: fit one with: worker train --once --from FILE")
        folder = self.root / name
        if Path(name).name != name or not folder.is_dir():
            known = ", ".join(entry.version for entry in self.versions()) or "none"
            raise StoreError(f"no model version {name!r} in {self.root}; there are: {known}")
        bundle = load_bundle(folder)
        if bundle.version != name:
            raise BundleError(f"{folder}: holds version {bundle.version}, not {name}")
        return bundle

    def save(self, bundle: Bundle) -> None:
        """Write a version; one that is there already stays as it is. It is not current until promoted."""
        with _named_errors("written", self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            target = self.root / bundle.version
            if (target / MANIFEST).exists():
                return
            part = self.root / f".{bundle.version}.{uuid.uuid4().hex}"
            try:
                part.mkdir()
                for name, content in to_files(bundle).items():
                    write_atomically(part / name, content)
                part.rename(target)
            finally:
                shutil.rmtree(part, ignore_errors=True)
            _sync_folder(self.root)

    def require_writable(self) -> None:
        """StoreError unless a version could be written now; called before long work, not after it."""
        probe = self.root / f".probe.{uuid.uuid4().hex}"
        with _named_errors("written", self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()

    def promote(self, version: str) -> None:
        """Make a version current, after it was loaded whole and found sound."""
        self.load(version)
        pointer = self._pointer_or_empty()
        if pointer["version"] == version:
            return
        history = [*pointer["history"], pointer["version"]] if pointer["version"] else pointer["history"]
        self._write_pointer(version, history)

    def rollback(self) -> str:
        """Go back to the version before the current one; returns it."""
        history = self._pointer()["history"]
        if not history:
            raise StoreError(f"nothing to go back to in {self.root}: no version was current before this one")
        self.load(history[-1])
        self._write_pointer(history[-1], history[:-1])
        return str(history[-1])

    def _pointer_or_empty(self) -> dict[str, Any]:
        try:
            return self._pointer()
        except StoreError:
            return {"version": None, "history": []}

    def _write_pointer(self, version: str, history: list[str]) -> None:
        content = orjson.dumps({"version": version, "history": history[-HISTORY:]})
        with _named_errors("written", self.root):
            write_atomically(self.root / POINTER, content)
