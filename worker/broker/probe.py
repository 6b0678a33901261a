"""Says why a broker can't be reached: name, port, TLS, protocol, login, in this order; then what the client says.

The Kafka client reports a wrong certificate, a foreign CA, a wrong password and a closed port alike, after its
bootstrap timeout: the broker closes the connection, and the client tries again. So this has one conversation of its
own, step by step, and hears the reason in the broker's own words.
"""

import contextlib
import logging
import socket
import ssl
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from kafka.errors import KafkaError
from kafka.net.sasl import SASL_MECHANISMS
from kafka.net.transport import KafkaSSLTransport
from kafka.protocol.parser import KafkaProtocol
from kafka.protocol.sasl import SaslAuthenticateRequest, SaslHandshakeRequest

from worker.errors import BrokerUnavailable, SettingsError, WorkerError

# ApiVersions, version 0: what any broker answers on any listener, before authentication.
_API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 1, -1)
_NO_MECHANISM = "NONE"
_TLS_ALERT, _TLS_HANDSHAKE = b"\x15", b"\x16"
_ADVICE: Final[Mapping[str, str]] = {  # of the logins that are tried here
    "PLAIN": "check sasl_plain_username and sasl_plain_password",
    "SCRAM-SHA-256": "check sasl_plain_username and sasl_plain_password",
    "SCRAM-SHA-512": "check sasl_plain_username and sasl_plain_password",
    "OAUTHBEARER": "check where the token comes from, who it is for and when it expires",
}


def probe(server: str, options: Mapping[str, Any], *, timeout_s: float = 5.0) -> str:
    """One conversation with the broker at `host:port`; returns in a few words what worked.

    options: the kafka-python options; `security_protocol`, `ssl_…` and `sasl_…` are read.
    Raises SettingsError where the broker refuses what the options say, BrokerUnavailable where it may be only away;
    both with the reason and what to do.
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
            else:
                _require_no_login(connection)
            return f"{server} answers{tls}"
    except (BrokerUnavailable, SettingsError) as error:
        raise type(error)(f"{server}: {error}") from error.__cause__


def refusal_of(servers: Sequence[str], options: Mapping[str, Any]) -> WorkerError | None:
    """Why none of the servers lets this client in; None where one does.

    SettingsError where at least one of them refuses it for good, BrokerUnavailable where they are only away.
    """
    refusals: list[WorkerError] = []
    for server in servers:
        try:
            probe(server, options, timeout_s=3.0)
        except (BrokerUnavailable, SettingsError) as error:
            refusals.append(error)
        else:
            return None
    for_good = [error for error in refusals if isinstance(error, SettingsError)]
    text = "; ".join(map(str, for_good or refusals))
    return SettingsError(text) if for_good else BrokerUnavailable(text)


@contextlib.contextmanager
def complaints_of_client() -> Iterator[list[str]]:
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
    except (OSError, ValueError) as error:
        raise SettingsError(f"a TLS file is unusable: {error}; check ssl_cafile, ssl_certfile") from error
    address, timeout_s = plain.getpeername(), plain.gettimeout() or 5.0
    try:
        return context.wrap_socket(plain, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        advice = "check ssl_cafile" if error.verify_code in {18, 19, 20, 21} else "check the host name and the dates"
        raise SettingsError(f"the certificate is refused: {error.verify_message}; {advice}") from error
    except (OSError, ValueError) as error:
        if _answers_without_tls(address, timeout_s):
            reason = "this port speaks no TLS; set security_protocol to PLAINTEXT or SASL_PLAINTEXT"
            raise SettingsError(reason) from error
        if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
            advice = "does it want a client certificate, or another protocol? See ssl_certfile, ssl_ciphers"
            raise SettingsError(f"no TLS handshake ({_words(error)}); {advice}") from error
        reason = f"no TLS handshake ({_words(error)}); does this port speak TLS? See security_protocol"
        raise BrokerUnavailable(reason) from error


def _answers_without_tls(address: tuple[Any, ...], timeout_s: float) -> bool:
    """Whether the port is that of a broker that takes requests in clear text."""
    try:
        with socket.create_connection(address[:2], timeout_s) as connection:
            _exchange(connection, encrypted=False)
    except (OSError, BrokerUnavailable, SettingsError):
        return False
    return True


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
    except ssl.SSLEOFError as error:
        cause = _words(error)
    except ssl.SSLError as error:
        advice = "does it want a client certificate, or another one? See ssl_certfile"
        raise SettingsError(f"the broker ended the TLS session ({_words(error)}); {advice}") from error
    except OSError as error:
        cause = _words(error)
    if answer[:1] in {_TLS_ALERT, _TLS_HANDSHAKE}:
        raise SettingsError("this port speaks TLS; set security_protocol to SSL or SASL_SSL")
    if answer:
        raise SettingsError("something answers, but it is no Kafka broker")
    if encrypted:
        reason = f"{cause} after the TLS handshake; does it want a client certificate? See ssl_certfile"
    else:
        reason = f"{cause} without an answer; does this port speak TLS? See security_protocol"
    raise BrokerUnavailable(reason)


def _require_no_login(connection: socket.socket) -> None:
    """SettingsError where the listener wants a login, which it says when it is offered one."""
    try:
        with complaints_of_client():
            offered = _ask(KafkaProtocol(), connection, SaslHandshakeRequest(mechanism=_NO_MECHANISM, version=1))
    except (OSError, KafkaError, ValueError, LookupError):
        return  # a broker that knows no logins
    mechanisms = [name for name in offered.mechanisms if name != _NO_MECHANISM]  # some brokers take whatever is offered
    if mechanisms:
        names = ", ".join(mechanisms)
        reason = f"this port wants a login: set security_protocol to SASL_…, and sasl_mechanism to {names}"
        raise SettingsError(reason)


def _log_in(connection: socket.socket, options: Mapping[str, Any]) -> None:
    """Offers the mechanism, and logs in with a password or a token; other logins are left to the Kafka client."""
    protocol, name = KafkaProtocol(), str(options.get("sasl_mechanism") or "")
    try:
        with complaints_of_client():
            offered = _ask(protocol, connection, SaslHandshakeRequest(mechanism=name, version=1))
            if offered.error_code:
                names = ", ".join(offered.mechanisms)
                raise SettingsError(
                    f"the broker takes sasl_mechanism {names}, not {name!r}"
                    if names
                    else "this port wants no login; set security_protocol to PLAINTEXT or SSL"
                )
            if name not in _ADVICE:
                return
            login = SASL_MECHANISMS[name](**{"sasl_plain_username": "", "sasl_plain_password": "", **options})
            while not login.is_done():
                answer = _ask(protocol, connection, SaslAuthenticateRequest(auth_bytes=login.auth_bytes(), version=0))
                if answer.error_code:
                    raise SettingsError(f"the broker refuses the login: {answer.error_message}; {_ADVICE[name]}")
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
