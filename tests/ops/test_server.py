"""The HTTP port under clients that are slow on purpose: bounded in connections, bytes and time; probes get through."""

import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest

from devtools.brokers import eventually
from worker.ops import server as module
from worker.ops.health import Health
from worker.ops.metrics import Metrics
from worker.ops.server import MAX_CONNECTIONS, MAX_HEAD_BYTES, HealthServer


@pytest.fixture
def server() -> Iterator[HealthServer]:
    with HealthServer(Health(), Metrics().registry, host="127.0.0.1", port=0) as server:
        yield server


def connect(server: HealthServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def ask(server: HealthServer, request: bytes) -> bytes:
    """The status line of the answer; empty where the connection was closed without one."""
    with connect(server) as connection:
        connection.sendall(request)
        return answer_of(connection).split(b"\r\n")[0]


def answer_of(connection: socket.socket) -> bytes:
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


def is_waiting(connection: socket.socket) -> bool:
    """Whether the server has left it open and has not answered."""
    try:
        connection.setblocking(False)
        connection.recv(65536)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


PROBE = b"GET /livez HTTP/1.1\r\nHost: worker\r\n\r\n"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (PROBE, b"HTTP/1.0 200 OK"),
        (b"HEAD /livez HTTP/1.0\r\n\r\n", b"HTTP/1.0 200 OK"),
        (b"GET /livez HTTP/1.1\nHost: worker\n\n", b"HTTP/1.0 200 OK"),
        (b"GET /readyz HTTP/1.1\r\nConnection: keep-alive\r\n\r\n", b"HTTP/1.0 503 Service Unavailable"),
        (b"POST /livez HTTP/1.1\r\n\r\n", b"HTTP/1.0 501 Unsupported method ('POST')"),
        (b"\x16\x03\x01 hello\r\n\r\n", b"<"),  # a page, as for HTTP 0.9
        (b"GET /livez HTTP/1.1\r\nX: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n", b"HTTP/1.0 431"),
    ],
    ids=["probe", "head", "bare newlines", "keep-alive", "post", "tls", "too long"],
)
def test_every_request_is_answered_and_its_connection_closed(
    server: HealthServer, request_bytes: bytes, status: bytes
) -> None:
    assert ask(server, request_bytes).startswith(status)


def test_a_head_without_an_end_is_answered_once_it_is_too_long(server: HealthServer) -> None:
    assert ask(server, b"GET /livez HTTP/1.1\r\nX: " + b"x" * MAX_HEAD_BYTES).startswith(b"HTTP/1.0 431")


def nothing(_: socket.socket) -> None:
    pass


def a_byte(connection: socket.socket) -> None:
    connection.sendall(b"G")


def a_line(connection: socket.socket) -> None:
    connection.sendall(b"GET /metrics HTTP/1.1\r\n")


def a_request_whose_answer_nobody_reads(connection: socket.socket) -> None:
    connection.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")


def a_reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    connection.close()


@pytest.mark.parametrize("begin", [nothing, a_byte, a_line, a_request_whose_answer_nobody_reads, a_reset])
def test_probes_get_through_however_many_connections_are_slow(
    server: HealthServer, begin: Callable[[socket.socket], None]
) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(connect(server)) for _ in range(MAX_CONNECTIONS)]
        for number in range(120):
            slow.append(stack.enter_context(connect(server)))
            begin(slow[-1])
            if number % 40 == 0:
                assert ask(server, PROBE) == b"HTTP/1.0 200 OK"

        assert len(server._connections) <= MAX_CONNECTIONS
        eventually(lambda: sum(map(is_waiting, slow)) <= MAX_CONNECTIONS, 10, "the others are closed")


def test_a_connection_that_sends_a_byte_now_and_then_ends_by_its_deadline(
    server: HealthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CONNECTION_S", 0.5)
    started = time.monotonic()

    def sends_no_more() -> bool:
        try:
            connection.sendall(b"x")
        except ConnectionError:
            return True
        return not is_waiting(connection)

    with connect(server) as connection:
        eventually(sends_no_more, 10, "closed")

    assert time.monotonic() - started >= 0.4
    assert ask(server, PROBE) == b"HTTP/1.0 200 OK"


# 1,020 connections that send a byte every now and then, in a process of 64 file descriptors that also opens files.
CROWD = """
import resource, sys, time
from worker.ops.health import Health
from worker.ops.metrics import Metrics
from worker.ops.server import HealthServer
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
with HealthServer(Health(), Metrics().registry, host="127.0.0.1", port=0) as server:
    print(server.port, flush=True)
    for line in sys.stdin:
        open(__import__("os").devnull).close()
        print("still here", flush=True)
"""


def test_a_crowd_of_slow_connections_takes_no_file_descriptor_from_the_worker() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(1020, soft - 200)
    with (
        subprocess.Popen([sys.executable, "-c", CROWD], stdin=-1, stdout=-1, text=True) as process,
        ExitStack() as stack,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        port = int(process.stdout.readline())
        crowd = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10)) for _ in range(count)]
        for connection in crowd[-20:]:
            with suppress(ConnectionError):
                connection.sendall(b"G")
        process.stdin.write("\n")
        process.stdin.flush()
        said = process.stdout.readline()
        with socket.create_connection(("127.0.0.1", port), timeout=10) as probe:
            probe.sendall(PROBE)
            answer = answer_of(probe)
        process.stdin.close()

    assert said == "still here\n"
    assert answer.startswith(b"HTTP/1.0 200 OK")
    assert process.returncode == 0
