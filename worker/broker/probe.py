"""Says why a broker can't be reached: name, port, TLS, protocol, login, in this order.

The Kafka client reports a wrong certificate, a foreign CA and a closed port alike, after its bootstrap timeout.
"""

import socket
import ssl
import struct
from collections.abc import Mapping
from typing import Any

from worker.broker.login import try_login
from worker.errors import BrokerUnavailable

_CORRELATION_ID = 1
# ApiVersions, version 0: what any broker answers on any listener, before authentication.
_API_VERSIONS = struct.pack(">hhih", 18, 0, _CORRELATION_ID, -1)
_TLS_ALERT, _TLS_HANDSHAKE = 0x15, 0x16


def probe(server: str, options: Mapping[str, Any], *, timeout_s: float = 5.0) -> str:
    """One exchange with the broker at `host:port`; returns in a few words what worked.

    options: the kafka-python options; `security_protocol`, `ssl_…` and `sasl_…` are read.
    Raises BrokerUnavailable with the reason and what to do.
    """
    host, _, port = server.strip().rpartition(":")
    host = host.strip("[]")
    protocol = str(options.get("security_protocol", "PLAINTEXT"))
    with _connect(server, host, int(port), timeout_s) as plain:
        if not protocol.endswith("SSL"):
            _exchange(server, plain, options, encrypted=False)
            return f"{server} answers"
        with _handshake(server, host, plain, options) as secure:
            _exchange(server, secure, options, encrypted=True)
            return f"{server} answers, {secure.version()}"


def _connect(server: str, host: str, port: int, timeout_s: float) -> socket.socket:
    try:
        return socket.create_connection((host, port), timeout_s)
    except socket.gaierror as error:
        reason = f"the name {host} is unknown here ({error.strerror}); check WORKER_KAFKA__BOOTSTRAP_SERVERS and DNS"
    except ConnectionRefusedError:
        reason = "connection refused; is the broker running, and is this its port?"
    except TimeoutError:
        reason = f"no answer within {timeout_s:g} s; a firewall, or the wrong address"
    except (OSError, OverflowError) as error:
        reason = str(error)
    raise BrokerUnavailable(f"{server}: {reason}")


def tls_context(options: Mapping[str, Any]) -> ssl.SSLContext:
    """The context that kafka-python makes of the same options. Raises OSError (ssl.SSLError is one) for bad files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = options.get("ssl_check_hostname", True)
    if options.get("ssl_cafile"):
        context.load_verify_locations(options["ssl_cafile"])
    else:
        context.load_default_certs()
    if options.get("ssl_certfile"):
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"), options.get("ssl_password"))
    return context


def _handshake(server: str, host: str, plain: socket.socket, options: Mapping[str, Any]) -> ssl.SSLSocket:
    try:
        context = tls_context(options)
    except OSError as error:
        raise BrokerUnavailable(f"{server}: a TLS file is unusable: {error}; check ssl_cafile, ssl_certfile") from error
    try:
        return context.wrap_socket(plain, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        advice = "check ssl_cafile" if error.verify_code in {18, 19, 20, 21} else "check the host name and the dates"
        raise BrokerUnavailable(f"{server}: the certificate is refused: {error.verify_message}; {advice}") from error
    except (OSError, ValueError) as error:
        raise BrokerUnavailable(
            f"{server}: no TLS handshake ({_words(error)}); does this port speak TLS? See security_protocol"
        ) from error


def _exchange(server: str, connection: socket.socket, options: Mapping[str, Any], *, encrypted: bool) -> None:
    try:
        connection.sendall(struct.pack(">i", len(_API_VERSIONS)) + _API_VERSIONS)
        answer = _receive(connection, 8)
    except ssl.SSLError as error:
        raise BrokerUnavailable(
            f"{server}: the broker ended the TLS session ({_words(error)}); "
            "does it want a client certificate, or another one? See ssl_certfile"
        ) from error
    except OSError as error:
        answer, cause = b"", _words(error)
    else:
        cause = "it closed the connection"
    if len(answer) < 8 or struct.unpack(">ii", answer)[1] != _CORRELATION_ID:
        raise BrokerUnavailable(f"{server}: {_no_broker(answer, cause, encrypted=encrypted)}")
    if str(options.get("security_protocol", "")).startswith("SASL"):
        _login(server, connection, options, left=struct.unpack(">i", answer[:4])[0] - 4)


def _no_broker(answer: bytes, cause: str, *, encrypted: bool) -> str:
    if answer[:1] in {bytes([_TLS_ALERT]), bytes([_TLS_HANDSHAKE])}:
        return "this port speaks TLS; set security_protocol to SSL or SASL_SSL"
    if answer:
        return "something answers, but it is no Kafka broker"
    if encrypted:
        return f"{cause} after the TLS handshake; does it want a client certificate? See ssl_certfile"
    return f"{cause} without an answer; does this port speak TLS? See security_protocol"


def _login(server: str, connection: socket.socket, options: Mapping[str, Any], *, left: int) -> None:
    """`left` bytes of the answer before are still to be read."""
    try:
        _receive(connection, left)
        try_login(server, connection, options)
    except OSError as error:
        raise BrokerUnavailable(
            f"{server}: {_words(error)}; does this listener want SASL? See security_protocol"
        ) from error
    except (struct.error, ValueError, LookupError) as error:
        raise BrokerUnavailable(f"{server}: the answer to the login makes no sense") from error


def _receive(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        piece = connection.recv(size - len(received))
        if not piece:
            break
        received += piece
    return received


def _words(error: Exception) -> str:
    return str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error)
