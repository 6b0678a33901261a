"""The probe: who answers at a broker's address, in words of what is wrong."""

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from worker.broker.probe import probe
from worker.errors import BrokerUnavailable, SettingsError

ANSWER = b"\x00\x00\x00\x0a\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00"  # ApiVersions, version 0, correlation id 1

Serve = Callable[[bytes], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server that answers the first request with these bytes and closes; gives its address."""
    with contextlib.ExitStack() as stack:

        def start(answer: bytes) -> str:
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

            def handle() -> None:
                client, _ = server.accept()
                with client:
                    client.recv(1024)
                    client.sendall(answer)

            thread = threading.Thread(target=handle, daemon=True)
            thread.start()
            stack.callback(thread.join, 10)
            return f"127.0.0.1:{server.getsockname()[1]}"

        yield start


def test_a_broker_answers(serve: Serve) -> None:
    server = serve(ANSWER)

    assert probe(server, {}) == f"{server} answers"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "it is no Kafka broker"),
        (b"\x15\x03\x03\x00\x02\x02\x50", "this port speaks TLS; set security_protocol to SSL or SASL_SSL"),
        (b"", "does this port speak TLS? See security_protocol"),
    ],
)
def test_what_answers_instead_of_a_broker_is_told_apart(serve: Serve, answer: bytes, reason: str) -> None:
    with pytest.raises(BrokerUnavailable if answer == b"" else SettingsError, match=reason.replace("?", r"\?")):
        probe(serve(answer), {})


def test_tls_on_a_port_without_tls_is_found(serve: Serve) -> None:
    with pytest.raises(BrokerUnavailable, match="no TLS handshake"):
        probe(serve(b""), {"security_protocol": "SSL"})


def test_an_unknown_host_is_named() -> None:
    with pytest.raises(BrokerUnavailable, match=r"the name no\.such\.host\.invalid is unknown here"):
        probe("no.such.host.invalid:9092", {})


def test_the_certificate_of_a_foreign_authority_is_named(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2"]
    subprocess.run([*request, "-keyout", "key.pem", "-out", "cert.pem"], cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def handle() -> None:
            client, _ = server.accept()
            with client, contextlib.suppress(OSError), context.wrap_socket(client, server_side=True):
                pass

        thread = threading.Thread(target=handle, daemon=True)
        thread.start()
        with pytest.raises(
            SettingsError, match=r"the certificate is refused: self.signed certificate; check ssl_cafile"
        ):
            probe(f"127.0.0.1:{server.getsockname()[1]}", {"security_protocol": "SSL"})
        thread.join(10)
