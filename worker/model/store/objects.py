"""A model store in an object store, through fsspec.

Objects are replaced as a whole, so a reader sees the old or the new. A version is whole once it has its manifest, which
is written last and removed first. The pointer is replaced by conditional writes (If-Match, If-None-Match).
"""

import random
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from worker.errors import StoreConflict, StoreError
from worker.model.store.bundle import MANIFEST, WEIGHTS
from worker.model.store.conditional import S3, Lost, is_missing, reason_of, sorted_error
from worker.model.store.rehearsal import ROWS
from worker.model.store.volume import Update

ATTEMPTS = 12
BACKOFF_S = 0.05

_VERSION = re.compile(r"[0-9a-f]{12}")
_PROBE = ".probe."


class ObjectVolume:
    """Objects under s3://BUCKET/PREFIX; StoreError for any other URL, for its store may have no conditional writes."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        protocol, _, path = url.partition("://")
        if protocol != "s3" or not path.strip("/"):
            raise StoreError(f"WORKER_MODEL_STORE = {url!r}: must be a directory or s3://BUCKET/PREFIX")
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
        except (Lost, StoreError):
            raise
        except Exception as error:
            if is_missing(error):
                raise FileNotFoundError(where) from error
            kind = sorted_error(error)
            if kind is None:
                raise
            raise kind(f"the model store can't be {action} ({where}): {reason_of(error)}") from error

    def read(self, path: str) -> bytes:
        """See Volume."""
        with self._named_errors("read", path):
            return self._objects.get(self._at(path))

    def _listed(self) -> dict[str, dict[str, float]]:
        """Folder -> file -> when it was written; files that lie in no folder under the folder ''."""
        with self._named_errors("read"):
            try:
                found = self._fs.find(self._prefix, detail=True)
            except FileNotFoundError as error:
                if not is_missing(error):
                    raise
                found = {}
        folders: dict[str, dict[str, float]] = {}
        for path, facts in found.items():
            folder, _, file = str(path).strip("/").removeprefix(f"{self._prefix}/").rpartition("/")
            folders.setdefault(folder, {})[file] = facts["LastModified"].timestamp()
        return folders

    def folders(self) -> dict[str, float]:
        """See Volume."""
        return {
            name: files[MANIFEST] for name, files in self._listed().items() if "/" not in name and MANIFEST in files
        }

    def write_folder(self, name: str, files: Mapping[str, bytes]) -> None:
        """See Volume."""
        *first, last = files
        with self._written(name):
            for file in first:
                self._fs.pipe_file(self._at(f"{name}/{file}"), files[file])
            with suppress(Lost):  # another process was faster with the same content
                self._objects.put(self._at(f"{name}/{last}"), files[last], None)

    @contextmanager
    def _written(self, path: str) -> Iterator[None]:
        try:
            with self._named_errors("written", path):
                yield
        except FileNotFoundError as error:
            raise StoreError(f"the model store can't be written ({error}): no such place") from error

    def remove_folder(self, name: str) -> None:
        """See Volume."""
        files = sorted(self._listed().get(name, {}), key=lambda file: file != MANIFEST)
        self._remove(f"{name}/{file}" for file in files)

    def _remove(self, paths: Iterator[str]) -> None:
        with self._named_errors("written"):
            for path in paths:
                with suppress(FileNotFoundError):
                    self._fs.rm_file(self._at(path))

    def change(self, path: str, update: Update) -> None:
        """See Volume."""
        for attempt in range(ATTEMPTS):
            # The tag comes first: content that is newer than its tag is refused on writing, never overwritten.
            with self._named_errors("read", path):
                tag = self._objects.tag(self._at(path))
            content = self._content(path)
            changed = update(content)
            if changed is None or changed == content:
                return
            try:
                with self._written(path):
                    self._objects.put(self._at(path), changed, tag)
            except Lost:
                if self._content(path) == changed:
                    return  # it was ours: the answer got lost and the request was repeated
                time.sleep(random.uniform(0, BACKOFF_S * (attempt + 1)))  # noqa: S311 - no secret
            else:
                return
        raise StoreConflict(f"{self.name}/{path}: other processes changed it {ATTEMPTS} times in a row")

    def _content(self, path: str) -> bytes | None:
        try:
            return self.read(path)
        except FileNotFoundError:
            return None

    def sweep(self, older_than_s: float) -> None:
        """See Volume."""
        before = time.time() - older_than_s
        for name, files in self._listed().items():
            if name == "":
                paths = [file for file, at in files.items() if file.startswith(_PROBE) and at < before]
            elif _VERSION.fullmatch(name) and files.keys() <= {WEIGHTS, ROWS} and max(files.values()) < before:
                paths = [f"{name}/{file}" for file in files]
            else:
                continue
            self._remove(iter(paths))

    def require_writable(self) -> None:
        """See Volume; StoreError, too, where the store takes no notice of conditions."""
        path = f"{_PROBE}{uuid.uuid4().hex}"
        with self._written(path):
            self._objects.put(self._at(path), b"1", None)
        try:
            self._require_conditions(path)
        finally:
            self._remove(iter([path]))

    def _require_conditions(self, path: str) -> None:
        for tag in (None, '"00000000000000000000000000000000"'):
            try:
                with self._written(path):
                    self._objects.put(self._at(path), b"2", tag)
            except Lost:
                continue
            raise StoreError(
                f"{self.name}: this object store takes no notice of conditional writes (If-Match, If-None-Match): "
                "two processes could undo each other's changes"
            )
