"""Where a model store keeps its files: a few operations, each whole or not at all, on a local folder or on objects.

In a folder every step is atomic (write, fsync, rename, fsync of the folder), and the pointer is replaced under a lock.
Nothing outside of that folder is read or removed, whatever the names and links in it say: names are checked before they
become paths, links are not followed, and no file is read further than its reader allows. Objects are in
worker.model.store.objects.
"""

import errno
import fcntl
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from typing_extensions import override

from worker.errors import StoreError, StoreUnavailable
from worker.model.store.bundle import NAME

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

    def read(self, path: str, max_bytes: int) -> bytes | None:
        """A file's content, None where there is none. Of a larger one no more than `max_bytes` and one byte."""

    def folders(self) -> dict[str, float]:
        """The folders that are whole and can be versions, and when each was written, in seconds since 1970."""

    def write_folder(self, name: str, files: Mapping[str, bytes]) -> None:
        """A new folder: readers see all of its files or none; the last file is the one that makes it whole."""

    def remove_folder(self, name: str) -> None:
        """Remove a folder; a crash leaves it whole, or no folder at all. Removing nothing is fine, and what is no
        folder of this store stays."""

    def change(self, path: str, max_bytes: int, update: Update) -> None:
        """Replace a file by compare-and-swap; of a larger one `update` gets no more than `read` gives.

        StoreConflict where others were faster again and again.
        """

    def sweep(self, older_than_s: float) -> None:
        """Remove what crashes left behind, where it is older than this."""

    def require_writable(self) -> None:
        """StoreError unless a file could be written now, or where the store takes no notice of conditions."""


@contextmanager
def named_errors(action: str, path: object) -> Iterator[None]:
    """OSError to StoreError, or StoreUnavailable where it may pass."""
    try:
        yield
    except OSError as error:
        kind = StoreUnavailable if error.errno in _PASSING else StoreError
        raise kind(f"the model store can't be {action} ({path}): {error.strerror or error}") from error


def read_file(path: Path, max_bytes: int, *, follow_link: bool = False) -> bytes:
    """A file's first `max_bytes`, and one more where it is larger. OSError also for what is no file.

    A named pipe would never answer, a device never end, and a link leads anywhere.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow_link else os.O_NOFOLLOW))
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a symbolic link") from error
        raise
    with os.fdopen(handle, "rb") as file:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, "it is no file")
        return file.read(min(max_bytes, about.st_size) + 1)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file so that a reader, or a crash, sees the old content or the new."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:  # also when a stop interrupts it: half a file would lie there for ever
        part.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Without it, a rename can be lost in a crash although the file's content was synced."""
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
    def read(self, path: str, max_bytes: int) -> bytes | None:
        with named_errors("read", self.root / path), suppress(FileNotFoundError):
            return read_file(self.root / path, max_bytes)
        return None

    @override
    def folders(self) -> dict[str, float]:
        folders = {}
        with (
            named_errors("read", self.root),
            suppress(FileNotFoundError, NotADirectoryError),
            os.scandir(self.root) as entries,
        ):
            for entry in entries:
                with suppress(OSError):  # it has just been removed
                    if NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                        folders[entry.name] = entry.stat(follow_symlinks=False).st_mtime
        return folders

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
        if name not in self.folders():
            return
        hidden = self.root / f".{name}.{uuid.uuid4().hex}"
        with named_errors("written", self.root / name):
            try:
                (self.root / name).rename(hidden)
            except FileNotFoundError:
                return
            _sync_folder(self.root)
            shutil.rmtree(hidden, ignore_errors=True)  # what is left of it is swept later

    @override
    def change(self, path: str, max_bytes: int, update: Update) -> None:
        """StoreConflict never: the file is locked meanwhile."""
        lock = self.root / LOCK
        with named_errors("written", self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        deadline = time.monotonic() + LOCK_WAIT_S
        try:
            with named_errors("locked", lock):
                while True:
                    with suppress(BlockingIOError):
                        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel lets go of it in a crash
                        break
                    if time.monotonic() >= deadline:
                        raise StoreUnavailable(f"another process has held {lock} for {LOCK_WAIT_S:.0f} s")
                    time.sleep(LOCK_POLL_S)
            content = self.read(path, max_bytes)
            changed = update(content)
            if changed is not None and changed != content:
                with named_errors("written", self.root):
                    write_atomically(self.root / path, changed)
        finally:
            os.close(handle)

    @override
    def sweep(self, older_than_s: float) -> None:
        before = time.time() - older_than_s
        with named_errors("written", self.root):
            for path in self.root.glob(".*"):
                # Another process sweeps as well; and one that can't be removed does not keep the others.
                with suppress(OSError):
                    if _LEFTOVER.fullmatch(path.name) and path.lstat().st_mtime <= before:
                        is_folder = path.is_dir() and not path.is_symlink()
                        shutil.rmtree(path) if is_folder else path.unlink()

    @override
    def require_writable(self) -> None:
        # Where the store will be created: who only asks leaves no empty store behind.
        folder = next(folder for folder in (self.root, *self.root.absolute().parents) if folder.exists())
        probe = folder / f".probe.{uuid.uuid4().hex}"
        with named_errors("written", self.root):
            probe.touch()
            probe.unlink()
