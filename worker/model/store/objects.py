"""A model store's files as objects under s3://BUCKET/PREFIX, through s3fs.

Objects are replaced as a whole: a version is whole once it has its manifest, which is written last and removed first,
and the pointer is replaced by conditional writes (If-Match, If-None-Match).
"""

import asyncio
import errno
import random
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from typing_extensions import override

from worker.errors import Hint, StoreConflict, StoreError, StoreUnavailable
from worker.model.store.bundle import MANIFEST, NAME, ROWS, WEIGHTS
from worker.model.store.volume import VERSION, Update, Volume
from worker.texts import quoted

T = TypeVar("T")

MAX_ATTEMPTS = 12
BACKOFF_S = 0.05
REQUEST_TRIES = 3
REQUEST_S = 60.0
MIN_BYTES_PER_S = 1 << 20
READ_BYTES = 1 << 20
MAX_REASON = 400
_PROBE = ".probe."
# A store that does not answer is noticed in seconds; who needs it longer says so in the options.
_S3_DEFAULTS = {"config_kwargs": {"connect_timeout": 5, "read_timeout": 20, "retries": {"max_attempts": 0}}}
_S3_PASSING = {errno.EBUSY, errno.EIO, getattr(errno, "EREMOTEIO", errno.EIO)}
_S3_REFUSED = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409", "NoSuchKey"}


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
            reason = quoted(" ".join(str(error).split()) or type(error).__name__, MAX_REASON)
            reason = "no such place" if is_missing else "no such bucket" if code == "NoSuchBucket" else reason
            raise kind(f"the model store can't be {action} ({where}): {reason}") from error

    def _ask(self, call: Callable[..., Awaitable[T]], *values: Any, max_bytes: int = 0, **named: Any) -> T:
        """What the client's coroutine returns. TimeoutError where that takes longer than so many bytes ever should: a
        server that sends a byte now and then keeps every single read short."""
        from fsspec.asyn import sync

        async def asked() -> T:
            return await asyncio.wait_for(call(*values, **named), REQUEST_S + max_bytes / MIN_BYTES_PER_S)

        answer: T = sync(self._fs.loop, asked)
        return answer

    async def _get(self, path: str, max_bytes: int) -> tuple[bytes, str | None]:
        """An object's content, at most one byte more than so many of it, and its tag, of one answer."""
        bucket, key, _ = self._fs.split_path(self._at(path))
        for tries_left in reversed(range(REQUEST_TRIES)):
            answer = await self._fs._call_s3("get_object", Bucket=bucket, Key=key)  # noqa: SLF001  # its sync form has no bound
            parts, left = [], max_bytes + 1
            try:
                while left and (part := await answer["Body"].read(min(left, READ_BYTES))):
                    parts.append(part)
                    left -= len(part)
                return b"".join(parts), answer.get("ETag")
            except Exception as error:
                if not tries_left or store_error(error) is not StoreUnavailable:
                    raise
            finally:
                answer["Body"].close()
        raise AssertionError("the last try returns or raises")

    @override
    def read(self, path: str, max_bytes: int) -> bytes | None:
        with suppress(FileNotFoundError), self._named_errors("read", path):
            return self._ask(self._get, path, max_bytes, max_bytes=max_bytes)[0]
        return None

    def _put(self, path: str, content: bytes, tag: str | None) -> None:
        """Write where the tag is still this one (None: where there is nothing), else ConditionFailed."""
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        with self._named_errors("written", path):
            try:
                self._ask(self._fs._pipe_file, self._at(path), content, max_bytes=len(content), **condition)  # noqa: SLF001
            except OSError as error:
                if code_of(error) in _S3_REFUSED:
                    raise ConditionFailed from error
                raise

    def _listed(self) -> dict[str, dict[str, float]]:
        """Folder -> file -> when it was written; files that lie in no folder under the folder ''."""
        folders: dict[str, dict[str, float]] = {}
        with suppress(FileNotFoundError), self._named_errors("read"):
            objects = self._ask(self._fs._find, self._prefix, detail=True)  # noqa: SLF001
            for path, facts in objects.items():
                folder, _, file = str(path).strip("/").removeprefix(f"{self._prefix}/").rpartition("/")
                folders.setdefault(folder, {})[file] = facts["LastModified"].timestamp()
        return folders

    @override
    def folders(self) -> dict[str, float]:
        listed = self._listed().items()
        return {name: files[MANIFEST] for name, files in listed if NAME.fullmatch(name) and MANIFEST in files}

    @override
    def write_folder(self, name: str, files: Mapping[str, bytes]) -> None:
        *first, last = files
        with self._named_errors("written", name):
            for file in first:
                content = files[file]
                self._ask(self._fs._pipe_file, self._at(f"{name}/{file}"), content, max_bytes=len(content))  # noqa: SLF001
        with suppress(ConditionFailed):  # another process was faster with the same content
            self._put(f"{name}/{last}", files[last], None)

    @override
    def remove_folder(self, name: str) -> None:
        if not NAME.fullmatch(name):
            return
        files = sorted(self._listed().get(name, {}), key=lambda file: file != MANIFEST)
        self._remove(f"{name}/{file}" for file in files)

    def _remove(self, paths: Iterable[str]) -> None:
        with self._named_errors("written"):
            for path in paths:
                with suppress(FileNotFoundError):
                    self._ask(self._fs._rm_file, self._at(path))  # noqa: SLF001

    # Compare-and-swap of the pointer.
    #
    # Invariant: no decision is ever lost. A promotion, a veto and a rollback by three processes end as one document
    # that has all three, or the later ones get a StoreConflict and decide anew.
    #
    # A round takes the object's content with its tag, of one answer, computes the new content and writes it on the
    # condition that the tag is still the same. If another process has written in between, the write is refused, and the
    # next round starts from what is there.
    #
    # A refused write may still have been ours: the client repeats a request whose answer got lost, and meets its own
    # first write. Then the content is the one that we wrote, for it holds a serial number and the time of the decision,
    # and the round has succeeded.
    #
    # Cost: two requests a change, a handful of changes an hour.
    @override
    def change(self, path: str, max_bytes: int, update: Update) -> None:
        for attempt in range(MAX_ATTEMPTS):
            content = tag = None
            with suppress(FileNotFoundError), self._named_errors("read", path):
                content, tag = self._ask(self._get, path, max_bytes, max_bytes=max_bytes)
                if tag is None:
                    raise StoreUnavailable(f"{self.name}/{path}: the store's answer has no ETag")
            changed = update(content)
            if changed is None or changed == content:
                return
            try:
                self._put(path, changed, tag)
            except ConditionFailed:
                if self.read(path, max_bytes) == changed:
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


def store_error(error: Exception) -> type[StoreError]:
    """What a failure means. An answer that makes no sense may pass like an outage: a proxy on the way can give it."""
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
    return StoreUnavailable
