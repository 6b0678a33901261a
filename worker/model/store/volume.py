"""Where a model store keeps its files: a few operations, each whole or not at all, on a local folder or on objects.

In a folder every step is atomic (write, fsync, rename, fsync of the folder), and the pointer is replaced under a lock.
Objects, through fsspec, are replaced as a whole: a version is whole once it has its manifest, which is written last and
removed first, and the pointer is replaced by conditional writes (If-Match, If-None-Match).
"""

import errno
import fcntl
import os
import random
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from typing_extensions import override

from worker.errors import Hint, StoreConflict, StoreError, StoreUnavailable
from worker.model.store.bundle import MANIFEST, ROWS, WEIGHTS

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

MAX_ATTEMPTS = 12
BACKOFF_S = 0.05
REQUEST_TRIES = 3
_PROBE = ".probe."
# A store that does not answer is noticed in seconds; who needs it longer says so in the options.
_S3_DEFAULTS = {"config_kwargs": {"connect_timeout": 5, "read_timeout": 20, "retries": {"max_attempts": 0}}}
_S3_PASSING = {errno.EBUSY, errno.EIO, getattr(errno, "EREMOTEIO", errno.EIO)}
_S3_REFUSED = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409", "NoSuchKey"}

Update = Callable[[bytes | None], bytes | None]
"""A file's content, None where there is no file, to its new content, None to leave it. May be called again."""


class Volume(Protocol):
    """Folders of files that are written once, and single files that are replaced.

    All may block, and raise StoreUnavailable where waiting can help, StoreError where it can't.
    """

    name: str

    def read(self, path: str) -> bytes | None:
        """A file's content, None where there is none."""

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
        """StoreError unless a file could be written now, or where the store takes no notice of conditions."""


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
    def read(self, path: str) -> bytes | None:
        with named_errors("read", self.root / path), suppress(FileNotFoundError):
            return (self.root / path).read_bytes()
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
        lock = self.root / LOCK
        with named_errors("written", self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
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
            content = self.read(path)
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
                with suppress(FileNotFoundError):  # another process sweeps as well
                    if _LEFTOVER.fullmatch(path.name) and path.stat().st_mtime <= before:
                        shutil.rmtree(path) if path.is_dir() else path.unlink()

    @override
    def require_writable(self) -> None:
        # Where the store will be created: who only asks leaves no empty store behind.
        folder = next(folder for folder in (self.root, *self.root.absolute().parents) if folder.exists())
        probe = folder / f".probe.{uuid.uuid4().hex}"
        with named_errors("written", self.root):
            probe.touch()
            probe.unlink()


class ConditionFailed(Exception):
    """A conditional write met another content than it expected."""


class ObjectVolume(Volume):
    """Objects under s3://BUCKET/PREFIX; StoreError for any other URL, for its store may have no conditional writes.

    url      whatever speaks the protocol of S3 and honours conditional writes
    options  for s3fs, secrets in clear
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        protocol, _, path = url.partition("://")
        if protocol != "s3" or not path.strip("/"):
            raise StoreError(f"[model_store] = {url!r}: must be a directory or s3://BUCKET/PREFIX")
        self.name = url.rstrip("/")
        self._prefix = path.strip("/")
        try:
            import s3fs
        except ImportError as error:
            raise StoreError("[model_store] = 's3://…' needs s3fs", hint=Hint.INSTALL_STORE) from error
        self._fs = s3fs.S3FileSystem(**{**_S3_DEFAULTS, **options}, use_listings_cache=False, skip_instance_cache=True)
        self._fs.retries = REQUEST_TRIES

    def _at(self, path: str) -> str:
        return f"{self._prefix}/{path}"

    @contextmanager
    def _named_errors(self, action: str, path: str = "") -> Iterator[None]:
        """Any failure of the network or the store to StoreUnavailable or StoreError.

        No such file stays as it is, where it was to be read.
        """
        where = f"{self.name}/{path}".rstrip("/")
        try:
            yield
        except (ConditionFailed, StoreError):
            raise
        except Exception as error:
            code = code_of(error)
            # The store itself said that there is no such object; a bare 404 can be any web server's.
            is_missing = isinstance(error, FileNotFoundError) and code in {"", "NoSuchKey"}
            if is_missing and action == "read":
                raise FileNotFoundError(where) from error
            kind = StoreError if is_missing else store_error(error)
            if kind is None:
                raise
            reason = " ".join(str(error).split()) or type(error).__name__
            reason = "no such place" if is_missing else "no such bucket" if code == "NoSuchBucket" else reason
            raise kind(f"the model store can't be {action} ({where}): {reason}") from error

    @override
    def read(self, path: str) -> bytes | None:
        with suppress(FileNotFoundError), self._named_errors("read", path):
            try:
                content: bytes = self._fs.cat_file(self._at(path), start=0)  # without a range s3fs asks for the size
            except OSError as error:
                if code_of(error) not in {"InvalidRange", "416"}:  # an empty object has no range
                    raise
                content = b""
            return content
        return None

    def _put(self, path: str, content: bytes, tag: str | None) -> None:
        """Write where the tag is still this one (None: where there is nothing), else ConditionFailed."""
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        with self._named_errors("written", path):
            try:
                self._fs.pipe_file(self._at(path), content, **condition)
            except OSError as error:
                if code_of(error) in _S3_REFUSED:
                    raise ConditionFailed from error
                raise

    def _listed(self) -> dict[str, dict[str, float]]:
        """Folder -> file -> when it was written; files that lie in no folder under the folder ''."""
        folders: dict[str, dict[str, float]] = {}
        with suppress(FileNotFoundError), self._named_errors("read"):
            for path, facts in self._fs.find(self._prefix, detail=True).items():
                folder, _, file = str(path).strip("/").removeprefix(f"{self._prefix}/").rpartition("/")
                folders.setdefault(folder, {})[file] = facts["LastModified"].timestamp()
        return folders

    @override
    def folders(self) -> dict[str, float]:
        listed = self._listed().items()
        return {name: files[MANIFEST] for name, files in listed if "/" not in name and MANIFEST in files}

    @override
    def write_folder(self, name: str, files: Mapping[str, bytes]) -> None:
        *first, last = files
        with self._named_errors("written", name):
            for file in first:
                self._fs.pipe_file(self._at(f"{name}/{file}"), files[file])
        with suppress(ConditionFailed):  # another process was faster with the same content
            self._put(f"{name}/{last}", files[last], None)

    @override
    def remove_folder(self, name: str) -> None:
        files = sorted(self._listed().get(name, {}), key=lambda file: file != MANIFEST)
        self._remove(f"{name}/{file}" for file in files)

    def _remove(self, paths: Iterable[str]) -> None:
        with self._named_errors("written"):
            for path in paths:
                with suppress(FileNotFoundError):
                    self._fs.rm_file(self._at(path))

    # Compare-and-swap of the pointer.
    #
    # Invariant: no decision is ever lost. A promotion, a veto and a rollback by three processes end as one document
    # that has all three, or the later ones get a StoreConflict and decide anew.
    #
    # A round takes the tag of the object, then its content, computes the new content and writes it on the condition
    # that the tag is still the same. The tag comes first: if another process writes between the two reads, the content
    # is newer than its tag, the write is refused, and the next round starts from what is there. The other way round an
    # old content would come with a new tag, the write would pass, and the other's decision would be lost.
    #
    # A refused write may still have been ours: the client repeats a request whose answer got lost, and meets its own
    # first write. Then the content is the one that we wrote, for it holds a serial number and the time of the decision,
    # and the round has succeeded.
    #
    # Cost: three requests a change, a handful of changes an hour. Revisit when s3fs hands out the tag with the content
    # of the same answer: then one read does for two, and the order takes care of itself.
    @override
    def change(self, path: str, update: Update) -> None:
        for attempt in range(MAX_ATTEMPTS):
            tag = None
            with suppress(FileNotFoundError), self._named_errors("read", path):
                tag = str(self._fs.info(self._at(path), refresh=True)["ETag"])  # it changes with the content
            content = self.read(path)
            changed = update(content)
            if changed is None or changed == content:
                return
            try:
                self._put(path, changed, tag)
            except ConditionFailed:
                if self.read(path) == changed:
                    return
                time.sleep(random.uniform(0, BACKOFF_S * (attempt + 1)))  # noqa: S311 - no secret
            else:
                return
        raise StoreConflict(f"{self.name}/{path}: other processes changed it {MAX_ATTEMPTS} times in a row")

    @override
    def sweep(self, older_than_s: float) -> None:
        before = time.time() - older_than_s
        for name, files in self._listed().items():
            if name == "":
                self._remove(file for file, at in files.items() if file.startswith(_PROBE) and at < before)
            elif re.fullmatch(VERSION, name) and files.keys() <= {WEIGHTS, ROWS} and max(files.values()) < before:
                self._remove(f"{name}/{file}" for file in files)

    @override
    def require_writable(self) -> None:
        path = f"{_PROBE}{uuid.uuid4().hex}"
        self._put(path, b"1", None)
        try:
            for tag in (None, '"00000000000000000000000000000000"'):
                with suppress(ConditionFailed):
                    self._put(path, b"2", tag)
                    raise StoreError(
                        f"{self.name}: this object store takes no notice of conditional writes (If-Match, "
                        "If-None-Match): two processes could undo each other's changes"
                    )
        finally:
            self._remove([path])


def code_of(error: BaseException) -> str:
    """The error code of an S3 server, empty where the error is none of its."""
    response = getattr(error.__cause__ or error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def store_error(error: Exception) -> type[StoreError] | None:
    """What a failure means: None where it is a fault of the program."""
    if isinstance(error, TimeoutError | ConnectionError):
        return StoreUnavailable
    if isinstance(error, FileNotFoundError):
        return StoreError if code_of(error) == "NoSuchBucket" else StoreUnavailable
    if isinstance(error, OSError):
        return StoreUnavailable if error.errno in _S3_PASSING else StoreError
    with suppress(ImportError):
        import aiohttp
        from botocore import exceptions as boto

        passing = (boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError, boto.MetadataRetrievalError)
        if isinstance(error, (*passing, boto.CredentialRetrievalError, aiohttp.ClientError)):
            return StoreUnavailable
        if isinstance(error, boto.BotoCoreError):
            return StoreError
    return None
