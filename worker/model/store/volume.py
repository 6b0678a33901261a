"""Where a model store keeps its files: a few operations, each whole or not at all, and a local folder that has them.

Every step is atomic on a local volume (write, fsync, rename, fsync of the folder): a reader sees the old or the new.
"""

import errno
import fcntl
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from typing_extensions import override

from worker.errors import StoreError, StoreUnavailable

LOCK = "current.lock"
LOCK_WAIT_S = 10.0
LOCK_POLL_S = 0.005
VERSION = r"[0-9a-f]{12}"
"""A folder's name that is a version's; anything else in that place is not the store's to remove."""
_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{32}")

# What passes without anybody changing a setting: a network volume that is away, a disk that is full.
_PASSING = {
    getattr(errno, name)
    for name in ("EIO", "ENOSPC", "EDQUOT", "ESTALE", "ETIMEDOUT", "ENOTCONN", "EHOSTDOWN", "EHOSTUNREACH", "ENODEV")
}

Update = Callable[[bytes | None], bytes | None]
"""A file's content, None where there is no file, to its new content, None to leave it. May be called again."""


class Volume(Protocol):
    """Folders of files that are written once, and single files that are replaced.

    All may block, and raise StoreUnavailable where waiting can help, StoreError where it can't.
    """

    name: str

    def read(self, path: str) -> bytes:
        """A file's content; FileNotFoundError where there is none."""

    def folders(self) -> dict[str, float]:
        """The folders that are whole, and when each was written, in seconds since 1970."""

    def write_folder(self, name: str, files: Mapping[str, bytes]) -> None:
        """A new folder: readers see all of its files or none; the last file is the one that makes it whole."""

    def remove_folder(self, name: str) -> None:
        """Remove a folder; a crash leaves it whole, or no folder at all. Removing nothing is fine."""

    def change(self, path: str, update: Update) -> None:
        """Replace a file by compare-and-swap. StoreConflict where others were faster again and again."""

    def sweep(self, older_than_s: float) -> None:
        """Remove what crashes left behind, where it is older than this."""

    def require_writable(self) -> None:
        """StoreError unless a file could be written now."""


@contextmanager
def named_errors(action: str, path: object) -> Iterator[None]:
    """OSError to StoreError, or StoreUnavailable where it may pass."""
    try:
        yield
    except OSError as error:
        kind = StoreUnavailable if error.errno in _PASSING else StoreError
        raise kind(f"the model store can't be {action} ({path}): {error.strerror or error}") from error


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


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class LocalVolume(Volume):
    """A local folder. Reading never changes anything; writing creates the folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = str(root)

    @override
    def read(self, path: str) -> bytes:
        content = self._read(self.root / path)
        if content is None:
            raise FileNotFoundError(str(self.root / path))
        return content

    @staticmethod
    def _read(path: Path) -> bytes | None:
        with named_errors("read", path):
            try:
                return path.read_bytes()
            except FileNotFoundError:
                return None

    @override
    def folders(self) -> dict[str, float]:
        with named_errors("read", self.root):
            paths = [path for path in self.root.glob("*") if path.is_dir() and not path.name.startswith(".")]
            return {path.name: path.stat().st_mtime for path in paths}

    @override
    def write_folder(self, name: str, files: Mapping[str, bytes]) -> None:
        with named_errors("written", self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            part = self.root / f".{name}.{uuid.uuid4().hex}"
            try:
                part.mkdir()
                for file, content in files.items():
                    write_atomically(part / file, content)
                try:
                    part.rename(self.root / name)
                except OSError as error:
                    if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
                        raise  # else another process was faster with the same content
            finally:
                shutil.rmtree(part, ignore_errors=True)
            _sync_folder(self.root)

    @override
    def remove_folder(self, name: str) -> None:
        hidden = self.root / f".{name}.{uuid.uuid4().hex}"
        with named_errors("written", self.root):
            try:
                (self.root / name).rename(hidden)
            except FileNotFoundError:
                return
            _sync_folder(self.root)
            shutil.rmtree(hidden)

    @override
    def change(self, path: str, update: Update) -> None:
        """StoreConflict never: the file is locked meanwhile."""
        with self._locked():
            content = self._read(self.root / path)
            changed = update(content)
            if changed is not None and changed != content:
                with named_errors("written", self.root):
                    write_atomically(self.root / path, changed)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with named_errors("written", self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.root / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        deadline = time.monotonic() + LOCK_WAIT_S
        try:
            with named_errors("locked", self.root / LOCK):
                while not _try_lock(handle):
                    if time.monotonic() >= deadline:
                        raise StoreUnavailable(f"another process has held {self.root / LOCK} for {LOCK_WAIT_S:.0f} s")
                    time.sleep(LOCK_POLL_S)
            yield
        finally:
            os.close(handle)

    @override
    def sweep(self, older_than_s: float) -> None:
        before = time.time() - older_than_s
        with named_errors("written", self.root):
            for path in self.root.glob(".*"):
                try:
                    if not _LEFTOVER.fullmatch(path.name) or path.stat().st_mtime > before:
                        continue
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                except FileNotFoundError:
                    continue  # another process sweeps as well

    @override
    def require_writable(self) -> None:
        # Where the store will be created: who only asks leaves no empty store behind.
        folder = next(folder for folder in (self.root, *self.root.absolute().parents) if folder.exists())
        probe = folder / f".probe.{uuid.uuid4().hex}"
        with named_errors("written", self.root):
            probe.touch()
            probe.unlink()
