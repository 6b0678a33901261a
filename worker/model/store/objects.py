"""A model store in an object store, through fsspec.

Objects are replaced as a whole, so a reader sees the old or the new. A version is whole once it has its manifest, which
is written last and removed first. The pointer is replaced by conditional writes (If-Match, If-None-Match).
"""

import errno
import random
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from typing_extensions import override

from worker.errors import Hint, StoreConflict, StoreError, StoreUnavailable
from worker.model.store.bundle import MANIFEST, WEIGHTS
from worker.model.store.rehearsal import ROWS
from worker.model.store.volume import VERSION, Update, Volume

MAX_ATTEMPTS = 12
BACKOFF_S = 0.05
REQUEST_TRIES = 3
_PROBE = ".probe."

# A store that does not answer is noticed in seconds; who needs it longer says so in the options.
_S3_DEFAULTS: Mapping[str, Any] = {
    "config_kwargs": {"connect_timeout": 5, "read_timeout": 20, "retries": {"max_attempts": 0}},
}
_PASSING = {errno.EBUSY, errno.EIO, getattr(errno, "EREMOTEIO", errno.EIO)}
_REFUSED = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409", "NoSuchKey"}


class ConditionFailed(Exception):
    """A conditional write met another content than it expected."""


class S3:
    """Whatever speaks the protocol of S3 and honours conditional writes; `fs` is the fsspec file system."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        try:
            import s3fs
        except ImportError as error:
            raise StoreError("[model_store] = 's3://…' needs s3fs", hint=Hint.INSTALL_STORE) from error
        self.fs = s3fs.S3FileSystem(**{**_S3_DEFAULTS, **options}, use_listings_cache=False, skip_instance_cache=True)
        self.fs.retries = REQUEST_TRIES

    def get(self, path: str) -> bytes:
        """What is there; FileNotFoundError where there is nothing."""
        try:
            content: bytes = self.fs.cat_file(path, start=0)  # a range: without one s3fs asks for the size first
        except OSError as error:
            if code_of(error) in {"InvalidRange", "416"}:
                return b""
            raise
        return content

    def tag(self, path: str) -> str | None:
        """The tag of what is there, None where there is nothing. It changes with the content."""
        try:
            return str(self.fs.info(path, refresh=True)["ETag"])
        except FileNotFoundError as error:
            if not is_missing(error):
                raise
            return None

    def put(self, path: str, content: bytes, tag: str | None) -> None:
        """Write where the tag is still this one (None: where there is nothing), else ConditionFailed."""
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        try:
            self.fs.pipe_file(path, content, **condition)
        except OSError as error:
            if code_of(error) in _REFUSED:
                raise ConditionFailed from error
            raise


def code_of(error: BaseException) -> str:
    """The error code of an S3 server, empty where the error is none of its."""
    response = getattr(error.__cause__ or error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def is_missing(error: Exception) -> bool:
    """Whether the store itself said that there is no such object; a bare 404 can be any web server's."""
    return isinstance(error, FileNotFoundError) and code_of(error) in {"", "NoSuchKey"}


def store_error(error: Exception) -> type[StoreError] | None:
    """What a failure means: None where it is a fault of the program."""
    if isinstance(error, TimeoutError | ConnectionError):
        return StoreUnavailable
    if isinstance(error, FileNotFoundError):
        return StoreError if code_of(error) == "NoSuchBucket" else StoreUnavailable
    if isinstance(error, OSError):
        return StoreUnavailable if error.errno in _PASSING else StoreError
    with suppress(ImportError):
        import aiohttp
        from botocore import exceptions as boto

        passing = (boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError, boto.MetadataRetrievalError)
        if isinstance(error, (*passing, boto.CredentialRetrievalError, aiohttp.ClientError)):
            return StoreUnavailable
        if isinstance(error, boto.BotoCoreError):
            return StoreError
    return None


class ObjectVolume(Volume):
    """Objects under s3://BUCKET/PREFIX; StoreError for any other URL, for its store may have no conditional writes."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        protocol, _, path = url.partition("://")
        if protocol != "s3" or not path.strip("/"):
            raise StoreError(f"[model_store] = {url!r}: must be a directory or s3://BUCKET/PREFIX")
        self.name = url.rstrip("/")
        self._objects = S3(options)
        self._fs = self._objects.fs
        self._prefix = path.strip("/")

    def _at(self, path: str) -> str:
        return f"{self._prefix}/{path}"

    @contextmanager
    def _named_errors(self, action: str, path: str = "") -> Iterator[None]:
        """Any failure of the network or the store to StoreUnavailable or StoreError; no such file stays as it is."""
        where = f"{self.name}/{path}".rstrip("/")
        try:
            yield
        except (ConditionFailed, StoreError):
            raise
        except Exception as error:
            if is_missing(error):
                raise FileNotFoundError(where) from error
            kind = store_error(error)
            if kind is None:
                raise
            reason = " ".join(str(error).split()) or type(error).__name__
            reason = "no such bucket" if code_of(error) == "NoSuchBucket" else reason
            raise kind(f"the model store can't be {action} ({where}): {reason}") from error

    @override
    def read(self, path: str) -> bytes:
        with self._named_errors("read", path):
            return self._objects.get(self._at(path))

    def _listed(self) -> dict[str, dict[str, float]]:
        """Folder -> file -> when it was written; files that lie in no folder under the folder ''."""
        with self._named_errors("read"):
            try:
                objects = self._fs.find(self._prefix, detail=True)
            except FileNotFoundError as error:
                if not is_missing(error):
                    raise
                objects = {}
        folders: dict[str, dict[str, float]] = {}
        for path, facts in objects.items():
            folder, _, file = str(path).strip("/").removeprefix(f"{self._prefix}/").rpartition("/")
            folders.setdefault(folder, {})[file] = facts["LastModified"].timestamp()
        return folders

    @override
    def folders(self) -> dict[str, float]:
        return {
            name: files[MANIFEST] for name, files in self._listed().items() if "/" not in name and MANIFEST in files
        }

    @override
    def write_folder(self, name: str, files: Mapping[str, bytes]) -> None:
        *first, last = files
        with self._written(name):
            for file in first:
                self._fs.pipe_file(self._at(f"{name}/{file}"), files[file])
            with suppress(ConditionFailed):  # another process was faster with the same content
                self._objects.put(self._at(f"{name}/{last}"), files[last], None)

    @contextmanager
    def _written(self, path: str) -> Iterator[None]:
        try:
            with self._named_errors("written", path):
                yield
        except FileNotFoundError as error:
            raise StoreError(f"the model store can't be written ({error}): no such place") from error

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
            with self._named_errors("read", path):
                tag = self._objects.tag(self._at(path))
            content = self._content(path)
            changed = update(content)
            if changed is None or changed == content:
                return
            try:
                with self._written(path):
                    self._objects.put(self._at(path), changed, tag)
            except ConditionFailed:
                if self._content(path) == changed:
                    return
                time.sleep(random.uniform(0, BACKOFF_S * (attempt + 1)))  # noqa: S311 - no secret
            else:
                return
        raise StoreConflict(f"{self.name}/{path}: other processes changed it {MAX_ATTEMPTS} times in a row")

    def _content(self, path: str) -> bytes | None:
        try:
            return self.read(path)
        except FileNotFoundError:
            return None

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
        """StoreError, too, where the store takes no notice of conditions."""
        path = f"{_PROBE}{uuid.uuid4().hex}"
        with self._written(path):
            self._objects.put(self._at(path), b"1", None)
        try:
            for tag in (None, '"00000000000000000000000000000000"'):
                with suppress(ConditionFailed):
                    with self._written(path):
                        self._objects.put(self._at(path), b"2", tag)
                    raise StoreError(
                        f"{self.name}: this object store takes no notice of conditional writes (If-Match, "
                        "If-None-Match): two processes could undo each other's changes"
                    )
        finally:
            self._remove([path])
