"""`/livez`, `/readyz` and `/metrics` over HTTP, from one thread beside the record loop."""

import selectors
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from typing import Any, Final, Self

import orjson
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from worker.errors import SettingsError
from worker.ops.health import GuardedThread, Health

MAX_CONNECTIONS: Final = 16
MAX_WAITING: Final = 128  # in the kernel, for the few microseconds until they are accepted
MAX_HEAD_BYTES: Final = 8192
CONNECTION_S: Final = 10.0  # from its acceptance to the last byte of the answer
TICK_S: Final = 0.1
_READ: Final = selectors.EVENT_READ
_WRITE: Final = selectors.EVENT_WRITE


class HealthServer:
    """Serves while it is entered. `port` is the real one, also where 0 was asked for.

    /livez    200 while the loop makes progress and every thread lives, else 503
    /readyz   200 while the worker does its job, else 503 and the reasons
    /metrics  in the Prometheus format
    """

    # What strangers can do to the worker.
    #
    # One thread, a fixed number of connections and of bytes for each, and a time for the whole of a connection, however
    # often it sends a byte. A connection too many costs the oldest one its place: a probe sends its request at once and
    # is answered at once, so those that are slow on purpose push out each other, and probes get through.

    def __init__(self, health: Health, registry: CollectorRegistry, *, host: str, port: int) -> None:
        self._health, self._registry = health, registry
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._listener = socket.create_server((host, port), family=family, backlog=MAX_WAITING)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SettingsError(f"[http.port] = {port} on [http.host] = {host}: {reason}") from error
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, _READ)
        self._connections: dict[socket.socket, _Connection] = {}  # the oldest first
        self._stop = threading.Event()
        self._thread = GuardedThread(health, self._serve, "health")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for connection in (*self._connections, self._listener):
            connection.close()
        self._selector.close()

    def _serve(self) -> None:
        while not self._stop.is_set():
            for key, _ in self._selector.select(TICK_S):
                if key.fileobj is self._listener:
                    self._accept()
                elif (connection := self._connections.get(key.fileobj)) is not None:  # type: ignore[call-overload]
                    self._advance(connection)
            now = time.monotonic()
            for connection in [late for late in self._connections.values() if late.deadline <= now]:
                self._drop(connection)

    def _accept(self) -> None:
        try:
            accepted, _ = self._listener.accept()
        except OSError:  # it went away again, or there is no file descriptor left for it
            self._stop.wait(TICK_S)
            return
        accepted.setblocking(False)
        if len(self._connections) >= MAX_CONNECTIONS:
            self._drop(next(iter(self._connections.values())))
        self._connections[accepted] = _Connection(accepted)
        self._selector.register(accepted, _READ)

    def _advance(self, connection: "_Connection") -> None:
        """Reads what has come, or writes what can be written."""
        try:
            if connection.answer is None and (head := connection.head()) is not None:
                request = _Request(head)
                _Handler(request, self._health, self._registry)
                connection.answer = request.answer
                self._selector.modify(connection.socket, _WRITE)
            if connection.answer is not None:
                connection.answer = connection.answer[connection.socket.send(connection.answer) :]
                if not connection.answer:
                    self._drop(connection)
        except BlockingIOError:
            pass
        except OSError:  # a client that went away
            self._drop(connection)

    def _drop(self, connection: "_Connection") -> None:
        self._selector.unregister(connection.socket)
        del self._connections[connection.socket]
        connection.socket.close()


class _Connection:
    """One request and its answer."""

    def __init__(self, accepted: socket.socket) -> None:
        self.socket = accepted
        self.deadline = time.monotonic() + CONNECTION_S
        self.answer: bytes | None = None  # what is still to be sent
        self._received = b""

    def head(self) -> bytes | None:
        """The head of the request once all of it is there, or as much as is read of one; OSError at its end."""
        received = self.socket.recv(MAX_HEAD_BYTES)
        if not received:
            raise ConnectionError
        self._received += received
        ended = b"\r\n\r\n" in self._received or b"\n\n" in self._received
        return self._received if ended or len(self._received) > MAX_HEAD_BYTES else None


class _Request:
    """What the handler below takes for a connection: a request of which all is there, and room for the answer."""

    def __init__(self, head: bytes) -> None:
        self.head = head
        self.answer = b""

    def makefile(self, *_: object) -> BytesIO:
        """Where the request is read."""
        return BytesIO(self.head)

    def sendall(self, content: bytes) -> None:
        """Where the answer is written."""
        self.answer += content


class _Handler(BaseHTTPRequestHandler):
    """Answers one request, when it is made."""

    def __init__(self, request: _Request, health: Health, registry: CollectorRegistry) -> None:
        self._health, self._registry = health, registry
        self._is_whole = len(request.head) <= MAX_HEAD_BYTES
        super().__init__(request, ("", 0), None)  # type: ignore[arg-type]  # it asks no more of a connection

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if not self._is_whole:
            self._send(431, "text/plain", b"")
        elif path == "/livez":
            health = self._health
            facts: dict[str, object] = {"alive": health.is_alive(), "silence_s": round(health.silence_s(), 3)}
            self._json(health.is_alive(), facts | ({"died": deaths} if (deaths := health.deaths()) else {}))
        elif path == "/readyz":
            reasons = self._health.reasons()
            self._json(not reasons, {"ready": not reasons, "reasons": reasons})
        elif path == "/metrics":
            encode, content_type = choose_encoder(self.headers.get("Accept", ""))
            self._send(200, content_type, encode(self._registry))
        else:
            self._send(404, "application/json", orjson.dumps({"paths": ["/livez", "/readyz", "/metrics"]}))

    do_HEAD = do_GET  # noqa: N815 - http.server calls it by this name

    def _json(self, good: bool, content: dict[str, object]) -> None:
        self._send(200 if good else 503, "application/json", orjson.dumps(content))

    def _send(self, status: int, content_type: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Probes come every few seconds; they are not logged."""
