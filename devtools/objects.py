"""An object store on this machine: S3's protocol over HTTP, to stop and start again, and to count its requests."""

import itertools
import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from worker.model.store.model_store import ModelStore
from worker.model.store.objects import ObjectVolume

BUCKET = "models"
KEY, SECRET = "worker", "not-so-secret"

Environ = dict[str, Any]


class _Quiet(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing."""


class ObjectServer:
    """moto's server with one bucket; what it holds survives a stop."""

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._one_at_a_time = threading.Lock()
        self._numbers = itertools.count()
        self._server: BaseWSGIServer | None = None
        self._port = 0
        self.start()
        volume = self.store()._volume
        assert isinstance(volume, ObjectVolume)
        volume._fs.makedirs(BUCKET, exist_ok=True)

    def start(self) -> None:
        """Listen, on the same port each time."""
        self._server = make_server("127.0.0.1", self._port, self._answer, threaded=True, request_handler=_Quiet)
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections from now on."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _answer(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        with self._one_at_a_time:  # moto looks at a condition and writes in two steps; S3 does it in one
            return list(self._app(environ, start_response))

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def options(self) -> dict[str, Any]:
        return {"endpoint_url": self.endpoint, "key": KEY, "secret": SECRET}

    def url(self) -> str:
        """A place that no other test uses."""
        return f"s3://{BUCKET}/place-{next(self._numbers)}"

    def store(self, **rest: Any) -> ModelStore:
        """An empty store of its own."""
        return ModelStore(self.url(), options=self.options, **rest)
