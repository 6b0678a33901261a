"""`python -m tests.docs.preloaded SOCKET`: one process with everything imported, which forks for each command.

A `worker` command imports PyTorch for two or three seconds. The pages hold dozens of commands, and a child of this
process has the modules already. The client below stands on PATH as `worker` while a block runs: it hands its arguments,
folder, variables and streams over, and ends with the command's exit code.
"""

import contextlib
import importlib
import json
import os
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

CLIENT = """#!{python} -IS
import json, os, re, signal, socket, sys

argv = sys.argv[1:]
endless = argv[:1] == ["run"] or (argv[:1] == ["train"] and "--once" not in argv)
reader, writer = os.pipe() if endless else (None, 2)
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
request = json.dumps({{"argv": argv, "folder": os.getcwd(), "variables": dict(os.environ)}}).encode()
socket.send_fds(server, [len(request).to_bytes(8, "big")], [0, 1, writer])
server.sendall(request)
answers = server.makefile("rb")
child = int(answers.readline())
if endless:
    os.close(writer)
    ready = re.compile(rb"\\bstarted\\b" if argv[0] == "train" else rb"\\brebalanced\\b")
    for line in os.fdopen(reader, "rb"):
        os.write(2, line)
        if ready.search(line):
            os.kill(child, signal.SIGTERM)
            ready = re.compile(rb"(?!)")
sys.exit(int(answers.readline()))
"""
"""A command that runs until it is stopped gets SIGTERM once its log says that it has begun."""

LOAD_SETTINGS = "--load-settings"
"""In place of a command: what its settings are is all that is asked."""

LATE = ("plotly.graph_objects", "pyarrow.parquet", "worker.cli.check", "worker.processes.worker_process")
"""What the commands import late, and what takes long."""


def write_client(folder: Path, address: Path) -> None:
    """Puts the client into a folder, as `worker`."""
    client = folder / "worker"
    client.write_text(CLIENT.format(python=sys.executable, address=str(address)))
    client.chmod(0o755)


def main(address: str) -> None:
    """Serve until this process is killed."""
    import torch

    for name in LATE:
        importlib.import_module(name)

    torch.set_num_threads(1)  # before anything is computed: a fork has no other threads
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            connection, _ = server.accept()
            if os.fork() == 0:
                server.close()
                _serve(connection)
            connection.close()


def _serve(connection: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, streams, _, _ = socket.recv_fds(connection, 8, 3)
    body = b""
    while len(body) < int.from_bytes(head, "big"):
        body += connection.recv(1 << 16)
    child = os.fork()
    if child == 0:
        connection.close()
        _become(json.loads(body), streams)
    for stream in streams:
        os.close(stream)
    with contextlib.suppress(BrokenPipeError):
        connection.sendall(b"%d\n" % child)
        _, status = os.waitpid(child, 0)
        connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _become(request: dict[str, Any], streams: list[int]) -> None:
    """This process is the command from here on."""
    code = 1
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        # Python's own streams still know of the files before whether one can seek in them.
        sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, closefd=False) for number in (1, 2))
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["variables"])
        if request["argv"] == [LOAD_SETTINGS]:
            from worker.settings import load_settings

            load_settings()
            code = 0
        else:
            from worker.cli import main as run_command

            code = run_command(request["argv"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1])
