"""A process that works on a model store, and is killed at the n-th step of its work.

Reads requests as JSON lines, forks as often as each says, and answers with the end of each fork: done, killed, or late
for its conflict. The process itself does nothing to a store, so each fork begins without threads and connections.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import s3fs  # noqa: F401 - before the forks, not in each of them
import torch
from aiobotocore.client import AioBaseClient
from aiobotocore.session import AioSession

from devtools import traffic
from worker.errors import StoreConflict
from worker.model.store.model_store import ModelStore
from worker.model.store.pointer import Mark, Status

HOUR_S = 3600.0
MARKS = 6
CONFLICT = 3
ENDS = {0: "done", -signal.SIGKILL: "killed", CONFLICT: "late"}
SESSION = AioSession()  # reads the descriptions of S3 once, not in each fork
_EVENTS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"}


class Killer:
    """Counts steps, and kills this process before the one that it was told. What was not flushed is half there then."""

    def __init__(self, step: int) -> None:
        self._left = step
        self._unflushed: set[str] = set()

    def __call__(self) -> None:
        self._left -= 1
        if self._left == 0:
            for path in filter(os.path.exists, self._unflushed):
                os.truncate(path, Path(path).stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    def watch_files(self, folder: str) -> None:
        """A step is a file that is opened, renamed, made, removed or flushed below `folder`."""
        flush = os.fsync

        def hook(event: str, args: tuple[Any, ...]) -> None:
            if event not in _EVENTS or not str(args[0]).startswith(folder):
                return
            self()
            if event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR):
                self._unflushed.add(str(args[0]))
            elif event == "os.rename":
                old, new = str(args[0]), str(args[1])
                self._unflushed = {path.replace(old, new, 1) for path in self._unflushed}

        def fsync(handle: Any) -> None:
            self()
            flush(handle)
            self._unflushed.discard(str(Path(f"/proc/self/fd/{handle}").readlink()))

        os.fsync = fsync  # type: ignore[assignment]
        sys.addaudithook(hook)

    def watch_requests(self) -> None:
        """A step is a request that changes the object store; between two of them nobody sees a difference."""
        call = AioBaseClient._make_api_call

        async def counted(client: Any, operation: str, *args: Any) -> Any:
            if operation.startswith(("Put", "Delete")):
                self()
            return await call(client, operation, *args)

        AioBaseClient._make_api_call = counted


def renew(store: ModelStore) -> None:
    """A new version takes over."""
    bundle = traffic.bundle(1)
    store.save(bundle)
    store.promote(bundle.version)


def prune(store: ModelStore) -> None:
    """All but the versions that have to stay are removed."""
    store.prune(1)


def mark_often(store: ModelStore) -> None:
    """Changes that each need the one before."""
    for number in range(MARKS):
        store.mark(f"{os.getpid()}-{number}", Mark(Status.CANDIDATE, traffic.CREATED, "trainer"))


def be_first(store: ModelStore) -> None:
    """Promote where nothing was promoted yet."""
    mark = Mark(Status.PROMOTED, traffic.CREATED, f"trainer {os.getpid()}")
    store.promote(traffic.bundle(os.getpid() % 2).version, expected=None, mark=mark)


ACTIONS = {"renew": renew, "prune": prune, "mark": mark_often, "first": be_first}


def work(request: dict[str, Any]) -> None:
    """One request, in a process of its own."""
    killer, place = Killer(request["step"]), request["place"]
    killer.watch_requests() if "://" in place else killer.watch_files(place)
    store = ModelStore(
        place, options={**request["options"], "session": SESSION}, clock=lambda: time.time() + 2 * HOUR_S
    )
    ACTIONS[request["action"]](store)


def fork(request: dict[str, Any]) -> int:
    """Start one; returns its process id."""
    child = os.fork()
    if child:
        return child
    try:
        work(request)
    except StoreConflict:
        os._exit(CONFLICT)
    except BaseException as error:  # noqa: BLE001 - a fork must not go on as its parent
        sys.stderr.write(f"{error!r}\n")
        os._exit(1)
    os._exit(0)


def main() -> None:
    """Serve requests until the input ends."""
    torch.set_num_threads(1)
    loader = SESSION.get_component("data_loader")
    for kind in ("service-2", "endpoint-rule-set-1"):
        loader.load_service_model("s3", kind)
    for name in ("endpoints", "partitions", "sdk-default-configuration"):
        loader.load_data(name)
    for seed in (0, 1):
        traffic.bundle(seed)
    _say("ready")
    for line in sys.stdin:
        request = orjson.loads(line)
        children = [fork(request) for _ in range(request["processes"])]
        ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        _say(" ".join(sorted(ENDS.get(end, "failed") for end in ends)))


def _say(answer: str) -> None:
    sys.stdout.write(f"{answer}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
