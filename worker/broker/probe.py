"""Says why a broker can't be reached: name, port, TLS, protocol, login, in this order; then what the client says.

The Kafka client reports a wrong certificate, a foreign CA, a wrong password and a closed port alike, after its
bootstrap timeout: the broker closes the connection, and the client tries again. So this has one conversation of its
own, step by step, and hears the reason in the broker's own words.
"""

import contextlib
import logging
import re
import socket
import ssl
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from kafka.errors import KafkaError
from kafka.net.sasl import SASL_MECHANISMS
from kafka.net.transport import KafkaSSLTransport
from kafka.protocol.parser import KafkaProtocol
from kafka.protocol.sasl import SaslAuthenticateRequest, SaslHandshakeRequest

from worker.broker.admin import topic_partitions
from worker.broker.client import Connection
from worker.errors import BrokerUnavailable, FatalError

# ApiVersions, version 0: what any broker answers on any listener, before authentication.
_API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 1, -1)
_TLS_ALERT, _TLS_HANDSHAKE = b"\x15", b"\x16"


def probe(server: str, options: Mapping[str, Any], *, timeout_s: float = 5.0) -> str:
    """One conversation with the broker at `host:port`; returns in a few words what worked.

    options: the kafka-python options; `security_protocol`, `ssl_…` and `sasl_…` are read.
    Raises BrokerUnavailable with the reason and what to do.
    """
    host, _, port = server.strip().rpartition(":")
    host = host.strip("[]")
    protocol = str(options.get("security_protocol", "PLAINTEXT"))
    try:
        with _connect(host, int(port), timeout_s) as plain, contextlib.ExitStack() as stack:
            connection, tls = plain, ""
            if protocol.endswith("SSL"):
                secure = stack.enter_context(_handshake(host, plain, options))
                connection, tls = secure, f", {secure.version()}"
            _exchange(connection, encrypted=bool(tls))
            if protocol.startswith("SASL"):
                _log_in(connection, options)
            return f"{server} answers{tls}"
    except BrokerUnavailable as error:
        raise BrokerUnavailable(f"{server}: {error}") from error.__cause__


def probe_client(connection: Connection) -> Mapping[str, int]:
    """The number of partitions of every topic, asked for by the Kafka client, for a broker that `probe` has reached.

    Raises BrokerUnavailable with the reason: the client often raises only that it can't connect; why is in its log.
    """
    with _complaints() as complaints:
        try:
            return topic_partitions(connection)
        except (BrokerUnavailable, FatalError) as error:
            of_login = [text for text in complaints if "sasl" in text.lower() or "authenticat" in text.lower()]
            reason = re.sub(r"^.*Error: | \(backoff .*$", "", of_login[-1]) if of_login else ""
            protocol = connection.options.get("security_protocol", "PLAINTEXT")
            raise BrokerUnavailable(
                f"the broker refuses the login: {reason}; check sasl_mechanism, user and password"
                if of_login
                else f"{error}; the port answers, so check security_protocol (now {protocol}) and that the addresses "
                f"which the broker advertises can be reached from here{': ' + complaints[-1] if complaints else ''}"
            ) from error


@contextlib.contextmanager
def _complaints() -> Iterator[list[str]]:
    """What the Kafka client's loggers say from warning on, instead of printing it."""
    complaints: list[str] = []
    collector = logging.Handler(logging.WARNING)
    collector.emit = lambda record: complaints.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("kafka")
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(collector)
    try:
        yield complaints
    finally:
        logger.removeHandler(collector)
        logger.propagate = propagate


def _connect(host: str, port: int, timeout_s: float) -> socket.socket:
    try:
        return socket.create_connection((host, port), timeout_s)
    except socket.gaierror as error:
        reason = f"the name {host} is unknown here ({error.strerror}); check [kafka.bootstrap_servers] and DNS"
    except ConnectionRefusedError:
        reason = "connection refused; is the broker running, and is this its port?"
    except TimeoutError:
        reason = f"no answer within {timeout_s:g} s; a firewall, or the wrong address"
    except (OSError, OverflowError) as error:
        reason = str(error)
    raise BrokerUnavailable(reason)


def _handshake(host: str, plain: socket.socket, options: Mapping[str, Any]) -> ssl.SSLSocket:
    config = {name: options.get(name, default) for name, default in KafkaSSLTransport.DEFAULT_CONFIG.items()}
    try:
        context: ssl.SSLContext = KafkaSSLTransport._build_ssl_context(config)  # noqa: SLF001  # the one that is used
    except OSError as error:
        raise BrokerUnavailable(f"a TLS file is unusable: {error}; check ssl_cafile, ssl_certfile") from error
    try:
        return context.wrap_socket(plain, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        advice = "check ssl_cafile" if error.verify_code in {18, 19, 20, 21} else "check the host name and the dates"
        raise BrokerUnavailable(f"the certificate is refused: {error.verify_message}; {advice}") from error
    except (OSError, ValueError) as error:
        reason = f"no TLS handshake ({_words(error)}); does this port speak TLS? See security_protocol"
        raise BrokerUnavailable(reason) from error


def _exchange(connection: socket.socket, *, encrypted: bool) -> None:
    """Asks for the broker's versions: whether it is one."""
    answer, cause = b"", "it closed the connection"
    try:
        connection.sendall(_API_VERSIONS)
        with connection.makefile("rb") as stream:  # a read ends early where the broker closes the connection
            answer = stream.read(8)
            if len(answer) == 8 and answer[4:] == _API_VERSIONS[8:12]:  # the number of the request
                stream.read(int.from_bytes(answer[:4], "big") - 4)
                return
    except ssl.SSLError as error:
        advice = "does it want a client certificate, or another one? See ssl_certfile"
        raise BrokerUnavailable(f"the broker ended the TLS session ({_words(error)}); {advice}") from error
    except OSError as error:
        cause = _words(error)
    if answer[:1] in {_TLS_ALERT, _TLS_HANDSHAKE}:
        reason = "this port speaks TLS; set security_protocol to SSL or SASL_SSL"
    elif answer:
        reason = "something answers, but it is no Kafka broker"
    elif encrypted:
        reason = f"{cause} after the TLS handshake; does it want a client certificate? See ssl_certfile"
    else:
        reason = f"{cause} without an answer; does this port speak TLS? See security_protocol"
    raise BrokerUnavailable(reason)


def _log_in(connection: socket.socket, options: Mapping[str, Any]) -> None:
    """Offers the mechanism, and logs in where it is PLAIN or SCRAM; others are left to the Kafka client."""
    protocol, name = KafkaProtocol(), str(options.get("sasl_mechanism") or "")
    try:
        with _complaints():
            offered = _ask(protocol, connection, SaslHandshakeRequest(mechanism=name, version=1))
            if offered.error_code:
                names = ", ".join(offered.mechanisms)
                raise BrokerUnavailable(f"the broker takes sasl_mechanism {names}, not {name!r}")
            if name != "PLAIN" and not name.startswith("SCRAM-"):
                return
            login = SASL_MECHANISMS[name](**{"sasl_plain_username": "", "sasl_plain_password": "", **options})
            while not login.is_done():
                answer = _ask(protocol, connection, SaslAuthenticateRequest(auth_bytes=login.auth_bytes(), version=0))
                if answer.error_code:
                    reason = f"{answer.error_message}; check user and password"
                    raise BrokerUnavailable(f"the broker refuses the login: {reason}")
                login.receive(answer.auth_bytes)
    except OSError as error:
        raise BrokerUnavailable(f"{_words(error)}; does this listener want SASL? See security_protocol") from error
    except (KafkaError, ValueError, LookupError) as error:
        raise BrokerUnavailable("the answer to the login makes no sense") from error


def _ask(protocol: Any, connection: socket.socket, request: Any) -> Any:
    protocol.send_request(request)
    connection.sendall(protocol.send_bytes())
    while received := connection.recv(4096):
        for _, answer in protocol.receive_bytes(received):
            return answer
    raise ConnectionError("the broker closed the connection during the login")


def _words(error: Exception) -> str:
    return str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error)
