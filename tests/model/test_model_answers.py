"""An object store that answers wrongly is one error that names the place; where trying again helps, it is tried."""

import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import pytest

from devtools import traffic
from worker.errors import BundleError, StoreError, StoreUnavailable
from worker.model.store import objects
from worker.model.store.model_store import ModelStore
from worker.model.store.pointer import MAX_POINTER_BYTES, Mark, Pointer, Status

VERSION = "0123456789ab"
Answer = Callable[[socket.socket, int], object]
"""Sends something on a connection; the number counts the requests."""


class WrongServer:
    """Listens on this machine and answers every request with the same bytes, whatever was asked."""

    def __init__(self) -> None:
        self.answer: Answer = lambda *_: None
        self.requests = 0
        server = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                connection: socket.socket = self.request
                head = b""
                with suppress(OSError):
                    while b"\r\n\r\n" not in head:
                        part = connection.recv(65_536)
                        if not part:
                            return
                        head += part
                    server.requests += 1
                    server.answer(connection, server.requests)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def store(self) -> ModelStore:
        endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        timeouts = {"connect_timeout": 5, "read_timeout": 5, "retries": {"max_attempts": 0}}
        options = {"endpoint_url": endpoint, "key": "a", "secret": "b", "config_kwargs": timeouts}
        return ModelStore("s3://bucket/models", options=options)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def wrong_server() -> Iterator[WrongServer]:
    server = WrongServer()
    yield server
    server.close()


def http(status: str = "200 OK", body: bytes = b"", length: object = None, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def sends(content: bytes) -> Answer:
    return lambda connection, _: connection.sendall(content)


def endless(connection: socket.socket, _: int) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nETag: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"100000\r\n" + bytes(1 << 20) + b"\r\n")


def dripping(connection: socket.socket, _: int) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nETag: x\r\nContent-Length: 100000000\r\n\r\n")
    connection.settimeout(0.2)
    while True:  # a byte now and then, until the other side has gone
        connection.sendall(b"x")
        with suppress(TimeoutError):
            if not connection.recv(1):
                return


def listing(*entries: str, more: str = "") -> bytes:
    return f"<ListBucketResult>{''.join(entries)}{more}</ListBucketResult>".encode()


ERROR = b"<Error><Code>%s</Code><Message>m</Message></Error>"
ENTITIES = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">%s]><ListBucketResult>&j;</ListBucketResult>' % b"".join(
    b'<!ENTITY %c "%s">' % (name, b"&%c;" % (name - 1) * 10) for name in range(ord("b"), ord("k"))
)
KEY = f"<Contents><Key>models/{VERSION}/manifest.json</Key>{{}}</Contents>"
ANSWERS: dict[str, Answer] = {
    "closes at once": lambda *_: None,
    "no HTTP": sends(b"\x00\xff" * 500),
    "a status line that is cut": sends(b"HTTP/1.1 2"),
    "fewer bytes than announced": sends(http(body=b"short", length=1_000, ETag="x")),
    "more bytes than announced": sends(http(body=b"x" * 500, length=5, ETag="x")),
    "a length below 0": sends(http(body=b"x", length=-1, ETag="x")),
    "a length that is a word": sends(http(body=b"x", length="many", ETag="x")),
    "a length of 10 TB": sends(http(body=b"x", length=10**13, ETag="x")),
    "200 with an error": sends(http(body=ERROR % b"InternalError", ETag="x")),
    "200 with a web page": sends(http(body=b"<html><body>Welcome to the hotel", ETag="x", Content_Type="text/html")),
    "200 without a tag": sends(http(body=b"{}")),
    "200 and nothing": sends(http()),
    "bytes that are no gzip": sends(http(body=b"x" * 100, ETag="x", Content_Encoding="gzip")),
    "a header of 1 MB": sends(http(body=b"{}", ETag="x" * (1 << 20))),
    "XML that is cut": sends(http(body=b"<ListBucketResult><Contents><Key>")),
    "XML with nested entities": sends(http(body=ENTITIES)),
    "objects without a time": sends(http(body=listing(KEY.format("")))),
    "objects with a time that is none": sends(http(body=listing(KEY.format("<LastModified>now</LastModified>")))),
    "objects with sizes that are none": sends(http(body=listing(KEY.format("<Size>big</Size>")))),
    "a listing that never ends": sends(
        http(body=listing(more="<IsTruncated>true</IsTruncated><NextContinuationToken>x</NextContinuationToken>"))
    ),
    "301 to elsewhere": sends(http("301 Moved Permanently", Location="http://127.0.0.1:1/")),
    "307 to itself": sends(http("307 Temporary Redirect", Location="/")),
    "400 without XML": sends(http("400 Bad Request", body=b"no")),
    "403": sends(http("403 Forbidden", body=ERROR % b"AccessDenied")),
    "404 of a web server": sends(http("404 Not Found", body=b"<html>")),
    "416": sends(http("416 Range Not Satisfiable", body=ERROR % b"InvalidRange")),
    "500 without XML": sends(http("500 Internal Server Error", body=b"oops")),
    "503": sends(http("503 Slow Down", body=ERROR % b"SlowDown")),
    "599 with control characters": sends(http("599 Odd", body=ERROR % b"\x1b[2J\x07")),
    "999": sends(http("999 What")),
    "a body that never ends": endless,
    "a body of a byte now and then": dripping,
}


@pytest.mark.parametrize("what", ANSWERS)
def test_an_answer_that_can_not_be_used_is_one_error_that_names_the_place(
    wrong_server: WrongServer, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "REQUEST_S", 1.0)
    monkeypatch.setattr(objects, "MIN_BYTES_PER_S", 1 << 40)
    wrong_server.answer = ANSWERS[what]
    store = wrong_server.store()
    mark = Mark(Status.REJECTED, traffic.CREATED, "operator")
    actions = (lambda: store.load(VERSION), lambda: store.mark(VERSION, mark))  # list and read, read and write

    lines = []
    for action in actions:
        with suppress(StoreError, BundleError):
            try:
                action()
            except (StoreError, BundleError) as error:
                lines.append(str(error))
                raise

    assert lines
    assert all("s3://bucket/models" in line and len(line) < 700 for line in lines)
    assert not set("".join(lines)) & set("\x1b\x07\n")


def test_an_answer_that_came_short_is_asked_for_again(wrong_server: WrongServer) -> None:
    pointer = Pointer(VERSION).to_bytes()
    short, whole = (http(body=pointer[:length], length=len(pointer), ETag="x") for length in (9, None))
    for first in (short, http("503 Slow Down", body=ERROR % b"SlowDown")):
        wrong_server.requests = 0
        wrong_server.answer = partial(_sends_late, first, whole)

        assert wrong_server.store().current() == VERSION
        assert wrong_server.requests == 3


def _sends_late(first: bytes, then: bytes, connection: socket.socket, number: int) -> None:
    connection.sendall(first if number < 3 else then)


def test_a_body_that_never_ends_is_read_no_further_than_its_bound(wrong_server: WrongServer) -> None:
    sent = 0

    def counted(connection: socket.socket, _: int) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 200 OK\r\nETag: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.sendall(b"100000\r\n" + bytes(1 << 20) + b"\r\n")
            sent += 1 << 20

    wrong_server.answer = counted

    with pytest.raises(StoreError, match="larger than") as error:
        wrong_server.store().current()
    assert not isinstance(error.value, StoreUnavailable)
    assert sent < 2 * MAX_POINTER_BYTES
