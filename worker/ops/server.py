"""`/livez`, `/readyz` and `/metrics` over HTTP, from threads beside the record loop."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

import orjson
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from worker.errors import SettingsError
from worker.ops.health import Health


class HealthServer:
    """Serves while it is entered. `port` is the real one, also where 0 was asked for.

    /livez    200 while the loop makes progress, else 503
    /readyz   200 while the worker does its job, else 503 and the reasons
    /metrics  in the Prometheus format
    """

    def __init__(self, health: Health, registry: CollectorRegistry, *, host: str, port: int) -> None:
        handler = type("Handler", (_Handler,), {"health": health, "registry": registry})
        try:
            self._server = _Server((host, port), handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SettingsError(f"[http.port] = {port} on [http.host] = {host}: {reason}") from error
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="health", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is not worth a traceback."""


class _Handler(BaseHTTPRequestHandler):
    health: Health
    registry: CollectorRegistry
    timeout = 10  # seconds

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/livez":
            alive = self.health.is_alive()
            self._json(alive, {"alive": alive, "silence_s": round(self.health.silence_s(), 3)})
        elif path == "/readyz":
            reasons = self.health.reasons()
            self._json(not reasons, {"ready": not reasons, "reasons": reasons})
        elif path == "/metrics":
            encode, content_type = choose_encoder(self.headers.get("Accept", ""))
            self._send(200, content_type, encode(self.registry))
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

    def log_message(self, *_: object) -> None:
        """Probes come every few seconds; they are not logged."""
