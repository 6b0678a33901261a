"""Says why a broker refuses a login: the mechanism, or user and password (PLAIN, SCRAM), in the broker's own words.

A broker answers a failed login and closes the connection at once; the Kafka client often reports only the close.
"""

import socket
import struct
from collections.abc import Mapping
from typing import Any

from worker.errors import BrokerUnavailable

_HANDSHAKE, _AUTHENTICATE = (17, 1), (36, 0)  # api key, version
_LONGEST_ANSWER = 1 << 20


def try_login(server: str, connection: socket.socket, options: Mapping[str, Any]) -> None:
    """Offer the mechanism, and log in where it is PLAIN or SCRAM; others are left to the Kafka client.

    Raises BrokerUnavailable with what the broker says; OSError when it hangs up without a word; ValueError, LookupError
    and struct.error when it makes no sense.
    """
    from worker.broker.access import SCRAM, scram_exchange

    mechanism = str(options.get("sasl_mechanism") or "")
    answer = _ask(connection, _HANDSHAKE, _text(mechanism))
    (code,) = struct.unpack_from(">h", answer)
    if code:
        offered = ", ".join(_texts(answer[2:]))
        raise BrokerUnavailable(f"{server}: the broker takes sasl_mechanism {offered}, not {mechanism!r}")
    user, password = (str(options.get(f"sasl_plain_{name}") or "") for name in ("username", "password"))
    if mechanism == "PLAIN":
        _authenticate(server, connection, f"\0{user}\0{password}".encode())
    elif mechanism in SCRAM:
        exchange = scram_exchange(user, password, mechanism)
        exchange.process_server_first_message(_authenticate(server, connection, exchange.first_message()))
        _authenticate(server, connection, exchange.final_message())


def _authenticate(server: str, connection: socket.socket, token: bytes) -> bytes:
    """The broker's part of the exchange."""
    answer = _ask(connection, _AUTHENTICATE, struct.pack(">i", len(token)) + token)
    code, length = struct.unpack_from(">hh", answer)
    said = answer[4 : 4 + max(0, length)]
    if code:
        reason = said.decode(errors="replace")
        raise BrokerUnavailable(f"{server}: the broker refuses the login: {reason}; check user and password")
    return answer[8 + len(said) :]


def _ask(connection: socket.socket, api: tuple[int, int], body: bytes) -> bytes:
    """The body of the broker's answer."""
    request = struct.pack(">hhih", *api, 2, -1) + body
    connection.sendall(struct.pack(">i", len(request)) + request)
    (size,) = struct.unpack(">i", _exactly(connection, 4))
    return _exactly(connection, min(max(size, 0), _LONGEST_ANSWER))[4:]


def _exactly(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        piece = connection.recv(size - len(received))
        if not piece:
            raise ConnectionError("the broker closed the connection during the login")
        received += piece
    return received


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


def _texts(packed: bytes) -> list[str]:
    (count,) = struct.unpack_from(">i", packed)
    found, at = [], 4
    for _ in range(count):
        (length,) = struct.unpack_from(">h", packed, at)
        found.append(packed[at + 2 : at + 2 + length].decode())
        at += 2 + length
    return found
