"""The demo's own `worker` processes: real ones, their output in a log file, gone with the demo whatever happens."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import worker
from worker.demo.embedded import dying_with_parent
from worker.errors import FatalError

STOP_S = 15.0
TAIL_LINES = 15


class WorkerCommand:
    """One `worker …` process in `folder`, with these settings and no others.

    A context manager: on exit the process is gone, with SIGTERM first and SIGKILL after 15 s.
    It runs in a session of its own, so that Ctrl-C reaches the demo alone, which then stops it in order.
    """

    def __init__(self, arguments: Sequence[str], *, folder: Path, settings: Mapping[str, str]) -> None:
        self.name = f"worker {arguments[0]}"
        self.log_file = folder / f"{arguments[0]}.log"
        with self.log_file.open("wb") as log:
            self._process = subprocess.Popen(
                dying_with_parent([sys.executable, "-m", "worker", *arguments]),
                cwd=folder,
                env=_environment(settings, folder),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def running(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def require_running(self) -> None:
        """FatalError with its last words where it has ended."""
        if not self.running():
            raise self._failure(f"ended with exit code {self._process.returncode}")

    def require_success(self) -> str:
        """Its last line, once it has ended; FatalError with its last words where its exit code isn't 0."""
        if self._process.wait() != 0:
            raise self._failure(f"failed with exit code {self._process.returncode}")
        lines = self.tail(1)
        return lines[0] if lines else ""

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

    def tail(self, count: int = TAIL_LINES) -> list[str]:
        """The last lines of its output."""
        return self.log_file.read_text(errors="replace").splitlines()[-count:]

    def _failure(self, what: str) -> FatalError:
        said = "".join(f"\n  {line}" for line in self.tail())
        return FatalError(f"{self.name} {what}; it said last:{said or ' nothing'}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.running():
            self._process.terminate()
            try:
                self._process.wait(STOP_S if kind is None else 3.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def _environment(settings: Mapping[str, str], folder: Path) -> dict[str, str]:
    """This process's environment, with the given settings in place of its own.

    `-m worker` is this very package, and what libraries leave in the folder for temporary files goes with `folder`.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith("WORKER_")}
    paths = [str(Path(worker.__file__).parents[1]), *filter(None, [inherited.get("PYTHONPATH")])]
    own = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", "TMPDIR": str(folder)}
    return {**inherited, **own, **settings}
