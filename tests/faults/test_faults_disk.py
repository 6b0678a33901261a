"""A disk that is full while a model is written: the current model stays, nothing half-written is left."""

import contextlib
import resource
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, Protocol

import pytest

from devtools import traffic
from worker.errors import StoreError, StoreUnavailable
from worker.model.store.model_store import ModelStore
from worker.model.store.pointer import Mark, Status

DISK_BYTES, FILE_BYTES = 64 << 10, 4096
FULL = r"can't be written .*(No space left on device|File too large)"


class Disk(Protocol):
    """A folder whose disk can be filled up."""

    folder: Path

    def full(self) -> AbstractContextManager[None]: ...


class SmallDisk:
    """A file system of its own in memory, of 64 KiB."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        with contextlib.suppress(OSError), (self.folder / "filler").open("wb", buffering=0) as file:
            while file.write(b"x" * 512):
                pass
        yield


class LimitedFiles:
    """Any folder; while it is full, the kernel lets this process write 4 KiB to a file and not a byte more."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(params=["small disk", "limited files"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    kind: Literal["small disk", "limited files"] = request.param
    if kind == "limited files":
        yield LimitedFiles(tmp_path)
        return
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a file system here")
    yield SmallDisk(tmp_path)
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_full_disk_keeps_the_model_in_force_and_leaves_nothing_behind(disk: Disk) -> None:
    store = ModelStore(disk.folder / "models")
    store.save(traffic.bundle())
    store.promote(traffic.bundle().version)
    before = sorted(path.name for path in Path(store.name).iterdir())
    other = traffic.bundle(1)

    with disk.full(), pytest.raises(StoreError, match=FULL) as error:
        store.save(other)

    assert isinstance(error.value, StoreUnavailable) == isinstance(disk, SmallDisk)
    assert sorted(path.name for path in Path(store.name).iterdir()) == before
    assert store.load().version == traffic.bundle().version


def test_a_full_disk_keeps_the_name_of_the_model_in_force(disk: Disk) -> None:
    store = ModelStore(disk.folder / "models")
    store.save(traffic.bundle())
    store.promote(traffic.bundle().version)
    before = (Path(store.name) / "current.json").read_bytes()

    with disk.full(), pytest.raises(StoreError, match=FULL):
        store.mark("another", Mark(Status.CANDIDATE, traffic.CREATED, "trainer", "x" * FILE_BYTES))

    assert (Path(store.name) / "current.json").read_bytes() == before
    assert [path.name for path in Path(store.name).iterdir() if path.name.startswith(".")] == []
