"""Conditional writes through fsspec, and what the failures of an object store mean."""

import errno
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from worker.errors import StoreError, StoreUnavailable

REQUEST_TRIES = 3

# A store that does not answer is noticed in seconds; who needs it longer says so in the options.
_S3_DEFAULTS: Mapping[str, Any] = {
    "config_kwargs": {"connect_timeout": 5, "read_timeout": 20, "retries": {"max_attempts": 0}},
}
_PASSING = {errno.EBUSY, errno.EIO, getattr(errno, "EREMOTEIO", errno.EIO)}


class Lost(Exception):
    """A conditional write met another content than it expected."""


class S3:
    """Whatever speaks the protocol of S3 and honours conditional writes; `fs` is the fsspec file system."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        try:
            import s3fs
        except ImportError as error:
            raise StoreError(
                "WORKER_MODEL_STORE = 's3://…' needs s3fs: pip install 'kafka-anomaly-worker[store]'"
            ) from error
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
        """Write where the tag is still this one (None: where there is nothing), else Lost."""
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        try:
            self.fs.pipe_file(path, content, **condition)
        except OSError as error:
            if code_of(error) in {"PreconditionFailed", "412", "ConditionalRequestConflict", "409", "NoSuchKey"}:
                raise Lost from error
            raise


def code_of(error: BaseException) -> str:
    """The code that an S3 server gave, empty where the error is none of its."""
    response = getattr(error.__cause__ or error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def is_missing(error: Exception) -> bool:
    """Whether the store itself said that there is no such object; a bare 404 can be any web server's."""
    return isinstance(error, FileNotFoundError) and code_of(error) in {"", "NoSuchKey"}


def sorted_error(error: Exception) -> type[StoreError] | None:
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

        if isinstance(
            error,
            boto.HTTPClientError
            | boto.ConnectionError
            | boto.IncompleteReadError
            | boto.MetadataRetrievalError
            | boto.CredentialRetrievalError
            | aiohttp.ClientError,
        ):
            return StoreUnavailable
        if isinstance(error, boto.BotoCoreError):
            return StoreError
    return None


def reason_of(error: Exception) -> str:
    """In one line."""
    if code_of(error) == "NoSuchBucket":
        return "no such bucket"
    return " ".join(str(error).split()) or type(error).__name__
