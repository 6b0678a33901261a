"""A schema registry over real HTTP, in this process: as much of Confluent's protocol as readers ask for."""

import base64
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote


class Registry:
    """What it holds and how it behaves.

    away      answers 503
    login     user and password, or a bearer token, without which it answers 401
    answers   raw bodies by path, in place of what it would say
    """

    def __init__(self) -> None:
        self.url = ""
        self.away = False
        self.login: tuple[str, str] | str | None = None
        self.answers: dict[str, bytes] = {}
        self.paths: list[str] = []  # that were asked for
        self._by_id: dict[int, dict[str, Any]] = {}
        self._by_subject: dict[str, list[int]] = {}

    def add(self, subject: str, text: str, sort: str = "AVRO", references: Mapping[str, str] | None = None) -> int:
        """Register a version. references: subjects, in their newest version, by the names they are imported by."""
        number = len(self._by_id) + 1
        answer: dict[str, Any] = {"schema": text}
        if sort != "AVRO":
            answer["schemaType"] = sort
        if references:
            answer["references"] = [
                {"name": name, "subject": other, "version": len(self._by_subject[other])}
                for name, other in references.items()
            ]
        self._by_id[number] = answer
        self._by_subject.setdefault(subject, []).append(number)
        return number

    def answer(self, path: str, authorization: str | None) -> tuple[int, bytes]:
        self.paths.append(path)
        if self.away:
            return 503, b"away"
        if self.login is not None and authorization != _authorization(self.login):
            return 401, b'{"error_code": 401}'
        if path in self.answers:
            return 200, self.answers[path]
        match path.strip("/").split("/"):
            case ["schemas", "ids", number] if int(number) in self._by_id:
                return 200, json.dumps(self._by_id[int(number)]).encode()
            case ["subjects", subject, "versions", version] if unquote(subject) in self._by_subject:
                schema_id = self._by_subject[unquote(subject)][int(version) - 1]
                return 200, json.dumps({**self._by_id[schema_id], "subject": subject, "id": schema_id}).encode()
        return 404, b'{"error_code": 40403, "message": "Schema not found"}'


def _authorization(login: tuple[str, str] | str) -> str:
    if isinstance(login, str):
        return f"Bearer {login}"
    return "Basic " + base64.b64encode(":".join(login).encode()).decode()


@contextmanager
def running_registry() -> Iterator[Registry]:
    registry = Registry()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = registry.answer(self.path, self.headers.get("Authorization"))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    registry.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def with_id(schema_id: int, body: bytes, indexes: Sequence[int] | None = None) -> bytes:
    """A value as Confluent's serializers write it; indexes: of a Protobuf message's type, each below 64."""
    front = (
        b""
        if indexes is None
        else b"\0"
        if list(indexes) == [0]
        else bytes([2 * len(indexes), *(2 * i for i in indexes)])
    )
    return b"\0" + schema_id.to_bytes(4, "big") + front + body
